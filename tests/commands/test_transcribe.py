"""`streamer transcribe`: what stands in the results, wrong files beside good ones, and runs that are interrupted."""

import json
import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from protocol import check_session
from random_whisper import random_whisper

from streamer.audio.files import demo_path
from streamer.commands import run as commands
from streamer.commands.cli import main
from streamer.commands.transcribe import SUFFIXES, check_targets, is_done, transcribe
from streamer.errors import UsageError
from streamer.model.whisper import Model
from streamer.runtime import offline
from streamer.runtime.offline import OfflineEngine
from streamer.settings.config import Settings

sys.path.append(str(Path(__file__).parents[1] / "audio"))
from media_files import Sound, babble, write_tracks

RATE = 16_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(offline, "TEMPERATURES", (0.0,))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(random_whisper(6, vocabulary=51864, ending=2.0), name="random")


def write(path: Path, seed: int, seconds: float) -> Path:
    samples = np.random.default_rng(seed).normal(0, 2000, round(seconds * RATE)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def run(model, files, kind, folder):
    told: list[str] = []
    shown: dict[Path, tuple[float, float | None]] = {}
    failed = transcribe(
        model,
        Settings(),
        files,
        kind,
        folder,
        progress=lambda file, done_s, total_s: shown.update({file: (done_s, total_s)}),
        tell=told.append,
    )
    return failed, told, shown


def test_every_wrong_file_is_named_and_the_others_are_done(model, tmp_path):
    good, empty = write(tmp_path / "good.wav", 1, 3.0), tmp_path / "empty.wav"
    empty.write_bytes(b"")
    missing, folder = tmp_path / "missing.wav", tmp_path / "out"
    folder.mkdir()
    failed, told, shown = run(model, [missing, good, empty], "jsonl", folder)
    assert failed == 2
    assert [str(missing) in told[0], str(empty) in told[1]] == [True, True]
    assert sorted(path.name for path in folder.iterdir()) == ["good.jsonl"]
    events = [json.loads(line) for line in (folder / "good.jsonl").read_text().splitlines()]
    check_session(events)
    assert any(event["type"] == "transcript" for event in events)
    assert shown[good] == (3.0, 3.0)


def test_what_people_should_know_of_a_file_is_told_and_stands_among_the_events(model, tmp_path):
    path = write_tracks(
        tmp_path / "two.mkv", [Sound(babble(48_000, 3.0)), Sound(babble(48_000, 3.0, seed=2), default=True)]
    )
    (tmp_path / "out").mkdir()
    failed, told, _ = run(model, [path], "jsonl", tmp_path / "out")
    assert failed == 0
    assert len(told) == 1
    assert told[0].startswith(f"{path}: ")
    assert "track 2 of 2" in told[0]
    events = [json.loads(line) for line in (tmp_path / "out" / "two.jsonl").read_text().splitlines()]
    check_session(events)
    assert [event["detail"] for event in events if event["type"] == "status"][1] in told[0]


def test_the_command_ends_with_2_for_a_wrong_file(model, tmp_path, monkeypatch, capfd):
    good = write(tmp_path / "good.wav", 1, 2.0)
    monkeypatch.setattr(commands, "load", lambda settings, **options: model)
    assert main(["transcribe", str(good), str(tmp_path / "missing.wav")]) == 2
    out, err = capfd.readouterr()
    assert out.strip()
    assert err == f"streamer: file {tmp_path}/missing.wav: no such file; give an audio or video file\n"
    assert main(["transcribe", str(good)]) == 0
    assert capfd.readouterr().out == out
    into = ["transcribe", "--output", str(tmp_path / "out"), str(good)]
    assert main([*into, str(tmp_path / "missing.wav")]) == 2
    assert f"streamer: 1 of 2 files are transcribed in {tmp_path}/out\n" in capfd.readouterr().err
    assert main([*into, "--resume"]) == 0
    assert (
        capfd.readouterr().err
        == f"streamer: nothing is left to do: all results in {tmp_path}/out are newer than their files\n"
    )


def test_the_bundled_demo_is_transcribed_unless_a_file_is_called_so(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    failed, _, shown = run(model, [Path("demo")], "jsonl", out)
    described = json.loads(Path(demo_path(model.name)).with_suffix(".json").read_text())
    assert (failed, shown[Path("demo")][1]) == (0, pytest.approx(described["seconds"], abs=1))
    assert [path.name for path in out.iterdir()] == ["demo.jsonl"]
    write(tmp_path / "demo", 1, 2.0)
    assert run(model, [Path("demo")], "text", None)[2][Path("demo")] == (2.0, 2.0)


def test_what_only_run_takes_is_not_proposed(model, tmp_path):
    _, told, _ = run(model, [tmp_path / "missing.wav"], "text", None)
    assert told == [f"file {tmp_path}/missing.wav: no such file; give an audio or video file"]


@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_captions_come_to_stdout_too(model, tmp_path, capfd, kind):
    good = write(tmp_path / "good.wav", 1, 3.0)
    assert run(model, [good], kind, None)[0] == 0
    shown = capfd.readouterr().out
    assert run(model, [good], kind, tmp_path)[0] == 0
    assert shown.strip()
    assert (tmp_path / f"good{SUFFIXES[kind]}").read_text(encoding="utf-8") == shown


def test_an_interrupted_run_goes_on_from_its_last_window(model, tmp_path, monkeypatch):
    file, folder, other = write(tmp_path / "long.wav", 2, 64.0), tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    other.mkdir()
    assert run(model, [file], "jsonl", other)[0] == 0
    step, steps = OfflineEngine.step, []

    def interrupted(self, requests):
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(requests)
        return step(self, requests)

    monkeypatch.setattr(OfflineEngine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, [file], "jsonl", folder)
    assert [path.name for path in folder.iterdir()] == [".long.jsonl.windows"]
    assert (folder / ".long.jsonl.windows").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(OfflineEngine, "step", step)
    passes = model.encoder_passes
    failed, told, _ = run(model, [file], "jsonl", folder)
    assert (failed, "goes on at" in told[0]) == (0, True)
    fresh = model.encoder_passes - passes
    run(model, [file], "jsonl", folder)
    assert model.encoder_passes - passes - fresh == fresh + 1
    assert [path.name for path in folder.iterdir()] == ["long.jsonl"]
    assert (folder / "long.jsonl").stat().st_mode & 0o777 == 0o600
    assert (folder / "long.jsonl").read_text() == (other / "long.jsonl").read_text()


@pytest.mark.parametrize("harm", ["another file", "cut", "noise"])
def test_what_an_earlier_run_left_is_used_only_as_far_as_it_holds(model, tmp_path, monkeypatch, harm):
    file, log = write(tmp_path / "talk.wav", 3, 40.0), tmp_path / ".talk.txt.windows"
    step = OfflineEngine.step
    monkeypatch.setattr(OfflineEngine, "step", lambda self, due: step(self, due) if not due[0].window.start else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, [file], "text", tmp_path)
    monkeypatch.setattr(OfflineEngine, "step", step)
    if harm == "another file":
        write(file, 4, 41.0)
    else:
        kept = log.read_bytes()
        log.write_bytes(kept[:-40] if harm == "cut" else kept + b'{"text": 1}\n\xff')
    _, told, _ = run(model, [file], "text", tmp_path)
    assert bool(told) is (harm == "noise")
    found = (tmp_path / "talk.txt").read_text(encoding="utf-8")
    run(model, [file], "text", tmp_path)
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == found


def test_resume_needs_a_folder_and_leaves_out_what_is_newer(tmp_path):
    file, result = tmp_path / "a.wav", tmp_path / "a.txt"
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="--resume: needs --output"):
        check_targets([file], "text", None, resume=True)
    assert not is_done(file, result)
    result.write_text("said")
    assert is_done(file, result)
    os.utime(result, ns=(0, 0))
    assert not is_done(file, result)

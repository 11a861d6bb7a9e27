"""Two things never go into one file: both options are named, and what is in the file stays."""

import os
from pathlib import Path

import numpy as np
import pytest
from program import write_wav

import streamer.commands.cli
from streamer.errors import UsageError
from streamer.runtime.inputs import open_inputs
from streamer.runtime.own_files import check_files
from streamer.settings.config import resolve


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "talk.wav", np.zeros(1600, np.float32))


def checked(recording: Path, overrides: list[str], options: dict[str, object] | None = None) -> None:
    settings = resolve([], [f"audio.input={recording}", "audio.speed=0", *overrides], options or {})
    check_files(settings, open_inputs(settings.plans()), keeps_events=settings.history.persist)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("output.jsonl", "output.srt", "--srt {file}: is what --jsonl names too"),
        ("output.jsonl", "output.vtt", "--vtt {file}: is what --jsonl names too"),
        ("output.srt", "output.vtt", "--vtt {file}: is what --srt names too"),
        ("history.path", "output.jsonl", "--jsonl {file}: is what history.path names too"),
        ("delivery.history.path", "output.srt", "--srt {file}: is what delivery.history.path names too"),
        ("delivery.history.path", "history.path", "history.path {file}: is what delivery.history.path names too"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_two_outputs_are_both_named(first, second, says, there, recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "out"
    if there:
        file.write_text("kept")
    with pytest.raises(UsageError) as caught:
        checked(recording, ["history.persist=true", f"{first}={file}", f"{second}={file}"])
    assert str(caught.value) == f"{says.format(file=file)}; give each a file of its own"
    assert file.exists() == there
    with pytest.raises(UsageError):  # from the settings, and from the command line
        checked(recording, ["history.persist=true", f"{first}={file}"], {second: str(file)})


def test_other_names_of_the_same_file_are_seen(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "early").symlink_to(tmp_path / "not yet there")
    os.link(tmp_path / "out", tmp_path / "hard")
    pairs = (("out", "link"), ("out", "hard"), ("out", "a/../out"), ("not yet there", "early"))
    (tmp_path / "a").mkdir()
    for one, other in pairs:
        with pytest.raises(UsageError, match=r"--srt .*: is what --jsonl names too"):
            checked(recording, [f"output.jsonl={tmp_path / one}", f"output.srt={tmp_path}/{other}"])


def test_devices_and_files_of_their_own_are_taken(recording: Path, tmp_path: Path) -> None:
    checked(recording, ["output.jsonl=/dev/null", "output.srt=/dev/null"])
    checked(recording, [f"output.{kind}={tmp_path / kind}" for kind in ("jsonl", "srt", "vtt")])


def test_the_captions_of_each_of_several_sources_count(recording: Path, tmp_path: Path) -> None:
    taken = recording.rename(tmp_path / "talk.hall.srt")
    sources = [{"name": "kitchen", "input": str(taken)}, {"name": "hall", "input": str(taken)}]
    common = {"audio.speed": 0, "sources": sources}
    settings = resolve([], [], {**common, "output.srt": str(tmp_path / "talk.srt")})
    with pytest.raises(UsageError, match=r"--srt .*talk\.hall\.srt: is what sources\[1\]\.input names too"):
        check_files(settings, open_inputs(settings.plans()), keeps_events=False)
    captions = {"output.srt": str(tmp_path / "a.srt"), "output.jsonl": str(tmp_path / "a.kitchen.srt")}
    settings = resolve([], [], common | captions)
    with pytest.raises(UsageError, match=r"--srt .*a\.kitchen\.srt: is what --jsonl names too"):
        check_files(settings, open_inputs(settings.plans()), keeps_events=False)


def test_the_program_refuses_it_in_one_line_and_leaves_the_recording_alone(recording, tmp_path, capsys) -> None:
    before = recording.read_bytes()
    common = ["run", "--input", str(recording), "--speed", "0", "--no-server", "--model", "nano"]
    for outputs, says in (
        (["--srt", str(tmp_path / "x"), "--jsonl", str(tmp_path / "x")], "--srt {0}/x: is what --jsonl names too"),
        (["--jsonl", str(recording)], "--jsonl {0}/talk.wav: is what --input names too"),
    ):
        assert streamer.commands.cli.main([*common, *outputs]) == 2
        assert capsys.readouterr().err == f"streamer: {says.format(tmp_path)}; give each a file of its own\n"
    assert recording.read_bytes() == before
    assert not (tmp_path / "x").exists()

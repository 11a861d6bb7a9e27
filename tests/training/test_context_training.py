"""`streamer train context` on a small random model: what it hears, that it learns, and that a killed run goes on."""

import csv
import json

import numpy as np
import pytest
import torch
from random_whisper import ENGLISH, random_whisper
from tiny_data import write_wav

from streamer.errors import InputError, UsageError
from streamer.measure.recordings import read_recordings
from streamer.model.context_adapter import read_adapter
from streamer.model.encoder import encoder_sha256
from streamer.training.context import loop, make
from streamer.training.context.windows import RATE, Windows


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Nine recordings of 2 s with a text, and one of noise."""
    folder, random = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    rows = []
    for number in range(10):
        t = np.arange(2 * RATE) / RATE
        tone = 0.1 * np.sin(2 * np.pi * (200 + 50 * number) * t) + 0.01 * random.standard_normal(len(t))
        write_wav(folder / f"{number}.wav", tone.astype(np.float32))
        spoken = number < 9
        rows.append((f"{number}.wav", "talk" if spoken else "sounds/noise", "en", f"text {number}" if spoken else ""))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "set", "language", "text"), *rows])
    return folder / "manifest.csv"


@pytest.fixture
def model(tmp_path):
    module = random_whisper(3, vocabulary=ENGLISH, ending=2.0)
    path = tmp_path / "small.pt"
    torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, path)
    return path


def test_windows_are_drawn_by_their_number_and_are_of_all_lengths(manifest):
    one, other = (Windows(read_recordings(manifest), 0) for _ in range(2))
    drawn = [one.draw(number) for number in range(60)]
    for number in (3, 50):
        assert np.array_equal(drawn[number].samples, other.draw(number).samples)
    lengths = [len(window.samples) / RATE for window in drawn]
    assert min(lengths) < 3
    assert max(lengths) > 12
    assert all(window.samples.dtype == np.float32 and np.abs(window.samples).max() <= 1 for window in drawn)
    assert any(window.before for window in drawn)


def test_a_lesson_is_what_the_official_weights_say_of_the_window(manifest):
    module = random_whisper(3, vocabulary=ENGLISH, ending=2.0)
    window = Windows(read_recordings(manifest), 0).draw(1)
    found = loop.taught(loop.Reader(module), window, 0.0)
    assert found.tokens[0, found.judged] == 50257  # the start of the transcript
    greedy = found.logits[0, found.judged + 2 : -1].argmax(-1)
    written = found.tokens[0, found.judged + 3 :]
    assert (greedy == written).float().mean() > 0.5  # but for what may not be written
    with torch.no_grad():
        same = loop.loss(module, found, min(found.real + loop.TEACHER_MARGIN, 1500))
        short = loop.loss(module, found, found.real)
    assert same < 1e-4 < short


def test_it_learns(manifest):
    run = loop.begin(random_whisper(3, vocabulary=ENGLISH, ending=2.0), 4, 0)
    windows = Windows(read_recordings(manifest), 0)
    lessons = [loop.taught(run.teacher, windows.draw(number), 1.0) for number in (0, 1)]

    def missed():
        return sum(float(loop.loss(run.student, found, found.real + 64)) for found in lessons)

    with torch.no_grad():
        before = missed()
    for _ in range(15):
        run.optimiser.zero_grad()
        sum(loop.loss(run.student, found, found.real + 64) for found in lessons).backward()
        run.optimiser.step()
    with torch.no_grad():
        assert missed() < 0.8 * before


def test_a_run_that_was_ended_goes_on_to_the_same_bits(manifest, model, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    said = []

    def recipe(name, steps=4):
        return make.Recipe(str(model), [manifest], tmp_path / name, steps=steps, rank=2)

    whole = make.main(recipe("whole"), said.append)
    monkeypatch.setattr(loop, "_rate", lambda step, steps, rate=loop._rate: rate(step, 4))
    make.main(recipe("ended", 2), said.append)
    again = make.main(recipe("ended"), said.append)
    adapter, gone_on = read_adapter(whole), read_adapter(again)
    for name, parts in adapter.parts.items():
        assert all(torch.equal(one, other) for one, other in zip(parts, gone_on.parts[name], strict=True))
    assert adapter.encoder_sha256 == encoder_sha256(random_whisper(3, vocabulary=ENGLISH, ending=2.0).encoder)
    assert all(np.isfinite(up.numpy()).all() and up.any() for up, _ in adapter.parts.values())
    described = json.loads(whole.with_suffix(".json").read_text())
    assert [row["step"] for row in described["curve"]] == [0, 4]
    assert described["recordings"] == 8
    assert any("step 4 of 4" in line for line in said)


def test_what_cannot_be_learnt_from_is_named(manifest, model, tmp_path):
    missing = tmp_path / "none.csv"
    with pytest.raises(InputError, match="cannot be read"):
        make.main(make.Recipe(str(model), [missing], tmp_path / "out"), print)
    silent = tmp_path / "silent.csv"
    silent.write_text(f"path,set,text\n{manifest.parent / '9.wav'},sounds/noise,\n")
    with pytest.raises(UsageError, match="--data"):
        make.main(make.Recipe(str(model), [silent], tmp_path / "out"), print)

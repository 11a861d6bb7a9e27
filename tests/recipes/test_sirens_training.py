import json
import shutil

import numpy as np
import pytest
import torch
from tiny_data import write_wav
from torch.nn import functional

from streamer.errors import UsageError
from streamer.recipes import small_nets
from streamer.recipes.sirens import make
from streamer.recipes.sirens.loop import Bank, heard, train
from streamer.recipes.sirens.network import TrainedNet
from streamer.recipes.synthesis import gliding, scenes
from streamer.sound.patterns.sirens import BANDS, STEP_FRAMES, STEPS, SirenNet

SPOKEN = shutil.which("espeak-ng") and shutil.which("flite")


@pytest.fixture(scope="module")
def little():
    """Scenes of noise in which class 1 is a row that glides."""
    random = np.random.default_rng(0)
    levels = random.normal(-60, 3, (24, 400, BANDS)).astype(np.float16)
    classes = np.zeros((24, 400), np.int8)
    for scene in range(0, 24, 2):
        classes[scene, 150:350] = 1
        for step in range(150, 350):
            levels[scene, step, int(20 + 15 * np.sin(step / 12))] = -20
    return Bank(levels, classes)


def test_what_is_stored_gives_what_was_trained(tmp_path, little):
    network = train(little, steps=12)
    network.save(tmp_path / "sirens.onnx")
    stored = SirenNet(tmp_path / "sirens.onnx")
    for place in ([0, 300], [1, 200], [2, 40]):
        window = little.windows(np.array([place]))
        with torch.no_grad():
            expected = functional.softmax(network(window), dim=1)[0].numpy()
        frames = np.repeat(window[0].numpy(), STEP_FRAMES, axis=0)
        np.testing.assert_allclose(stored(frames), expected, atol=5e-3)


def test_windows_end_where_one_can_tell(little):
    sounding, early, silent = little.places()
    assert all(little.classes[scene, step] for scene, step in sounding)
    assert sounding[:, 1].min() == early[:, 1].min() == 150 + 10
    assert early[:, 1].max() == 150 + 44
    assert sounding[:, 1].max() == 349
    assert not any(little.classes[scene, step] for scene, step in silent)
    ended = silent[(silent[:, 0] % 2 == 0) & (silent[:, 1] > 350)]
    assert ended[:, 1].min() == 350 + 16
    assert not {0, 12} & set(silent[:, 0]) & set(sounding[:, 0])


def test_a_network_learns_what_it_is_shown(little):
    network = train(little, steps=80)
    with torch.no_grad():
        chance = heard(network, little, np.array([[0, 300], [1, 300], [12, 250], [13, 250]], np.int32))
    assert min(chance[[0, 2]]) > max(chance[[1, 3]])
    found = make.judged(network, little)
    assert [row["sirens"] for row in found["validation"]] == [2, 2, 2, 2]


def test_a_fresh_network_takes_windows_of_four_seconds():
    assert TrainedNet().eval()(torch.full((2, STEPS, BANDS), -50.0)).shape == (2, 4)


@pytest.mark.parametrize("maker", ["lead", "chirps", "singing", "engine", "riff", "drums", "music"])
def test_sounds_are_finite_equally_loud_and_the_same_again(maker):
    make_one = getattr(gliding, maker)
    once, again, other = (make_one(np.random.default_rng(seed), 8.0) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    for samples in (once, other):
        assert samples.dtype == np.float32
        assert samples.shape == (128_000,)
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(1, abs=1e-3)


@pytest.mark.skipif(not SPOKEN, reason="espeak-ng and flite speak in the scenes")
def test_the_whole_command_makes_a_network(tmp_path, monkeypatch):
    for name, few in (("ESPOKEN", 2), ("FLITED", 1), ("DIGITS", 1)):
        monkeypatch.setattr(scenes, name, few)
    monkeypatch.setattr(scenes, "synthetic_household", lambda each, seed: ())
    monkeypatch.setattr(small_nets, "BLOCK", 4)
    (tmp_path / "manifest.csv").write_text("path,kind,split,labels\nbell.wav,sound,train,Bell\n")
    write_wav(tmp_path / "bell.wav", np.sin(np.arange(32_000) * 0.3))
    recipe = make.Recipe(tmp_path, tmp_path / "out", scenes=8, steps=3, processes=1)
    told = []
    path = make.main(recipe, told.append)
    assert path.exists()
    assert json.loads((tmp_path / "out" / "sirens.json").read_text())["steps"] == 3
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "scenes").iterdir()}
    assert len(before) == 2
    make.main(recipe, told.append)  # what is composed stays
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "scenes").iterdir()} == before


@pytest.mark.parametrize("content", [None, "path,kind\n", "\xff"])
def test_a_folder_without_a_manifest_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"--data .*manifest\.csv"):
        make.main(make.Recipe(tmp_path, tmp_path, scenes=8, steps=3), lambda line: None)

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_data import write_wav

from streamer.errors import UsageError
from streamer.recipes import small_nets
from streamer.recipes.synthesis import scenes as backgrounds
from streamer.recipes.t4 import make, scenes
from streamer.recipes.t4.make import judged, train
from streamer.sound.patterns import t4
from streamer.sound.patterns.t4 import INPUTS

SPOKEN = shutil.which("espeak-ng") and shutil.which("flite")
RATE = 16_000


class Quiet:
    """Sounds that are a faint rush, whatever is asked for."""

    def layer(self, kind, random, seconds):
        assert kind != "k:co_t4"
        return random.standard_normal(int(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def little():
    """Pairs of which one number tells what they are: 400, of 40 scenes."""
    random = np.random.default_rng(0)
    classes = np.stack([random.integers(0, 2, 400)] * 2, axis=1).astype(np.int8)
    inputs = random.normal(0, 1, (400, 6)).astype(np.float16)
    inputs[:, 2] = 3.0 * classes[:, 1] - 1.5
    return {
        "inputs": inputs,
        "classes": classes,
        "start_s": 3 * (np.arange(400.0) % 10),
        "scene": np.repeat(np.arange(40), 10),
        "followed": np.array([classes[scene * 10 : scene * 10 + 10, 1].sum() for scene in range(40)]),
        "snr_db": np.full(40, 5.0),
    }


def test_a_network_learns_what_it_is_shown_and_is_stored_as_it_is(tmp_path, little, monkeypatch):
    network = train(little["inputs"], little["classes"], steps=2500)
    held = np.arange(40) % make.VALIDATION == 0
    rows = judged(network, little, held)["validation"]
    total = little["followed"][held].sum()
    assert rows[0]["false"] == 0
    heard, _, of = rows[0]["heard from 0 dB"].split()
    assert int(of) == total
    assert int(heard) >= 0.9 * total
    (tmp_path / "data").mkdir()
    network.save(tmp_path / "data" / "t4.npz")
    monkeypatch.setattr(t4, "files", lambda package: tmp_path)
    stored = t4.bundled.__wrapped__()
    for one in little["inputs"][:5].astype(np.float32):
        with torch.no_grad():
            expected = network(torch.from_numpy(one))
        np.testing.assert_allclose(stored(one), expected, atol=2e-2)


@pytest.mark.parametrize("kind", ["t4", "like"])
def test_scenes_know_which_groups_are_a_co_alarms(kind, monkeypatch):
    monkeypatch.setattr(scenes, "T4_CHANCE", 1.0 if kind == "t4" else 0.0)
    monkeypatch.setattr(scenes, "LIKE_CHANCE", 1.0)
    monkeypatch.setattr(scenes, "SNR_DB", (20.0, 20.0))
    made = [scenes.examples(Quiet(), number) for number in range(6)]
    assert all(one.inputs.shape[1] == INPUTS for one in made)
    groups, pairs = (sum(int((one.classes[:, column] == 1).sum()) for one in made) for column in (0, 1))
    followed = sum(one.followed for one in made)
    assert (followed > 0) == (kind == "t4")
    assert (pairs >= 0.7 * followed) if kind == "t4" else (groups == pairs == 0)
    assert sum(int((one.classes == 0).all(axis=1).sum()) for one in made) > 0


def test_the_same_number_is_the_same_scene():
    one, again = (scenes.examples(Quiet(), 3) for _ in range(2))
    assert np.array_equal(one.inputs, again.inputs)
    assert np.array_equal(one.classes, again.classes)


@pytest.mark.skipif(not SPOKEN, reason="espeak-ng and flite speak in the scenes")
def test_the_whole_command_makes_a_network(tmp_path, monkeypatch):
    for name, few in (("ESPOKEN", 2), ("FLITED", 1), ("DIGITS", 1)):
        monkeypatch.setattr(backgrounds, name, few)
    monkeypatch.setattr(backgrounds, "synthetic_household", lambda each, seed: ())
    monkeypatch.setattr(small_nets, "BLOCK", 6)
    monkeypatch.setattr(scenes, "SNR_DB", (20.0, 20.0))
    (tmp_path / "manifest.csv").write_text("path,kind,split,labels\nbell.wav,sound,train,Bell\n")
    write_wav(tmp_path / "bell.wav", np.sin(np.arange(32_000) * 0.3))
    recipe = make.Recipe(tmp_path, tmp_path / "out", scenes=12, steps=3, processes=1)
    told = []
    path = make.main(recipe, told.append)
    assert set(np.load(path).files) == {f"{name}.{part}" for name in t4.LAYERS for part in ("weight", "bias")}
    assert json.loads((tmp_path / "out" / "t4.json").read_text())["steps"] == 3
    assert len(list((tmp_path / "out" / "pairs").iterdir())) == 2


def test_too_few_scenes_are_named(tmp_path, little, monkeypatch):
    (tmp_path / "manifest.csv").write_text("path,kind,split,labels\n")
    nothing = {**little, "classes": np.zeros_like(little["classes"])}
    monkeypatch.setattr(make, "composed", lambda *given: nothing)
    with pytest.raises(UsageError, match="--scenes 40: too few"):
        make.main(make.Recipe(tmp_path, tmp_path, scenes=40, steps=3), lambda line: None)

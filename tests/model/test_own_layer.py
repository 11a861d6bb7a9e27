import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_whisper import random_model

from streamer.audio.fine_spectrum import BANDS
from streamer.errors import CheckpointError, UsageError
from streamer.model.choice import load_model
from streamer.model.own_sounds import (
    Background,
    OwnLayer,
    OwnSound,
    OwnSoundFiles,
    bundled_background,
    encoder_identity,
    own_layer,
    pack,
    read_background,
    unpack,
)


def background(encoder="e", width=8, k=4):
    random = np.random.default_rng(0)
    others = pack(random.normal(0, 0.5, (3, 5, k)).astype(np.float32))
    spectra = random.integers(-5, 26, (3, 5, BANDS)).astype(np.int8)
    return Background(
        encoder, "m", np.zeros(width, np.float32), random.normal(size=(width, k)).astype(np.float32), others, spectra
    )


def sound(name="my bell", encoder="e", weight=(9.0, 0, 0, 0, *[2.0] * BANDS), **fields):
    weight = np.array(weight, np.float32)
    given = {"bias": 0.0, "threshold": 0.0, "run": 2, "false_alarms": 1, "false_hours": 0.8, "recall": 0.9} | fields
    return OwnSound(name, "info", encoder, "m", 3, weight, **given)


def spectrum(steps):
    return np.random.default_rng(7).uniform(-5, 25, (steps, BANDS)).astype(np.float32)


def test_an_encoder_is_told_by_what_no_precision_changes():
    single, half = random_model(1), random_model(1, dtype=torch.bfloat16)
    assert encoder_identity(single) == encoder_identity(half)
    other = random_model(1)
    other.module.encoder.ln_post.weight.data += 0.01
    assert encoder_identity(other) != encoder_identity(single)


def test_a_model_that_nothing_comes_with_is_refused_by_name():
    with pytest.raises(UsageError, match="--model: own sounds can be learned with nano, tiny"):
        bundled_background(random_model(1))


def test_a_background_survives_its_file(tmp_path):
    made = background()
    made.write(tmp_path / "m.npz")
    found = read_background((tmp_path / "m.npz").read_bytes(), "m.npz")
    np.testing.assert_array_equal(found.others, made.others)
    np.testing.assert_array_equal(found.spectra, made.spectra)
    np.testing.assert_allclose(found.projection, made.projection, atol=1e-2)
    with pytest.raises(CheckpointError, match="is no background of own sounds"):
        read_background(b"PK nothing", "m.npz")


def test_vectors_have_unit_length_packed_or_not():
    made, random = background(), np.random.default_rng(1)
    found = made.vectors(random.normal(size=(2, 5, 4)).astype(np.float32), spectrum(4))
    assert found.shape == (4, 4 + BANDS), "as many steps as both have"
    for part in (found[:, :4], found[:, 4:], made.other_vectors()[..., 4:]):
        np.testing.assert_allclose(np.linalg.norm(part, axis=-1), 1, atol=2e-3)
    np.testing.assert_allclose(unpack(pack(found[:, :4])), found[:, :4], atol=0.005)


def test_what_was_learned_is_kept_found_and_forgotten(tmp_path):
    files = OwnSoundFiles(tmp_path / "sounds")
    assert files.read() == ()
    kept = sound(threshold=1.5)
    files.write(kept)
    found = files.find("My Bell")
    assert found.weight.tolist() == kept.weight.tolist()
    assert dataclasses.replace(found, weight=kept.weight) == kept
    assert (tmp_path / "sounds" / "my bell.npz").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="NAME: no sound is called 'bel'; there are: my bell"):
        files.forget("bel")
    files.forget("MY BELL")
    assert files.read() == ()


def test_a_damaged_file_is_left_out_and_said(tmp_path, caplog):
    files = OwnSoundFiles(tmp_path)
    files.write(sound())
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    assert [item.name for item in files.read()] == ["my bell"]
    assert "bad.npz" in caplog.text


def test_sounds_of_another_encoder_are_not_listened_for_and_that_is_said(tmp_path, caplog):
    model = load_model("nano", head=None)
    assert own_layer(model, tmp_path) is None
    assert not caplog.text
    files = OwnSoundFiles(tmp_path)
    files.write(sound("kettle"))
    assert own_layer(model, tmp_path) is None
    assert "'kettle' was learned with m and is not listened for with nano" in caplog.text
    files.write(sound(encoder=encoder_identity(model)))
    assert [item.name for item in own_layer(model, tmp_path).sounds] == ["my bell"]


def test_scores_say_where_the_end_of_a_window_is_most_like_it():
    made, random = background(), np.random.default_rng(2)
    taps = torch.from_numpy(random.normal(size=(2, 12, 4)).astype(np.float32))
    (score,) = OwnLayer(made, (sound(threshold=1.0),)).scores(taps, spectrum(5), 160_000)
    logits = sound().logits(made.vectors(taps[:, -5:].numpy(), spectrum(5)))
    assert score.start_sample == 160_000 - (5 - int(logits.argmax())) * 6400
    assert score.end_sample == score.start_sample + 2 * 6400
    assert score.score == pytest.approx(1 / (1 + np.exp(1.0 - logits.max())), abs=1e-6)
    assert len(OwnLayer(made, (sound(),)).scores(taps[:, :1], spectrum(1), 6400)) == 1  # fewer steps than a run


def test_a_layer_from_before_there_was_a_fine_spectrum_goes_on_with_the_taps_alone(tmp_path):
    made, taps = background(), np.random.default_rng(2).normal(size=(2, 5, 4)).astype(np.float32)
    files = OwnSoundFiles(tmp_path)
    files.write(sound(weight=(9.0, 0, 0, 0), run=1))
    (earlier,) = files.read()
    logits = earlier.logits(made.vectors(taps, spectrum(5)))
    np.testing.assert_allclose(logits, made.directions(taps) @ earlier.weight, rtol=1e-5)


def test_names_of_sounds_become_files_of_their_own(tmp_path):
    files = OwnSoundFiles(tmp_path)
    names = ["дверь", "my bell", "my-bell", "my_bell"]
    for name in names:
        files.write(sound(name))
    assert sorted(item.name for item in files.read()) == sorted(names)
    assert all(a != b for a, b in itertools.combinations(sorted(tmp_path.glob("*.npz")), 2))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 1_300), place=st.integers(0, 1_300), flip=st.integers(0, 255))
def test_a_damaged_file_costs_its_own_sound_and_never_the_start(tmp_path, cut, place, flip):
    """After a power cut somebody's alarms must not hang on what was learned of their door bell."""
    files = OwnSoundFiles(tmp_path)
    files.write(sound("my bell"))
    files.write(sound("oven"))
    path = tmp_path / "oven.npz"
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(bytes(content[: max(0, len(content) - cut)]))
    read = files.read()
    assert [one.name for one in read if one.name != "oven"] == ["my bell"] or len(read) == 2
    path.write_bytes(bytes(content[: len(content) // 2]))
    assert [one.name for one in files.read()] == ["my bell"]

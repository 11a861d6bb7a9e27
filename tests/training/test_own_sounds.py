"""Learning, with the bundled model and what comes with it: the real parts, on a bell that is made here."""

import functools

import numpy as np
import pytest
from chimes import RATE, chime, noise

from streamer.audio.files import demo_path, read_audio
from streamer.audio.fine_spectrum import fine_spectrum
from streamer.errors import InputError
from streamer.events import Alert, Sound
from streamer.model.choice import load_model
from streamer.model.own_sounds import OwnLayer, OwnSound, bundled_background
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings
from streamer.settings.own_sounds import own_rule
from streamer.settings.rules import AlertRules
from streamer.training.moments import FRAME, moment_of, scenes
from streamer.training.own_sounds import encoder_of, learn


@functools.cache
def parts():
    model = load_model("nano", head=None)
    return model, bundled_background(model), encoder_of(model)


@functools.cache
def learned() -> OwnSound:
    _, background, encode = parts()
    clips = [(f"clip {seed}", chime(seed)) for seed in range(4)]
    return learn("my bell", "warning", clips, encode, background)


def test_a_clip_is_cut_to_where_it_sounds():
    moment = moment_of(chime(1), "clip")
    assert 0.8 < len(moment.samples) / RATE < 1.6
    assert moment.active[0]
    assert moment.active[-1]
    assert len(moment.active) == len(moment.samples) // FRAME


@pytest.mark.parametrize(
    ("samples", "says"),
    [(np.zeros(RATE, np.float32), "a.wav: is silent"), (np.zeros(100, np.float32), "a.wav: is too short")],
)
def test_silence_is_refused(samples, says):
    with pytest.raises(InputError, match=says):
        moment_of(samples, "a.wav")


def test_scenes_are_alike_for_one_seed_and_differ_between_seeds():
    moment = moment_of(chime(1), "clip")
    one, again, other = (list(scenes(moment, 3, np.random.default_rng(seed))) for seed in (5, 5, 6))
    for scene, twin in zip(one, again, strict=True):
        np.testing.assert_array_equal(scene.samples, twin.samples)
    assert not np.array_equal(one[0].samples, other[0].samples)
    for scene in one + other:
        assert len(scene.samples) == 10 * RATE
        assert np.isfinite(scene.samples).all()
        assert np.abs(scene.samples).max() < 2
        assert scene.sounds.shape == (25,)
        assert scene.sounds.any()


def test_a_learned_bell_is_heard_and_speech_is_not():
    model, background, _ = parts()
    rules = AlertRules(defaults=False, rules=(own_rule("my bell", "warning"),))
    stream = Stream(model, Settings(alerts=rules), own=OwnLayer(background, (learned(),)))
    talk = read_audio(demo_path("base"))[: 10 * RATE]
    samples = np.concatenate([noise(1, 4), 0.5 * chime(77), noise(2, 8), talk])
    events = [*stream.push(samples), *stream.finish()]
    rung = 4.3
    sounds = [event for event in events if isinstance(event, Sound)]
    assert [(event.label, event.state) for event in sounds] == [("my bell", "start"), ("my bell", "end")]
    assert rung < sounds[0].audio_t <= rung + 2
    assert rung - 1 < sounds[0].start < rung + 1
    alerts = [event for event in events if isinstance(event, Alert)]
    assert [(event.rule, event.state) for event in alerts] == [("my_bell", "raised"), ("my_bell", "cleared")]


def test_another_bell_of_the_same_sort_is_not_taken_for_it():
    _, background, encode = parts()

    def most(*notes):
        samples = np.concatenate([noise(1, 8), 0.5 * chime(77, notes=notes)])
        return learned().logits(background.vectors(encode(samples), fine_spectrum(samples))).max()

    assert most(1318.5, 1046.5, 784.0) > learned().threshold + 2
    assert most(1480.0, 1174.7, 880.0) < learned().threshold


def test_it_says_how_well_it_does():
    sound = learned()
    assert sound.clips == 4
    assert sound.recall > 0.5
    assert sound.false_hours > 0.5
    assert sound.false_alarms <= 8  # of 300 windows, some of them bells


def test_clips_that_differ_are_refused():
    _, background, encode = parts()
    siren = np.sin(np.cumsum(2 * np.pi * (700 + 400 * np.sin(np.arange(2 * RATE) / 900)) / RATE)).astype(np.float32)
    hum = 0.1 * np.sign(np.sin(2 * np.pi * 110 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    different = [("bell", chime(1)), ("siren", 0.2 * siren), ("hum", hum), ("hiss", noise(3, 2, 0.1))]
    with pytest.raises(InputError, match="the clips are not alike"):
        learn("x", "info", different, encode, background)
    bells = [(f"bell {n}", chime(n)) for n in range(3)]
    with pytest.raises(InputError, match=r"siren: is unlike the other clips: leave it out"):
        learn("x", "info", [*bells, different[1]], encode, background)
    with pytest.raises(InputError, match=r"(siren|hiss): is unlike .* so is (siren|hiss): leave them out"):
        learn("x", "info", [*bells, different[1], different[3]], encode, background)


def test_clicks_are_refused():
    _, background, encode = parts()
    clicks = np.zeros(2 * RATE, np.float32)
    clicks[::1600] = 0.5
    with pytest.raises(InputError, match="clicks: sounds too briefly at a time"):
        learn("x", "info", [("clicks", clicks)] * 3, encode, background)

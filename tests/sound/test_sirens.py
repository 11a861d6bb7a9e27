"""The siren detector's state, driven by a scripted network; the network itself on synthetic sound."""

from itertools import pairwise

import numpy as np
import pytest

from streamer.recipes.synthesis import sounds
from streamer.sound.patterns import sirens
from streamer.sound.patterns.sirens import (
    BANDS,
    CLASSES,
    LOOK_FRAMES,
    STEP_FRAMES,
    STEPS,
    SirenDetector,
    _longest,
    band_levels,
    bundled,
    has_hilo_tones,
)
from streamer.sound.patterns.spectrum import Spectrogram
from streamer.sound.patterns.state import CadencePhase

RATE = 16_000
CLOCK = np.arange(5 * RATE) / RATE
EXACT = sounds.Spread(tone=0.0, timing=0.0, rt60_s=0.0)


def looked(chances, kind="wail", monkeypatch=None, turns=()):
    """The patterns in sight after each look whose chance of a siren, and of two tones in turn, is scripted."""
    script, turns = iter(chances), iter(turns)

    def scripted(levels):
        assert levels.shape == (STEP_FRAMES * STEPS, BANDS)
        chance = next(script)
        return np.array([1 - chance, *(chance * (name == kind) for name in CLASSES[1:])], np.float32)

    monkeypatch.setattr(sirens, "bundled", lambda: scripted)
    monkeypatch.setattr(sirens, "has_hilo_tones", lambda levels: next(turns, True))
    detector, found = SirenDetector(), []
    for look in range(len(chances)):
        detector.push(np.zeros((LOOK_FRAMES, 257), np.float32), look * LOOK_FRAMES)
        found.append([state for pattern in detector.patterns for state in pattern.states()])
    return found


@pytest.mark.parametrize(
    ("chances", "phases"),
    [
        ([0.9] * 4, ""),
        ([0.96] * 4, "cccc"),
        ([0.99] * 5, "cccss"),
        ([0.99, 0.99, 0.99, 0.97, 0.99, 0.99, 0.99, 0.99], "cccccccs"),
        ([0.99] * 4 + [0.6] * 3, "cccssss"),
    ],
)
def test_four_sure_looks_in_a_row_make_a_siren(chances, phases, monkeypatch):
    found = looked(chances, monkeypatch=monkeypatch)
    letters = {CadencePhase.CANDIDATE: "c", CadencePhase.SOUNDING: "s"}
    assert "".join(letters[state.phase] for states in found for state in states) == phases


def test_a_siren_is_over_when_it_was_not_heard_for_a_while(monkeypatch):
    found = looked([0.0] * 10 + [0.999] * 10 + [0.1] * 40, "hilo", monkeypatch)
    sounding = [place for place, states in enumerate(found) if any(s.phase is CadencePhase.SOUNDING for s in states)]
    over = [
        (place, state) for place, states in enumerate(found) for state in states if state.phase is CadencePhase.OVER
    ]
    assert sounding[0] == 13
    assert [state.kind.value for _, state in over] == ["hilo"]
    place, state = over[0]
    look_s = LOOK_FRAMES / 62.5
    assert (place - 20) * look_s == pytest.approx(sirens.TIMEOUT_S, abs=0.3)
    assert state.onset_sample / RATE == pytest.approx(11 * look_s - 0.45, abs=0.1)
    assert state.last_sample / RATE == pytest.approx(20 * look_s, abs=0.1)


@pytest.mark.parametrize(("kind", "phases"), [("hilo", "cccccss"), ("wail", "cccssss")])
def test_a_hilo_is_one_when_two_tones_took_turns(kind, phases, monkeypatch):
    found = looked([0.99] * 7, kind, monkeypatch, turns=[False, False, True])
    letters = {CadencePhase.CANDIDATE: "c", CadencePhase.SOUNDING: "s"}
    assert "".join(letters[state.phase] for states in found for state in states) == phases


def test_a_siren_is_plain_after_six_looks_without_doubt(monkeypatch):
    scores = [max((s.score for s in states), default=0.0) for states in looked([0.999] * 9, monkeypatch=monkeypatch)]
    assert scores == sorted(scores)
    assert [place for place, (one, other) in enumerate(pairwise(scores), 1) if one < 1 <= other] == [5]


def test_after_a_gap_nothing_is_known_but_what_sounds(monkeypatch):
    monkeypatch.setattr(sirens, "bundled", lambda: lambda levels: np.array([0.001, 0.999, 0, 0], np.float32))
    detector = SirenDetector()
    frames = np.zeros((3 * LOOK_FRAMES, 257), np.float32)
    detector.push(frames, 0)
    detector.reset()
    detector.push(frames, 100 * LOOK_FRAMES)
    assert [state.phase for state in detector.patterns[0].states()] == [CadencePhase.CANDIDATE]
    detector.push(frames[:LOOK_FRAMES], 103 * LOOK_FRAMES)
    assert [state.phase for state in detector.patterns[0].states()] == [CadencePhase.SOUNDING]


def levels_of(samples):
    frames, _ = Spectrogram().push(samples.astype(np.float32), samples.size)
    return band_levels(frames)[-STEP_FRAMES * STEPS :]


@pytest.mark.parametrize("kind", CLASSES[1:])
def test_the_network_names_the_siren_at_any_level(kind):
    made = sounds.ALARMS[kind](np.random.default_rng(5), 6.0, EXACT).samples
    rush = np.random.default_rng(6).standard_normal(made.size)
    for gain in (0.3, 0.003):
        chances = bundled()(levels_of(gain * (made + 0.1 * rush)))
        assert chances.sum() == pytest.approx(1, abs=1e-5)
        assert CLASSES[int(chances.argmax())] == kind
        assert chances.max() > 0.9


@pytest.mark.parametrize("samples", [np.zeros(80_000), np.full(80_000, 0.5), np.sin(np.arange(80_000) * 0.4)])
def test_the_network_hears_no_siren_in_silence_and_steady_tones(samples):
    assert bundled()(levels_of(samples))[0] > 0.9


def turned(pitch_hz, gate=1.0, noise=1e-3):
    """Whether two tones took turns at the end of a wave of these pitches with a few overtones."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, CLOCK.shape)) / RATE
    wave = gate * sum(np.sin(k * phase) / k for k in (1, 3, 5))
    rush = noise * np.random.default_rng(0).standard_normal(CLOCK.size)
    frames, _ = Spectrogram().push((0.1 * wave + rush).astype(np.float32), CLOCK.size)
    return has_hilo_tones(band_levels(frames)[-STEP_FRAMES * STEPS :])


@pytest.mark.parametrize("end_s", [0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize(("low", "high"), [(435, 580), (400, 500), (660, 900)])
def test_a_hilo_that_turned_once_did(low, high, end_s):
    since = CLOCK - 5 + end_s
    assert turned(np.where(since < 0.5, low, high), since >= 0)


@pytest.mark.parametrize("end_s", [0.3, 0.5, 0.6, 0.8, 1.2])
@pytest.mark.parametrize("tone", [485, 520, 555])
def test_the_first_beeps_of_a_t3_did_not(tone, end_s):
    since = CLOCK - 5 + end_s
    assert not turned(tone, (since >= 0) & (since % 1 < 0.5))
    assert not turned(tone, (since >= 0) & (since % 1 < 0.5), noise=0.1)


def test_two_tones_at_once_did_not():
    frames, _ = Spectrogram().push(
        (0.1 * (np.sin(2 * np.pi * 435 * CLOCK) + np.sin(2 * np.pi * 580 * CLOCK))).astype(np.float32), CLOCK.size
    )
    assert not has_hilo_tones(band_levels(frames)[-STEP_FRAMES * STEPS :])


@pytest.mark.parametrize("seed", range(4))
def test_a_composed_hilo_did(seed):
    made = sounds.hilo(np.random.default_rng(seed), 4.1, sounds.DEVELOPMENT).samples
    frames, _ = Spectrogram().push(0.1 * made, made.size)
    assert has_hilo_tones(band_levels(frames))


def test_the_longest_run_of_each_column():
    heard = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)
    assert _longest(heard).tolist() == [2, 0, 2]

from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from alert_rules import parse_rules
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.files import read_audio
from streamer.recipes.synthesis import sounds
from streamer.sound.alerts import AlertEngine
from streamer.sound.patterns.cadence import CadenceDetector
from streamer.sound.patterns.state import DOUBTFUL_SCORE, CadencePhase
from streamer.sound.triggers import AlertInput
from streamer.vad.planner import BEAT_SAMPLES

RATE = 16_000
SCENES = Path(__file__).parents[2] / ".." / "shared" / "scenes"
EXACT = sounds.Spread(tone=0.0, timing=0.0, rt60_s=0.0)


def listen(samples):
    """What the default rules raise and clear by the signal's patterns alone, sirens without consent."""
    rules = parse_rules({"rules": [{"id": "siren", "labels": []}]})
    engine, detector, changes = AlertEngine(rules), CadenceDetector(), []
    for end in range(BEAT_SAMPLES, samples.size + 1, BEAT_SAMPLES):
        states = detector.step(samples[end - BEAT_SAMPLES : end], end)
        changes += engine.step(AlertInput(end_sample=end, cadence=tuple(states)))
    return changes + engine.finish(samples.size // BEAT_SAMPLES * BEAT_SAMPLES)


def noisy(samples, level=0.05, noise=1e-4, seed=0):
    rng = np.random.default_rng(seed)
    return (samples * level + noise * rng.standard_normal(samples.size)).astype(np.float32)


def shown(samples, hop=8_000):
    """(end of the hop, state) of every pattern in sight, hop by hop."""
    detector = CadenceDetector()
    for end in range(hop, samples.size + 1, hop):
        yield from ((end, state) for state in detector.step(samples[end - hop : end], end))


def heard(samples, hop=8_000):
    """(phase, kind, second said, onset, last) of everything that begins to sound or is over."""
    sounding, found = set(), []
    for end, state in shown(samples, hop):
        if state.phase is CadencePhase.OVER or (state.phase is CadencePhase.SOUNDING and state.kind not in sounding):
            found.append(
                (state.phase.value, state.kind.value, end / RATE, state.onset_sample / RATE, state.last_sample / RATE)
            )
            sounding ^= {state.kind}
    return found


def low_beeps(overtones=()):
    """Twelve seconds of T3 at 520 Hz with these overtones, float64."""
    clock = np.arange(12 * RATE) / RATE
    gate = (clock % 4 < 2.5) & (clock % 1 < 0.5)
    return gate * sum(np.sin(2 * np.pi * 520 * k * clock) / k for k in (1, *overtones))


def sounding_scores(samples):
    return [state.score for _, state in shown(samples) if state.phase is CadencePhase.SOUNDING]


@cache
def alarm(kind, seed=3, seconds=20.0):
    sound = sounds.ALARMS[kind](np.random.default_rng(seed), seconds, EXACT)
    silence = np.zeros(4 * RATE, np.float32)
    return noisy(np.concatenate([silence, sound.samples, silence, silence, silence])), sound


@pytest.mark.parametrize(("kind", "within_s"), [("t3", 6.0), ("t4", 8.6), ("yelp", 1.5), ("hilo", 2.0), ("wail", 3.0)])
def test_each_pattern_is_heard_once_and_its_end_too(kind, within_s):
    samples, sound = alarm(kind)
    found = heard(samples)
    assert [(phase, name) for phase, name, *_ in found] == [("sounding", kind), ("over", kind)]
    said, onset = found[0][2:4]
    assert said - 4 <= within_s
    assert -0.5 <= onset - 4 <= within_s
    over, last = found[1][2], found[1][4]
    assert abs(last - 4 - sound.end_s) <= 0.7
    limit = 1.5 * sound.period_s if kind in {"t3", "t4"} else 3.0
    assert over - 4 - sound.end_s <= limit


def test_a_wail_may_fade_as_it_drives_away():
    siren = sounds.wail(np.random.default_rng(3), 30.0, EXACT).samples * 0.5
    gone_s = np.maximum(np.arange(siren.size) / RATE - 10, 0)
    found = heard(noisy(siren * 10 ** (-2.5 * gone_s / 20), noise=1e-6))
    assert [phase for phase, *_ in found] == ["sounding"]


@pytest.mark.parametrize("kind", ["t3", "t4"])
@pytest.mark.parametrize("tone", [2.9, 3.3])
def test_beeps_are_heard_with_tone_and_timing_off_by_seven_percent(kind, tone):
    stretch = 1.07 if tone > 3 else 0.93
    on, count, pause = (0.5, 3, 1.5) if kind == "t3" else (0.1, 4, 5.0)
    clock = np.arange(20 * RATE) / RATE
    place = (clock / stretch) % (2 * on * count - on + pause)
    gate = (place < 2 * on * count - on) & (place % (2 * on) < on)
    assert [name for _, name, *_ in heard(noisy(gate * np.sin(2 * np.pi * tone * 1000 * clock)))] == [kind]


def test_a_t4_in_a_room_that_fills_its_gaps_is_heard_with_its_second_group():
    place = (np.arange(12 * RATE) / RATE - 1) % 5.7
    gate = (place < 0.7) & (place % 0.2 < 0.1)
    gate[:RATE] = False
    beeps = (gate * np.sin(2 * np.pi * 3100 * np.arange(gate.size) / RATE)).astype(np.float32)
    found = heard(noisy(sounds.room(np.random.default_rng(0), beeps, 0.7)))
    assert [(kind, 7.4 < said <= 8.5, abs(onset - 1) < 0.1) for _, kind, said, onset, _ in found] == [
        ("t4", True, True)
    ]


@pytest.mark.parametrize(
    ("overtones", "sure"), [((), False), ((2, 3, 4, 5, 6, 7), False), ((3, 5, 7), True), ((3, 5, 7, 9, 11, 13), True)]
)
def test_low_beeps_that_are_no_square_wave_are_doubtful(overtones, sure):
    scores = sounding_scores(noisy(low_beeps(overtones)))
    assert scores
    assert (max(scores) > DOUBTFUL_SCORE) == sure


def test_overtones_that_other_sounds_bury_are_not_missed():
    beeps = low_beeps()
    rush = np.random.default_rng(1).standard_normal(beeps.size)
    for noise, sure in ((1e-4, False), (0.5, True)):
        scores = sounding_scores(noisy(beeps + noise * rush))
        assert scores
        assert (max(scores) > DOUBTFUL_SCORE) == sure


@pytest.mark.parametrize("kind", ["t3", "t4", "yelp", "hilo", "wail"])
def test_patterns_are_heard_in_household_noise_as_loud_as_they(kind):
    samples, _ = alarm(kind)
    noise = sounds.household(np.random.default_rng(8), samples.size / RATE, sounds.DEVELOPMENT).samples * np.float32(
        0.05
    )
    assert kind in [name for phase, name, *_ in heard(samples + noise) if phase == "sounding"]


@pytest.mark.parametrize("name", list(sounds.DISTRACTORS))
def test_other_sounds_raise_nothing_critical(name):
    rng = np.random.default_rng(21)
    samples = noisy(sounds.DISTRACTORS[name](rng, 40.0, sounds.DEVELOPMENT).samples)
    assert [change.rule for change in listen(samples) if change.severity == "critical"] == []


def test_an_alarm_raises_its_rule_and_clears_it():
    samples, sound = alarm("t3")
    changes = listen(samples)
    assert [(change.rule, change.state) for change in changes] == [
        ("smoke_alarm", "raised"),
        ("smoke_alarm", "cleared"),
    ]
    assert abs(changes[1].end_sample / RATE - 4 - sound.end_s) < 0.5


@cache
def second_by_second():
    """Twelve seconds of T3 and five of yelp, and the patterns after each whole second."""
    samples = np.concatenate([alarm("t3")[0][: 12 * RATE], alarm("yelp")[0][2 * RATE : 7 * RATE]])
    detector = CadenceDetector()
    return samples, [detector.step(samples[at : at + RATE], at + RATE) for at in range(0, samples.size, RATE)]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from([7, 160, 1600, 3333, 4000, 8000, 15_999]), min_size=1, max_size=5))
def test_any_chunking_gives_the_same_patterns(sizes):
    samples, seconds = second_by_second()
    split, turn = CadenceDetector(), cycle([*sizes, RATE])
    for number, whole in enumerate(seconds):
        at, end, parts = number * RATE, (number + 1) * RATE, []
        while at < end:
            size = min(next(turn), end - at)
            parts.append(split.step(samples[at : at + size], at + size))
            at += size
        ended = [state for part in parts for state in part if state.phase is CadencePhase.OVER]
        lasting = [state for state in parts[-1] if state.phase is not CadencePhase.OVER]
        assert [state for state in whole if state.phase is CadencePhase.OVER] == ended
        assert [state for state in whole if state.phase is not CadencePhase.OVER] == lasting


def test_a_gap_starts_patterns_afresh_and_keeps_the_clock():
    samples, _ = alarm("t3")
    detector, states = CadenceDetector(), []
    detector.step(samples[: 6 * RATE], 6 * RATE)
    for end in range(7 * RATE, 30 * RATE, RATE):
        states += detector.step(samples[end - RATE : end], end + 3 * RATE)
    sounding = [state for state in states if state.phase is CadencePhase.SOUNDING]
    assert sounding
    assert min(state.onset_sample for state in sounding) >= 9 * RATE


@pytest.mark.parametrize(
    "samples", [np.zeros(20 * RATE, np.float32), np.ones(RATE, np.float32), np.zeros(0, np.float32)]
)
def test_silence_and_constants_show_nothing(samples):
    assert CadenceDetector().step(samples, samples.size) == []


@pytest.mark.shared
@pytest.mark.skipif(not SCENES.exists(), reason="needs ../shared")
@pytest.mark.parametrize(
    ("scene", "kind", "within_s"),
    [
        ("tone_t3_0", "t3", 6),
        ("tone_t4_1", "t4", 8.7),
        ("wail_2", "wail", 14),
        ("yelp_3", "yelp", 3),
        ("hilo_4", "hilo", 3),
    ],
)
def test_the_alarms_of_the_shared_scenes(scene, kind, within_s):
    found = heard(read_audio(str(SCENES / f"alarm_{scene}.flac")))
    assert [(phase, name) for phase, name, *_ in found] == [("sounding", kind), ("over", kind)]
    assert 25 <= found[0][2] <= 25 + within_s
    assert 44 - 2.5 <= found[1][4] <= 46.5


def test_sirens_are_looked_for_where_they_are_asked_for():
    wail, _ = alarm("wail")
    kinds = [
        {state.kind for at in range(0, len(wail), RATE) for state in detector.step(wail[at : at + RATE], at + RATE)}
        for detector in (CadenceDetector(), CadenceDetector(sirens=False))
    ]
    assert "wail" in kinds[0]
    assert not {"wail", "yelp", "hilo"} & kinds[1]

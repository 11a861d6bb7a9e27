"""The T4 detector's decisions, driven by a scripted network; its inputs and the network on synthetic beeps."""

from itertools import cycle

import numpy as np
import pytest

from streamer.recipes.synthesis import sounds
from streamer.recipes.t4.scenes import found_pairs
from streamer.sound.patterns import t4
from streamer.sound.patterns.cadence import CadenceDetector
from streamer.sound.patterns.spectrum import ALARM_BANDS, ALARM_BINS, BIN_HZ
from streamer.sound.patterns.state import CadencePhase
from streamer.sound.patterns.t4 import GRID_S, INPUTS, Group, Pair, T4Detector, bundled

RATE = 16_000
NOTHING = np.zeros((640, ALARM_BINS.size), np.float32)


def beeps(starts_s, seconds, tone_hz=3100.0, on_s=0.1, count=4, square=False):
    clock = np.arange(round(seconds * RATE)) / RATE
    gate = sum(
        (clock >= start + 2 * on_s * beep) & (clock < start + on_s * (2 * beep + 1))
        for start in starts_s
        for beep in range(count)
    )
    wave = sum(np.sin(2 * np.pi * k * tone_hz * clock) / k for k in ((1, 3, 5, 7) if square else (1,)))
    noise = 1e-4 * np.random.default_rng(0).standard_normal(clock.size)
    return (0.05 * gate * wave + noise).astype(np.float32)


def taken(script, monkeypatch, between=lambda detector, number: None):
    """The phase after each pair (start, before in seconds; log-odds of the group and of the two), told one by one."""
    tones = [one[4] if len(one) > 4 else 3100.0 for one in script]
    found = iter(
        [Pair(_group(one[0]), tone, round(one[1] * RATE), np.zeros(0)) for one, tone in zip(script, tones, strict=True)]
    )
    odds = iter([one[2:4] for one in script])
    monkeypatch.setattr(t4, "bundled", lambda: lambda inputs: np.array(next(odds)))
    monkeypatch.setattr(t4.PairFinder, "look", lambda self, recent, tones, now: [next(found)])
    detector, phases = T4Detector(), []
    for number, (start, *_) in enumerate(script):
        between(detector, number)
        now = round((start + 1.1) * RATE)
        detector.pattern.tick(now - 1)
        detector.look(NOTHING, NOTHING, now)
        phases.append([(state.phase, state.onset_sample / RATE) for state in detector.pattern.states()])
    return phases


def _group(start_s, fit=None):
    return Group(round(start_s * RATE), round((start_s + 0.7) * RATE), fit, 0)


SOUNDING, CANDIDATE, OVER = CadencePhase.SOUNDING, CadencePhase.CANDIDATE, CadencePhase.OVER


def test_two_groups_of_which_the_network_is_sure_are_a_t4_since_the_first(monkeypatch):
    found = taken([(2.0, -3.0, 3.0, -5.0), (7.7, 2.0, 3.0, t4.SURE)], monkeypatch)
    assert found == [[(CANDIDATE, 2.0)], [(SOUNDING, 2.0)]]


def test_what_the_network_does_not_take_for_one_is_not_even_a_candidate(monkeypatch):
    assert taken([(2.0, -3.0, -1.0, -5.0), (7.7, 2.0, -0.1, -2.0)], monkeypatch) == [[], []]


@pytest.mark.parametrize(("off_s", "sounds"), [(0.0, True), (0.1, True), (0.3, False)])
def test_two_pairs_in_a_row_are_enough_together_when_they_are_in_time(off_s, sounds, monkeypatch):
    half = t4.ROW / 2
    script = [(7.7, 2.0, half, half), (13.4 + off_s, 7.7 + off_s, half, half)]
    first, second = taken(script, monkeypatch)
    assert [phase for phase, _ in first] == [CANDIDATE]
    assert [phase for phase, _ in second] == [SOUNDING if sounds else CANDIDATE]
    assert not sounds or second[0][1] == 2.0


@pytest.mark.parametrize(
    ("second", "sounds"), [((13.4, 7.7), True), ((13.2, 7.7), False), ((13.4, 7.7, 2700.0), False)]
)
def test_a_row_keeps_its_period_and_its_tone(second, sounds, monkeypatch):
    half, (start, before, *tone) = t4.ROW / 2, second
    phases = taken([(7.7, 2.0, half, half), (start, before, half, half, *tone)], monkeypatch)
    assert (phases[1][0][0] is SOUNDING) == sounds


def test_a_row_begins_with_its_first_group_though_the_last_two_are_sure(monkeypatch):
    found = taken([(7.7, 2.0, 3.0, t4.SURE - 1), (13.4, 7.7, 3.0, t4.SURE + 1)], monkeypatch)
    assert found[1] == [(SOUNDING, 2.0)]


def test_a_row_of_pairs_that_are_too_unsure_is_none(monkeypatch):
    half = t4.ROW / 2 - 0.1
    assert [state[0][0] for state in taken([(7.7, 2.0, 1, half), (13.4, 7.7, 1, half)], monkeypatch)] == [CANDIDATE] * 2


@pytest.mark.parametrize(
    ("start_s", "odds", "known"),
    [(67.0, t4.KNOWN, True), (67.0, t4.KNOWN - 0.1, False), (107.0, t4.KNOWN, False)],
)
def test_a_reminder_a_minute_later_is_one_group(start_s, odds, known, monkeypatch):
    script = [(7.7, 2.0, 5.0, t4.SURE), (start_s, start_s - 5.7, odds, -8.0)]
    assert (taken(script, monkeypatch)[1][-1][0] is SOUNDING) == known


def test_while_it_sounds_a_plain_group_keeps_it_up_and_an_unlikely_one_does_not(monkeypatch):
    begun = (7.7, 2.0, 5.0, t4.SURE)
    goes_on = taken([begun, (13.4, 7.7, t4.LIKELY, -8.0), (19.1, 13.4, t4.LIKELY, -8.0)], monkeypatch)
    assert [phase for phase, _ in goes_on[-1]] == [SOUNDING]
    ends = taken([begun, (13.4, 7.7, t4.LIKELY - 0.1, -8.0), (19.1, 13.4, t4.LIKELY - 0.1, -8.0)], monkeypatch)
    assert [phase for phase, _ in ends[-1]] == [OVER]


@pytest.mark.parametrize(
    ("one", "other"), [(500.0, 531.25), (531.25, 2593.75), (531.25, 3531.25), (2687.5, 3781.25), (3093.75, 3125.0)]
)
def test_bins_of_one_tone_are_known(one, other):
    assert t4._same_tone(one, other)
    assert t4._same_tone(other, one)


@pytest.mark.parametrize(("one", "other"), [(531.25, 3093.75), (2656.25, 3593.75), (3000.0, 3093.75)])
def test_bins_of_other_tones_are_told_apart(one, other):
    assert not t4._same_tone(one, other)


@pytest.mark.parametrize(("period_s", "tone_hz"), [(5.4, 3100.0), (5.7, 2950.0), (6.1, 3300.0)])
def test_the_group_before_is_found_where_it_was(period_s, tone_hz):
    starts = (1.0, 1.0 + period_s)
    pairs = found_pairs(beeps(starts, 9.0, tone_hz))
    last = max(pairs, key=lambda pair: pair.group.start)
    assert last.group.start / RATE == pytest.approx(starts[1], abs=0.03)
    assert last.before / RATE == pytest.approx(starts[0], abs=0.03)
    assert last.tone_hz == pytest.approx(tone_hz, abs=BIN_HZ)
    assert last.inputs.shape == (INPUTS,)
    seen = last.inputs[: 4 * GRID_S.size].reshape(4, -1)
    middles = GRID_S[:, None] - 0.05 - 0.2 * np.arange(4)  # from each beep's
    on, between = (np.abs(middles - off).min(axis=1) < 0.02 for off in (0.0, 0.1))
    quiet = (GRID_S < -0.05) | (GRID_S > 0.75)
    for levels, tonal in (seen[:2], seen[2:]):
        assert levels[on].min() > -0.3
        assert tonal[on].min() > 1
        assert levels[between].max() < -0.5
        assert levels[quiet].max() < -1.2
    pause = last.inputs[4 * GRID_S.size : -5]
    assert pause.max() == -2.5
    assert last.inputs[-3] == pytest.approx(period_s - 5.7, abs=0.03)


def test_beeps_in_both_bands_are_two_pairs():
    pairs = found_pairs(beeps((1.0, 6.7), 9.0, 520.0, square=True))
    late = [pair.tone_hz for pair in pairs if pair.group.start > 6 * RATE]
    assert len(ALARM_BANDS) == 2
    assert [tone > 1000 for tone in sorted(late)] == [False, True]


def odds_of(samples):
    return [bundled()(pair.inputs) for pair in found_pairs(samples)]


def sounding(samples):
    """Seconds at which a T4 sounds, told once a second."""
    detector, found = CadenceDetector(), []
    for end in range(RATE, samples.size + 1, RATE):
        states = detector.step(samples[end - RATE : end], end)
        found += [end // RATE for state in states if state.kind.value == "t4" and state.phase is SOUNDING]
    return found


@pytest.mark.parametrize("tone_hz", [520.0, 2950.0, 3250.0])
def test_a_t4_is_told_from_what_differs_in_its_beeps_or_its_period(tone_hz):
    assert sounding(beeps((1.0, 6.7), 9.0, tone_hz)) == [8, 9]
    others = {
        "three beeps": beeps((1.0, 6.7), 9.0, tone_hz, count=3),
        "five beeps": beeps((1.0, 6.7), 9.0, tone_hz, count=5),
        "slower beeps": beeps((1.0, 6.7), 9.0, tone_hz, on_s=0.18),
        "twice as often": beeps((1.0, 3.85, 6.7, 9.55), 12.0, tone_hz),
        "three times as often": beeps(np.arange(1.0, 11.0, 1.9), 12.0, tone_hz),
        "one group alone": beeps((6.7,), 9.0, tone_hz),
    }
    for name, samples in others.items():
        assert not sounding(samples), name


def test_a_group_in_the_pause_denies_a_pair_that_is_sure(monkeypatch):
    for between, expected in (
        ((4.8, -1.0, t4.LIKELY, -9.0), CANDIDATE),
        ((4.8, -1.0, t4.LIKELY - 0.1, -9.0), SOUNDING),
    ):
        found = taken([(2.0, -3.0, 3.0, -5.0), between, (7.7, 2.0, 3.0, t4.SURE)], monkeypatch)
        assert found[-1][0][0] is expected


def test_a_reminder_is_heard_after_a_t4_and_not_by_itself():
    seconds = sounding(beeps((1.0, 6.7, 12.4, 72.0), 75.0))
    assert (seconds[0], 30 in seconds, seconds[-2:]) == (8, False, [74, 75])
    assert not sounding(beeps((72.0,), 75.0))


def test_any_chunking_and_any_begin_give_the_same_groups():
    samples = beeps((1.0, 6.7), 9.0)
    found = []
    for sizes in ([RATE], [160, 1600, 3333], [8000, 7]):
        detector, at, turn = CadenceDetector(), 0, cycle(sizes)
        seen = set()
        while at < samples.size:
            size = min(next(turn), samples.size - at)
            at += size
            states = detector.step(samples[at - size : at], at)
            seen |= {(s.onset_sample, s.last_sample) for s in states if s.kind.value == "t4" and s.phase is SOUNDING}
        found.append(seen)
    assert len(found[0]) == 1
    assert found[0] == found[1] == found[2]


def test_a_gap_forgets_the_groups(monkeypatch):
    half = t4.ROW / 2
    script = [(7.7, 2.0, half, half), (13.4, 7.7, half, half), (19.1, 13.4, half, half)]

    def broken(detector, number):
        if number == 1:
            detector.reset()

    phases = [state[0][0] for state in taken(script, monkeypatch, between=broken)]
    assert phases == [CANDIDATE, CANDIDATE, SOUNDING]


def test_a_gap_does_not_end_an_alarm(monkeypatch):
    script = [(7.7, 2.0, 3.0, t4.SURE), (13.4, 0.0, -5.0, -5.0)]
    phases = taken(script, monkeypatch, between=lambda detector, number: detector.reset())
    assert [state[0][0] for state in phases] == [SOUNDING, SOUNDING]


def test_a_room_that_fills_the_gaps_hides_no_t4():
    samples = sounds.room(np.random.default_rng(0), beeps((1.0, 6.7, 12.4), 15.0), 0.7)
    assert max(odds[1] for odds in odds_of(samples)) >= t4.SURE

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events.plans import SpanScores
from streamer.settings.rules import SoundSettings
from streamer.sound.events import SoundEvents, combine
from streamer.sound.labels import find
from streamer.sound.patterns.state import CadenceKind, CadencePhase, CadenceState

RATE = 16_000
SIREN, POLICE, SPEECH, ALARM, DOG = (
    find(name).index for name in ("Siren", "Police car (siren)", "Speech", "Alarm", "Dog")
)


def judged(second, scores, spans=(2, 5, 10)):
    """The judgement at `second`: `scores` maps a label to one score, or to one per span."""
    end, found = second * RATE, []
    for place, span in enumerate(spans):
        values = np.zeros(527, np.float32)
        for index, score in scores.items():
            values[index] = score[place] if isinstance(score, tuple) else score
        found.append(SpanScores(max(0, end - span * RATE), end, values))
    return tuple(found)


def sounding(start_s, end_s, second, index=SIREN, peak=0.9):
    """Scores as an honest head gives them: in proportion to how much of the span the sound fills."""
    fills = tuple(max(0.0, min(second, end_s) - max(second - span, start_s)) / min(span, second) for span in (2, 5, 10))
    return {index: tuple(peak * min(1.0, 1.5 * fill) for fill in fills)}


def run(events, seconds, scores_at):
    return [change for second in seconds for change in events.step(judged(second, scores_at(second)))]


def test_one_continuous_sound_is_one_event_with_an_honest_onset_and_end():
    changes = run(SoundEvents(), range(1, 60), lambda second: sounding(20, 40, second))
    assert [(change.label, change.state) for change in changes] == [("siren", "start"), ("siren", "end")]
    start, end = changes
    assert abs(start.start_sample / RATE - 20) <= 1.5
    assert start.at_sample / RATE - 20 <= 2
    assert abs(end.end_sample / RATE - 40) <= 1.5
    assert end.at_sample / RATE - 40 <= 3
    assert (start.id, start.end_sample, start.group) == (end.id, None, "siren")


def test_labels_that_name_the_same_thing_are_one_event():
    changes = run(
        SoundEvents(), range(1, 20), lambda second: {SIREN if second % 2 else POLICE: 0.8} if second > 5 else {}
    )
    assert [change.label for change in changes] == ["siren"]


def test_general_labels_make_no_event_beside_the_special_one():
    changes = run(SoundEvents(), range(1, 20), lambda second: {SIREN: 0.8, ALARM: 0.9} if second > 5 else {})
    assert [change.label for change in changes] == ["siren"]
    changes = run(SoundEvents(), range(1, 20), lambda second: {ALARM: 0.9} if second > 5 else {})
    assert [change.label for change in changes] == ["alarm"]


def test_a_general_event_gives_way_when_the_special_sound_is_recognised():
    changes = run(SoundEvents(), range(1, 20), lambda second: {ALARM: 0.9, SIREN: 0.8 if second > 8 else 0.0})
    assert [(change.label, change.state) for change in changes[:1]] == [("alarm", "start")]
    assert {(change.label, change.state) for change in changes[1:]} == {("alarm", "end"), ("siren", "start")}


def test_speech_is_captioned_and_makes_no_event():
    assert run(SoundEvents(), range(1, 20), lambda second: {SPEECH: 0.99}) == []


def test_one_unsure_judgement_is_not_an_event_but_a_sure_one_is():
    assert run(SoundEvents(), range(1, 20), lambda second: {DOG: 0.6} if second == 7 else {}) == []
    changes = run(SoundEvents(), range(1, 20), lambda second: {DOG: 0.95} if second == 7 else {})
    assert [change.state for change in changes] == ["start", "end"]
    assert changes[0].at_sample == 7 * RATE


def test_hysteresis_keeps_a_sound_that_wavers():
    changes = run(SoundEvents(), range(1, 40), lambda second: {SIREN: 0.55 if second % 3 else 0.3})
    assert [change.state for change in changes] == ["start"]


def test_silence_counts_as_zero_and_ends_the_sound():
    events = SoundEvents()
    run(events, range(1, 10), lambda second: {SIREN: 0.8})
    ended = [change for second in range(10, 14) for change in events.step((), silent=True, end_sample=second * RATE)]
    assert [change.state for change in ended] == ["end"]


def test_no_judgement_for_long_ends_the_sound():
    events = SoundEvents()
    run(events, range(1, 10), lambda second: {SIREN: 0.8})
    assert events.step((), end_sample=12 * RATE) == []
    assert [change.state for change in events.step((), end_sample=15 * RATE)] == ["end"]
    with pytest.raises(ValueError, match="end_sample"):
        events.step(())


def test_thresholds_of_the_head_are_used():
    thresholds = np.full(527, 0.5, np.float32)
    thresholds[SIREN] = 0.2
    changes = run(SoundEvents(SoundSettings(), thresholds), range(1, 10), lambda second: {SIREN: 0.25, DOG: 0.25})
    assert [change.label for change in changes] == ["siren"]
    with pytest.raises(ValueError, match="527"):
        SoundEvents(SoundSettings(), np.zeros(3, np.float32))


def test_a_sound_that_stopped_is_not_reported_by_the_long_span_alone():
    gone = judged(30, {SIREN: (0.02, 0.1, 0.9), DOG: (0.6, 0.8, 0.9)})
    scores = combine(gone)
    assert scores[SIREN] < 0.15
    assert scores[DOG] == pytest.approx(0.87, abs=0.05)
    assert combine(()).max() == 0


def test_a_head_trained_on_ten_seconds_is_judged_on_them_and_carefully_on_less():
    weak_short = judged(30, {SIREN: (0.15, 0.5, 0.85)})
    assert combine(weak_short, (10.0,))[SIREN] > 0.7 > combine(weak_short)[SIREN]
    assert combine(judged(30, {SIREN: (0.6, 0.1, 0.05)}), (10.0,))[SIREN] < 0.5
    assert combine(judged(30, {SIREN: (0.001, 0.01, 0.9)}), (10.0,))[SIREN] < 0.2
    changes = run(SoundEvents(trained_spans_s=(10.0,)), range(1, 60), lambda second: sounding(20, 40, second))
    assert [change.state for change in changes] == ["start", "end"]
    assert changes[0].at_sample / RATE - 20 <= 4


scores = st.floats(0, 1, width=32)
seconds = st.lists(
    st.one_of(
        st.none(),
        st.just("silent"),
        st.dictionaries(st.sampled_from([SIREN, POLICE, ALARM, DOG, SPEECH]), st.tuples(scores, scores, scores)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(seconds)
def test_every_event_starts_once_and_ends_once_in_order(course):
    events, changes, at = SoundEvents(), [], 0
    for second, given_scores in enumerate(course, start=1):
        at = second * RATE
        if given_scores is None or given_scores == "silent":
            found = events.step((), silent=given_scores == "silent", end_sample=at)
        else:
            found = events.step(judged(second, given_scores))
        assert all(change.at_sample == at for change in found)
        changes += found
    changes += events.finish(at)
    assert events.finish(at) == []
    open_ids, ends = {}, {}
    for change in changes:
        assert 0 <= change.start_sample <= change.at_sample
        if change.state == "start":
            assert change.id not in open_ids
            assert change.start_sample >= ends.get(change.group, 0)
            open_ids[change.id] = change
        else:
            start = open_ids.pop(change.id)
            assert start.start_sample == change.start_sample <= change.end_sample <= change.at_sample
            ends[change.group] = change.end_sample
    assert open_ids == {}


def pattern(kind, onset_s, last_s):
    return CadenceState(kind, CadencePhase.SOUNDING, round(onset_s * RATE), round(last_s * RATE), 0.9)


def test_a_carbon_monoxide_alarm_is_named_by_its_pattern_and_ends_what_the_tagger_took_it_for():
    events, changes = SoundEvents(), []
    clock, smoke = (find(name).index for name in ("Alarm clock", "Smoke detector, smoke alarm"))
    for second in range(1, 30):
        beeps = {clock: 0.8, smoke: 0.6} if 3 <= second <= 20 else {}
        shown = (pattern(CadenceKind.T4, 2.5, min(second, 20) - 0.3),) if 8 <= second <= 26 else ()
        changes += events.step(judged(second, beeps), patterns=shown)
    told = [(change.label, change.state) for change in changes]
    assert set(told[:2]) == {("alarm clock", "start"), ("smoke alarm", "start")}
    assert told[2] == ("carbon monoxide alarm", "start")
    assert set(told[3:5]) == {("alarm clock", "end"), ("smoke alarm", "end")}
    assert told[5:] == [("carbon monoxide alarm", "end")]
    assert changes[2].start_sample == 2.5 * RATE
    assert changes[-1].end_sample == round(19.7 * RATE)  # its last beep, not when the pattern was given up


def test_while_a_t3_shows_the_tagger_names_no_alarm_clock():
    clock, smoke = (find(name).index for name in ("Alarm clock", "Smoke detector, smoke alarm"))
    for shows in (True, False):
        events, changes = SoundEvents(), []
        for second in range(1, 40):
            beeps = {clock: 0.8, smoke: 0.55} if 8 <= second <= 20 else {}
            shown = (pattern(CadenceKind.T3, 4, min(second, 20)),) if shows and 6 <= second < 24 else ()
            changes += events.step(judged(second, beeps), patterns=shown)
        assert ("alarm clock" in {change.label for change in changes}) is not shows
        assert "smoke alarm" in {change.label for change in changes}


def test_a_pattern_and_the_tagger_make_one_event_whichever_was_first():
    for pattern_from, tagger_from in ((5, 8), (8, 5)):
        events, changes = SoundEvents(), []
        for second in range(1, 40):
            scores = {SIREN: 0.9} if tagger_from <= second < 20 else {}
            shown = (pattern(CadenceKind.WAIL, 4, second),) if pattern_from <= second < 22 else ()
            changes += events.step(judged(second, scores), patterns=shown)
        assert [(change.label, change.state) for change in changes] == [("siren", "start"), ("siren", "end")]


def test_a_pattern_without_a_name_makes_no_event():
    assert SoundEvents().step(judged(3, {}), patterns=(pattern(CadenceKind.TONE, 1, 3),)) == []

import numpy as np
import pytest
from alert_rules import parse_rules
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.events import Tag
from streamer.events.plans import SpanScores
from streamer.settings.rules import AlertRule, AlertRules
from streamer.sound.alerts import AlertEngine
from streamer.sound.events import combine
from streamer.sound.labels import find
from streamer.sound.patterns.state import DOUBTFUL_SCORE, PLAIN_SCORE, CadenceKind, CadencePhase, CadenceState
from streamer.sound.triggers import AlertInput, AlertText

RATE = 16_000
SIREN, SMOKE, DOG, GLASS = (find(name).index for name in ("Siren", "Smoke detector, smoke alarm", "Dog", "Shatter"))
BIRD, WHISTLING, MUSIC = (find(name).index for name in ("Bird", "Whistling", "Music"))


def engine(*rules, **rest):
    return AlertEngine(parse_rules({"defaults": False, "rules": list(rules), **rest}))


def judged(second, scores, **rest):
    values = np.zeros(527, np.float32)
    for index, score in scores.items():
        values[index] = score
    spans = tuple(
        SpanScores(max(0, round((second - span) * RATE)), round(second * RATE), values) for span in (2, 5, 10)
    )
    return AlertInput(end_sample=round(second * RATE), judgement=spans, scores=combine(spans), **rest)


def run(alerts, seconds, scores_at, signs_at=lambda second: ()):
    return [
        change
        for second in seconds
        for change in alerts.step(judged(second, scores_at(second), cadence=signs_at(second)))
    ]


def states(changes):
    return [(change.rule, change.state) for change in changes]


def t3(phase, onset, last, at, score=0.9):
    state = CadenceState(CadenceKind.T3, phase, round(onset * RATE), round(last * RATE), score)
    return AlertInput(end_sample=round(at * RATE), cadence=(state,))


def sign(kind, at, score=0.2):
    return CadenceState(kind, CadencePhase.CANDIDATE, max(0, round((at - 1) * RATE)), round(at * RATE), score)


def sweeping(second):
    return (sign(CadenceKind.WAIL, second),)


def beeping(second):
    return (sign(CadenceKind.TONE, second),)


SIREN_RULE = {"id": "s", "labels": ["siren"], "severity": "critical"}


def test_the_tagger_alone_raises_and_clears():
    changes = run(AlertEngine(), range(1, 60), lambda second: {SIREN: 0.8} if 21 <= second <= 40 else {}, sweeping)
    assert states(changes) == [("siren", "raised"), ("siren", "cleared")]
    raised, cleared = changes
    assert (raised.severity, raised.end_sample, raised.labels) == ("critical", None, ("Siren",))
    assert raised.at_sample <= 24 * RATE
    assert cleared.start_sample == raised.start_sample < cleared.end_sample <= 41 * RATE
    assert cleared.at_sample <= 43 * RATE


def test_the_tagger_alone_is_not_believed_where_the_signal_shows_nothing_of_the_kind():
    assert run(AlertEngine(), range(1, 60), lambda second: {SIREN: 0.9, SMOKE: 0.9}) == []
    assert states(run(AlertEngine(), range(1, 20), lambda second: {SMOKE: 0.9}, beeping)) == [("smoke_alarm", "raised")]
    assert run(AlertEngine(), range(1, 20), lambda second: {SIREN: 0.9}, beeping) == []


def test_an_alarm_that_stands_goes_on_while_the_tagger_hears_it_though_no_signs_are_in_sight():
    heard = {at: {SIREN: 0.9} for at in range(5, 30)}
    signs = {at: sweep(at) for at in (5, 6, 20, 21)}
    changes = run(AlertEngine(), range(1, 40), lambda at: heard.get(at, {}), lambda at: signs.get(at, ()))
    ends = [(state, end) for state, end in ((c.state, c.end_sample) for c in changes) if state != "updated"]
    assert [state for state, _ in ends] == ["raised", "cleared"]
    assert ends[1][1] >= 28 * RATE


def test_what_another_label_explains_as_well_is_no_alarm():
    explained = {SMOKE: 0.9, BIRD: 0.9, SIREN: 0.85, WHISTLING: 0.9}
    assert run(AlertEngine(), range(1, 30), lambda second: explained, lambda at: sweeping(at) + beeping(at)) == []
    assert run(AlertEngine(), range(1, 30), lambda second: {SIREN: 0.96, WHISTLING: 0.97}, sweep) == []
    clear = {SMOKE: 0.9, BIRD: 0.3}
    assert states(run(AlertEngine(), range(1, 30), lambda second: clear, beeping)) == [("smoke_alarm", "raised")]


def test_for_a_while_after_music_the_tagger_alone_raises_no_siren():
    heard = {10: {MUSIC: 0.5}, **{second: {SIREN: 0.95} for second in range(11, 40)}}
    changes = run(AlertEngine(), heard, heard.get, sweeping)
    assert [(change.state, change.at_sample) for change in changes] == [("raised", 21 * RATE)]
    assert len(run(AlertEngine(), heard, {**heard, 10: {MUSIC: 0.3}}.get, sweeping)) == 1
    standing = {**heard, 10: {}, 25: {SIREN: 0.95, MUSIC: 0.9}}  # what stands goes on
    assert states(run(AlertEngine(), standing, standing.get, sweeping)) == [("siren", "raised")]
    with pytest.raises(ConfigError, match=r"alerts\.rules\[0\]\.doubted_after\[0\]: neither a group nor a label"):
        engine({"id": "s", "labels": ["siren"], "doubted_after": ["musik"]})


def test_a_rule_of_ones_own_may_trust_the_tagger():
    alerts = AlertEngine(parse_rules({"rules": [{"id": "siren", "signs": [], "rivals": [], "doubted_after": []}]}))
    assert states(run(alerts, range(1, 20), lambda second: {SIREN: 0.8, WHISTLING: 0.9})) == [("siren", "raised")]
    with pytest.raises(ConfigError, match=r"alerts\.rules\[0\]\.rivals\[1\]: neither a group nor a label"):
        engine({"id": "s", "labels": ["siren"], "rivals": ["bird", "brid"]})


def test_the_cadence_alone_raises_and_its_end_clears():
    alerts = AlertEngine()
    changes = alerts.step(t3(CadencePhase.CANDIDATE, 20, 22, 22, 0.4))
    assert changes == []
    assert alerts.step(t3(CadencePhase.SOUNDING, 20, 24.5, 24.5)) == []
    changes = alerts.step(t3(CadencePhase.SOUNDING, 20, 25.5, 25.5))
    assert states(changes) == [("smoke_alarm", "raised")]
    assert changes[0].start_sample == 20 * RATE
    assert changes[0].labels == ("T3 pattern",)
    assert alerts.step(t3(CadencePhase.SOUNDING, 20, 28, 30)) == []
    changes = alerts.step(t3(CadencePhase.OVER, 20, 28, 33))
    assert [(change.state, change.end_sample) for change in changes] == [("cleared", 28 * RATE)]


def sweep(at):
    return (CadenceState(CadenceKind.WAIL, CadencePhase.CANDIDATE, round((at - 1) * RATE), round(at * RATE), 0.4),)


def test_both_together_raise_sooner_than_either():
    alerts, changes = AlertEngine(), []
    for second in (22, 23):
        changes += alerts.step(judged(second, {SIREN: 0.65}, cadence=sweep(second)))
    assert states(changes) == [("siren", "raised")]
    assert run(AlertEngine(), (22, 23, 24, 25), lambda second: {SIREN: 0.65}) == []
    alone = AlertEngine()
    assert [alone.step(AlertInput(end_sample=at * RATE, cadence=sweep(at))) for at in (22, 23)] == [[], []]


def test_one_judgement_backs_a_pattern_only_above_the_threshold():
    assert states(AlertEngine().step(judged(22, {SIREN: 0.8}, cadence=sweep(22)))) == [("siren", "raised")]
    assert AlertEngine().step(judged(22, {SIREN: 0.7}, cadence=sweep(22))) == []
    assert AlertEngine().step(judged(22, {SIREN: 0.9}, cadence=sweeping(22))) == []


def test_what_both_raise_between_two_judgements_is_named():
    alerts = AlertEngine()
    assert alerts.step(judged(22, {SIREN: 0.8}, cadence=())) == []
    raised = alerts.step(AlertInput(end_sample=round(22.5 * RATE), cadence=sweep(22.5)))
    assert [(change.rule, change.labels) for change in raised] == [("siren", ("Siren", "wail"))]


def hilo(last, score):
    return (CadenceState(CadenceKind.HILO, CadencePhase.SOUNDING, 20 * RATE, round(last * RATE), score),)


def test_a_hilo_beside_music_needs_more_turns():
    denied, heard = AlertEngine(), {MUSIC: 0.6, SIREN: 0.1}
    assert run(denied, range(23, 30), lambda second: heard, lambda second: hilo(second, 0.8)) == []
    assert states(denied.step(judged(30, heard, cadence=hilo(30, 1.0)))) == [("siren", "raised")]
    assert states(AlertEngine().step(judged(23, {SIREN: 0.1}, cadence=hilo(23, 0.8)))) == [("siren", "raised")]


def wail(last, score):
    return (CadenceState(CadenceKind.WAIL, CadencePhase.SOUNDING, 20 * RATE, round(last * RATE), score),)


@pytest.mark.parametrize("score", [0.8, 1.0])
def test_a_siren_by_its_pattern_alone_is_none(score):
    for heard in ({}, {SIREN: 0.09}, {SIREN: 0.09, MUSIC: 0.6}):
        assert run(AlertEngine(), range(22, 60), lambda second, h=heard: h, lambda at: wail(at, score)) == []
    without_head = AlertEngine()
    given = [AlertInput(end_sample=at * RATE, cadence=wail(at, score)) for at in range(22, 60)]
    assert [change for one in given for change in without_head.step(one)] == []
    assert without_head.patterns == ()


def test_the_taggers_consent_to_a_siren_holds_for_a_while():
    consented = AlertEngine()
    assert consented.step(judged(22, {SIREN: 0.1}, cadence=())) == []
    late = AlertInput(end_sample=round(24.5 * RATE), cadence=wail(24.5, 0.8))
    assert states(consented.step(late)) == [("siren", "raised")]
    asked_too_late = AlertEngine()
    assert asked_too_late.step(judged(22, {SIREN: 0.1}, cadence=())) == []
    assert asked_too_late.step(AlertInput(end_sample=round(24.6 * RATE), cadence=wail(24.6, 0.8))) == []
    assert run(consented, range(25, 28), lambda second: {}, lambda second: wail(second, 0.8)) == []  # it goes on


def test_a_rule_without_labels_asks_for_the_pattern_alone():
    alerts = AlertEngine(parse_rules({"rules": [{"id": "siren", "labels": []}]}))
    raised = alerts.step(AlertInput(end_sample=26 * RATE, cadence=wail(26, 0.8)))
    assert states(raised) == [("siren", "raised")]


def test_a_pattern_that_the_tagger_denies_has_to_show_more():
    heard = {music: {SIREN: 0.1, MUSIC: 0.6 * music} for music in (False, True)}
    raised = {music: AlertEngine().step(judged(26, heard[music], cadence=wail(26, 0.8))) for music in (False, True)}
    assert states(raised[False]) == [("siren", "raised")]
    assert raised[True] == []
    denied = AlertEngine()
    assert run(denied, range(26, 60), lambda second: heard[True], lambda second: wail(second, 0.8)) == []
    assert states(denied.step(judged(60, heard[True], cadence=wail(60, 1.0)))) == [("siren", "raised")]
    after = run(denied, range(61, 64), lambda second: {MUSIC: 0.6}, lambda second: wail(second, 0.8))
    assert after == []  # what counted once goes on


def test_a_pattern_counts_once_the_tagger_does_not_deny_it_any_more():
    alerts = AlertEngine()
    scores = {26: {MUSIC: 0.6}, 27: {MUSIC: 0.6, SIREN: 0.3}, 28: {MUSIC: 0.6, SIREN: 0.3}}
    changes = run(alerts, scores, scores.get, lambda second: wail(second, 0.8))
    assert [(change.state, change.at_sample) for change in changes] == [("raised", 28 * RATE)]


def test_a_t3_needs_the_taggers_word_or_one_more_beep():
    first, later = t3(CadencePhase.SOUNDING, 20, 24.5, 24.5).cadence, t3(CadencePhase.SOUNDING, 20, 25.5, 26).cadence
    assert states(AlertEngine().step(judged(24.5, {SMOKE: 0.3}, cadence=first))) == [("smoke_alarm", "raised")]
    for heard in ({}, {MUSIC: 0.6}, {MUSIC: 0.6, SMOKE: 0.05}):
        alerts = AlertEngine()
        assert alerts.step(judged(24.5, heard, cadence=first)) == []
        assert states(alerts.step(judged(25.5, heard, cadence=later))) == [("smoke_alarm", "raised")]
    plain = t3(CadencePhase.SOUNDING, 20, 24.5, 24.5, PLAIN_SCORE).cadence
    assert states(AlertEngine().step(judged(24.5, {}, cadence=plain))) == [("smoke_alarm", "raised")]
    assert AlertEngine().step(judged(24.5, {MUSIC: 0.6}, cadence=plain)) == []


def test_a_doubtful_t3_needs_the_taggers_word_or_a_whole_group_more():
    def beeping_until(last):
        return t3(CadencePhase.SOUNDING, 20, last, last + 0.5, DOUBTFUL_SCORE).cadence

    assert states(AlertEngine().step(judged(25, {SMOKE: 0.3}, cadence=beeping_until(24.5)))) == [
        ("smoke_alarm", "raised")
    ]
    for heard in ({}, {MUSIC: 0.6}):
        alerts = AlertEngine()
        assert run(alerts, (25, 26, 28), lambda _, heard=heard: heard, lambda second: beeping_until(second - 0.5)) == []
        assert states(alerts.step(judged(29, heard, cadence=beeping_until(28.6)))) == [("smoke_alarm", "raised")]


def test_an_alarm_goes_on_while_something_else_is_told():
    alerts = AlertEngine()
    first = t3(CadencePhase.SOUNDING, 20, 24.5, 24.5).cadence
    assert states(alerts.step(judged(24.5, {SMOKE: 0.3}, cadence=first))) == [("smoke_alarm", "raised")]
    text = AlertText(1, "is that the alarm", "", 24 * RATE, 25 * RATE)
    for second in (24.6, 24.7, 25):
        assert alerts.step(AlertInput(end_sample=round(second * RATE), texts=(text,))) == []
    assert alerts.step(judged(25, {})) == []
    assert states(alerts.step(AlertInput(end_sample=26 * RATE, cadence=()))) == [("smoke_alarm", "cleared")]


def t4(phase, onset, last, at, score=0.9):
    state = CadenceState(CadenceKind.T4, phase, round(onset * RATE), round(last * RATE), score)
    return AlertInput(end_sample=round(at * RATE), cadence=(state,))


def test_a_co_alarm_is_no_smoke_alarm_though_the_tagger_says_so():
    alerts, changes = AlertEngine(), []
    for second in range(1, 31):
        group = 20 if second < 26 else 26
        phase = CadencePhase.CANDIDATE if second < 27 else CadencePhase.SOUNDING
        cadence = t4(phase, 20, group + 0.7, second).cadence if second > 20 else ()
        changes += alerts.step(judged(second, {SMOKE: 0.9} if second > 20 else {}, cadence=cadence))
    assert states(changes) == [("co_alarm", "raised")]


def test_what_wavers_is_no_smoke_alarm_until_it_stops_for_three_seconds():
    rule = {"id": "s", "labels": ["smoke_alarm"], "unless": ["t4", "waver"], "threshold": 0.4}

    def kettle(second):
        return (sign(CadenceKind.WAVER, second),) if 3 <= second <= 10 else ()

    stood = run(engine(rule), range(1, 13), lambda second: {SMOKE: 0.9}, kettle)
    assert (stood[0].state, stood[0].at_sample) == ("raised", RATE)
    assert "cleared" not in [change.state for change in stood]  # a baby cries beside it
    changes = run(engine(rule), range(3, 20), lambda second: {SMOKE: 0.9}, kettle)
    assert states(changes) == [("s", "raised")]
    assert changes[0].at_sample == 13 * RATE


def test_signs_may_lower_the_threshold_instead_of_being_asked_for():
    rule = {"id": "s", "labels": ["smoke_alarm"], "signs": ["tone"], "threshold": 0.6, "signed_threshold": 0.3}
    assert states(run(engine(rule), range(1, 6), lambda second: {SMOKE: 0.4}, beeping)) == [("s", "raised")]
    assert run(engine(rule), range(1, 6), lambda second: {SMOKE: 0.4}) == []
    assert states(run(engine(rule), range(1, 6), lambda second: {SMOKE: 0.7})) == [("s", "raised")]
    assert run(engine(rule), range(1, 6), lambda second: {SMOKE: 0.25}, beeping) == []


def test_a_smoke_alarm_that_turns_out_to_be_a_co_alarm_is_cleared_and_a_later_one_raised():
    alerts = AlertEngine()
    changes = run(alerts, range(1, 12), lambda second: {SMOKE: 0.9} if second > 2 else {}, beeping)
    assert states(changes) == [("smoke_alarm", "raised")]
    assert states(alerts.step(t4(CadencePhase.SOUNDING, 1, 11.2, 11.5))) == [
        ("smoke_alarm", "cleared"),
        ("co_alarm", "raised"),
    ]
    assert states(alerts.step(t4(CadencePhase.OVER, 1, 11.2, 19))) == [("co_alarm", "cleared")]
    changes = run(alerts, range(20, 30), lambda second: {SMOKE: 0.9}, beeping)
    assert states(changes) == [("smoke_alarm", "raised")]


def test_each_change_of_a_sounds_state_is_logged(caplog):
    caplog.set_level("DEBUG", "streamer.sound.sound_trigger")
    alerts = engine({"id": "smoke", "labels": ["smoke_alarm"], "cadence": ["t3"], "unless": ["t4"], "clear_after_s": 3})
    run(alerts, range(1, 12), lambda second: {SMOKE: 0.6} if 2 < second < 6 else {})
    alerts.step(t3(CadencePhase.SOUNDING, 9, 13, 13, PLAIN_SCORE))
    alerts.step(t4(CadencePhase.SOUNDING, 12, 14, 14))
    run(alerts, (15, 22), lambda second: {SMOKE: 0.6})
    assert [record.getMessage() for record in caplog.records] == [
        f"smoke: {before} -> {after} at {second * RATE}"
        for before, after, second in [
            ("QUIET", "CANDIDATE", 3),
            ("CANDIDATE", "CONFIRMED", 4),
            ("CONFIRMED", "QUIET", 7),
            ("QUIET", "CONFIRMED", 13),
            ("CONFIRMED", "DENIED", 14),
            ("DENIED", "CANDIDATE", 22),
        ]
    ]


def test_a_smoke_alarms_pattern_raises_it_while_a_siren_alert_stands():
    alerts = AlertEngine()
    changes = run(alerts, range(1, 16), lambda second: {SIREN: 0.8}, sweeping)
    assert states(changes) == [("siren", "raised")]
    both = (*sweeping(16), *t3(CadencePhase.SOUNDING, 9, 15.8, 16, PLAIN_SCORE).cadence)
    assert states(alerts.step(judged(16, {SIREN: 0.8}, cadence=both))) == [("smoke_alarm", "raised")]


def test_flapping_at_the_threshold_is_one_alert():
    changes = run(engine(SIREN_RULE), range(1, 120), lambda second: {SIREN: 0.52 if second % 2 else 0.48})
    assert states(changes) == [("s", "raised")]
    changes = run(engine(SIREN_RULE), range(1, 60), lambda second: {SIREN: 0.55 if second % 3 else 0.2})
    assert states(changes) == [("s", "raised")]


def test_a_short_sound_needs_one_judgement_where_the_rule_says_so():
    course = {7: 0.65, 8: 0.65}
    assert states(run(AlertEngine(), range(1, 20), lambda second: {GLASS: course.get(second, 0.0)})) == [
        ("glass", "raised"),
        ("glass", "cleared"),
    ]
    assert run(AlertEngine(), range(1, 20), lambda second: {SIREN: 0.6 if second == 7 else 0.0}) == []


def test_minimum_duration_and_cooldown():
    rule = {"id": "d", "labels": ["dog"], "min_duration_s": 5, "clear_after_s": 2, "cooldown_s": 20}
    changes = run(engine(rule), range(1, 60), lambda second: {DOG: 0.9} if 10 <= second <= 13 else {})
    assert changes == []
    changes = run(
        engine(rule), range(1, 60), lambda second: {DOG: 0.9} if 10 <= second <= 20 or 25 <= second <= 50 else {}
    )
    assert states(changes) == [("d", "raised"), ("d", "cleared"), ("d", "raised"), ("d", "cleared")]
    assert changes[0].at_sample >= (changes[0].start_sample + 5 * RATE)
    assert changes[2].at_sample >= changes[1].at_sample + 20 * RATE


def test_repeat_until_acknowledged():
    alerts = engine({**SIREN_RULE, "repeat_s": 10})
    changes = run(alerts, range(1, 36), lambda second: {SIREN: 0.9})
    assert [change.state for change in changes] == ["raised", "updated", "updated", "updated"]
    seen = alerts.acknowledge(changes[0].id, 36 * RATE)
    assert [change.state for change in seen] == ["acknowledged"]
    assert alerts.acknowledge(changes[0].id, 36 * RATE) == alerts.acknowledge(99, 36 * RATE) == []
    assert run(alerts, range(37, 70), lambda second: {SIREN: 0.9}) == []
    assert [change.state for change in alerts.finish(70 * RATE)] == ["cleared"]


@pytest.mark.parametrize(("clock", "raises"), [("23:30", False), ("03:00", False), ("07:00", True), (None, True)])
def test_quiet_hours(clock, raises):
    seconds = None if clock is None else int(clock[:2]) * 3600 + int(clock[3:]) * 60.0
    rule = {"id": "d", "labels": ["dog"], "confirm": 1}
    given_input = judged(5, {DOG: 0.9, SIREN: 0.9}, local_time_s=seconds)
    assert bool(engine({**rule, "quiet_hours": "22:00-07:00"}).step(given_input)) is raises
    assert bool(engine(rule, quiet_hours="22:00-07:00").step(given_input)) is raises
    assert engine({**SIREN_RULE, "confirm": 1}, quiet_hours="22:00-07:00").step(given_input)


def say(alerts, at, text, partial="", segment=0, **rest):
    found = AlertText(segment, text, partial, (at - 2) * RATE, at * RATE, **rest)
    return alerts.step(AlertInput(end_sample=at * RATE, texts=(found,)))


PHRASE = {
    "id": "name",
    "phrases": ["Anna Lee"],
    "patterns": [r"\bfi+re\b"],
    "partial": True,
    "clear_after_s": 5,
    "cooldown_s": 0,
}


def test_a_phrase_in_committed_text_raises_once():
    alerts = engine({**PHRASE, "partial": False})
    assert say(alerts, 5, "hello", "anna lee") == []
    changes = say(alerts, 6, "hello Anna, Lee!", word_spans=((0, 100), (60_000, 70_000), (70_000, 80_000)))
    assert states(changes) == [("name", "raised")]
    assert (changes[0].start_sample, changes[0].text) == (60_000, "hello Anna, Lee!")
    assert say(alerts, 7, "hello Anna, Lee! how") == []
    assert states(say(alerts, 8, "hello Anna, Lee! how is annalee anna lee")) == [("name", "updated")]
    assert alerts.step(AlertInput(end_sample=12 * RATE)) == []
    assert states(alerts.step(AlertInput(end_sample=13 * RATE))) == [("name", "cleared")]


def test_an_alert_on_a_partial_that_is_withdrawn_is_cleared_and_says_so():
    alerts = engine(PHRASE)
    assert states(say(alerts, 5, "there is", "a fire")) == [("name", "raised")]
    cleared = say(alerts, 6, "there is", "a wire")
    assert states(cleared) == [("name", "cleared")]
    assert cleared[0].labels[-1] == "withdrawn"
    assert states(say(alerts, 7, "there is", "a fiire")) == [("name", "raised")]
    assert states(say(alerts, 8, "there is a fire", "")) == [("name", "updated")]
    assert say(alerts, 9, "there is a fire", "fire") != []
    assert say(alerts, 10, "there is a fire", "fine") == []
    assert states(say(alerts, 15, "", "no", segment=1)) == [("name", "cleared")]


def test_a_partial_match_of_a_segment_that_is_gone_is_withdrawn():
    alerts = engine(PHRASE)
    say(alerts, 5, "", "fire")
    assert states(say(alerts, 6, "", "so", segment=1)) == [("name", "cleared")]


def test_loudness_silence_and_a_lost_microphone():
    alerts = engine(
        {"id": "loud", "loud_dbfs": -10, "min_duration_s": 2, "clear_after_s": 1},
        {"id": "silence", "silence_dbfs": -80, "min_duration_s": 5, "clear_after_s": 0},
        {"id": "gone", "lost": True, "cooldown_s": 0},
    )
    levels = [-30] * 4 + [-5] * 8 + [-30] * 4 + [-120] * 12 + [-40] * 2
    changes = []
    for hop, level in enumerate(levels, start=1):
        changes += alerts.step(AlertInput(end_sample=hop * 8000, loudness_dbfs=level))
    assert states(changes) == [("loud", "raised"), ("loud", "cleared"), ("silence", "raised"), ("silence", "cleared")]
    assert (changes[0].start_sample, changes[0].at_sample) == (4 * 8000, 8 * 8000)
    end = len(levels) * 8000
    assert states(alerts.step(AlertInput(end_sample=end, lost=True))) == [("gone", "raised")]
    assert states(alerts.step(AlertInput(end_sample=end + 8000))) == [("gone", "cleared")]


def test_an_alert_says_what_was_heard_and_said():
    alerts = engine({**SIREN_RULE, "confirm": 1})
    say(alerts, 4, "look out", "there")
    tags = tuple(Tag(index, "x", 0.5) for index in range(8))
    (raised,) = alerts.step(judged(5, {SIREN: 0.9}, heard=tags))
    assert (raised.heard, raised.text, raised.score) == (tags[:5], "look out there", pytest.approx(0.9))


def test_an_alert_quotes_what_was_said_from_a_little_before_its_start():
    alerts = engine({**SIREN_RULE, "confirm": 1, "clear_after_s": 1})
    spans = tuple((second * RATE, second * RATE + 8_000) for second in (1, 2, 11, 12, 24))
    say(alerts, 3, "at first", word_spans=spans[:2])
    say(alerts, 13, "at first this then", "here", word_spans=spans[:4])
    say(alerts, 16, "", "some", segment=1)
    (raised,) = alerts.step(judged(17, {SIREN: 0.9}))
    assert (raised.start_sample, raised.text) == (15.5 * RATE, "this then here some")
    spans = tuple((second * RATE, second * RATE + 8_000) for second in (16, 17, 18))
    say(alerts, 18, "something went by", "and", segment=1, word_spans=spans)
    assert [change.text for change in alerts.step(judged(19, {}))] == ["this then here something"]
    (raised,) = alerts.step(judged(40, {SIREN: 0.9}))
    assert raised.text == ""


def test_a_rule_with_an_unknown_label_is_refused_with_its_path():
    with pytest.raises(
        ConfigError, match=r"alerts\.rules\[1\]\.labels\[1\]: neither a group nor a label .*near it: Siren"
    ):
        engine(SIREN_RULE, {"id": "b", "labels": ["Dog", "Sirenn"]})


def test_a_disabled_rule_is_silent():
    assert run(engine({**SIREN_RULE, "enabled": False}), range(1, 9), lambda second: {SIREN: 0.9}) == []


score = st.floats(0, 1, width=32)
phases = st.sampled_from(list(CadencePhase))
hop_inputs = st.tuples(
    st.one_of(st.none(), st.dictionaries(st.sampled_from([SIREN, SMOKE, DOG, GLASS]), score)),
    st.one_of(st.none(), st.tuples(st.sampled_from(list(CadenceKind)), phases)),
    st.one_of(
        st.none(),
        st.tuples(
            st.integers(0, 2), st.sampled_from(["", "help me", "so help me", "call"]), st.sampled_from(["", "help me"])
        ),
    ),
    st.floats(-120, 0),
    st.booleans(),
    st.sampled_from(["", "", "", "ack"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(hop_inputs, max_size=60))
def test_every_alert_is_raised_once_and_cleared_exactly_once(course):
    rules = {
        "rules": [
            {"id": "help", "cooldown_s": 1},
            {"id": "siren", "repeat_s": 2, "cooldown_s": 1},
            {"id": "silence", "min_duration_s": 1},
        ]
    }
    alerts, changes, at = AlertEngine(parse_rules(rules)), [], 0
    for hop, (scores, cadence, text, level, lost, act) in enumerate(course, start=1):
        at = hop * RATE
        base = judged(hop, scores) if scores is not None else AlertInput(end_sample=at)
        states_given = (
            () if cadence is None else (CadenceState(cadence[0], cadence[1], max(0, at - 3 * RATE), at, 0.7),)
        )
        texts = () if text is None else (AlertText(text[0], text[1], text[2], at - RATE, at),)
        found = alerts.step(
            AlertInput(
                end_sample=at,
                judgement=base.judgement,
                scores=base.scores,
                cadence=states_given,
                texts=texts,
                loudness_dbfs=level,
                lost=lost,
            )
        )
        if act == "ack" and changes:
            found += alerts.acknowledge(changes[-1].id, at)
        assert all(change.at_sample == at for change in found)
        changes += found
    changes += alerts.finish(at)
    assert alerts.finish(at) == []
    standing, ended = {}, {}
    for change in changes:
        assert 0 <= change.start_sample <= change.at_sample
        assert 0 <= change.score <= 1
        if change.state == "raised":
            assert change.id not in standing
            assert change.id not in ended
            assert change.rule not in {other.rule for other in standing.values()}
            standing[change.id] = change
        else:
            first = standing[change.id]
            assert (first.rule, first.start_sample) == (change.rule, change.start_sample)
            assert (change.end_sample is None) == (change.state != "cleared")
        if change.state == "cleared":
            assert change.start_sample <= change.end_sample <= change.at_sample
            ended[change.id] = standing.pop(change.id)
    assert standing == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([SIREN, SMOKE, DOG]), score), max_size=40), st.integers(1, 10))
@example([{SIREN: 1.0}, {}, {}, {SIREN: 1.0}], 2)
def test_steps_without_news_change_no_alert(course, hops):
    """Whether the hop is 1 s or 0.1 s: the judgements decide."""
    rules = {
        "defaults": False,
        "rules": [{"id": "s", "labels": ["siren"]}, {"id": "d", "labels": ["dog"], "cooldown_s": 0}],
    }
    whole, split = AlertEngine(parse_rules(rules)), AlertEngine(parse_rules(rules))
    one, two = [], []
    for second, scores in enumerate(course, start=1):
        one += whole.step(judged(second, scores))
        for hop in range(1, hops):
            two += split.step(AlertInput(end_sample=round((second - 1 + hop / hops) * RATE)))
        two += split.step(judged(second, scores))
    assert [(change.rule, change.state, change.start_sample) for change in one] == [
        (change.rule, change.state, change.start_sample) for change in two
    ]


def test_a_head_that_was_never_taught_a_rules_labels_says_so(caplog):
    rules = AlertRules(defaults=False, rules=(AlertRule(id="untaught_dog", labels=("dog",)),))
    AlertEngine(rules, trained_classes=frozenset({0}))
    AlertEngine(rules, trained_classes=frozenset({0}))
    assert [record.message for record in caplog.records] == [
        "alert rule untaught_dog: the tagging head was never taught its labels and does not raise it; nothing does"
    ]

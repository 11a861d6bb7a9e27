import itertools

from hypothesis import given
from hypothesis import strategies as st

from streamer.events.plans import OwnScore
from streamer.settings.own_sounds import own_rule, with_own_rules
from streamer.settings.rules import AlertRules
from streamer.sound.alerts import AlertEngine
from streamer.sound.own_sounds import OwnSoundEvents
from streamer.sound.triggers import AlertInput

RATE = 16_000


def scored(second, **scores):
    end = second * RATE
    return tuple(OwnScore(name, score, end - 6400, end) for name, score in scores.items())


def test_one_judgement_is_enough_and_a_bell_that_rings_twice_is_one_event():
    own = OwnSoundEvents(itertools.count(7))
    changes = []
    for second, score in enumerate([0.1, 0.6, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1], start=10):
        changes += own.step(scored(second, bell=score), second * RATE)
    assert [(change.state, change.id, change.label) for change in changes] == [("start", 7, "bell"), ("end", 7, "bell")]
    assert changes[0].at_sample == 11 * RATE
    assert (changes[1].start_sample, changes[1].end_sample) == (11 * RATE - 6400, 13 * RATE)
    assert changes[1].score == 0.9


def test_what_sounds_ends_with_the_stream_and_where_nothing_is_judged():
    own = OwnSoundEvents(itertools.count(1))
    own.step(scored(1, bell=0.8), RATE)
    assert own.step((), 4 * RATE) == []
    assert [change.state for change in own.step((), 6 * RATE)] == ["end"]
    own.step(scored(8, bell=0.8), 8 * RATE)
    assert [change.end_sample for change in own.finish(9 * RATE)] == [8 * RATE]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=40))
def test_events_of_each_sound_begin_and_end_in_turn(seconds):
    own, changes = OwnSoundEvents(itertools.count(1)), []
    for second, (bell, kettle, judged) in enumerate(seconds, start=1):
        changes += own.step(scored(second, bell=bell, kettle=kettle) if judged else (), second * RATE)
    changes += own.finish((len(seconds) + 1) * RATE)
    for name in ("bell", "kettle"):
        mine = [change for change in changes if change.label == name]
        assert [change.state for change in mine] == ["start", "end"] * (len(mine) // 2)
        for start, end in zip(mine[::2], mine[1::2], strict=True):
            assert start.id == end.id
            assert start.start_sample == end.start_sample <= end.end_sample <= end.at_sample
        ends = [change.end_sample for change in mine[1::2]]
        assert all(before <= after.start_sample for before, after in zip(ends, mine[2::2], strict=False))
    assert len({change.id for change in changes}) == len(changes) // 2


def test_its_rule_raises_and_clears():
    alerts = AlertEngine(AlertRules(defaults=False, rules=(own_rule("my bell", "warning"),)))
    changes = []
    for second, score in enumerate([0.2, 0.7, 0.2, 0.2, 0.2, 0.2, 0.2], start=20):
        changes += alerts.step(AlertInput(end_sample=second * RATE, own=scored(second, **{"my bell": score})))
    assert [(change.state, change.rule, change.severity) for change in changes] == [
        ("raised", "my_bell", "warning"),
        ("cleared", "my_bell", "warning"),
    ]
    assert changes[0].labels == ("my bell",)
    assert changes[0].start_sample == 21 * RATE - 6400


def test_rules_of_sounds_that_are_called_alike_have_ids_of_their_own():
    rules = with_own_rules(AlertRules.default(), [("Doorbell", "info"), ("дверь", "info"), ("9 Uhr", "info")]).rules[
        -3:
    ]
    assert [(rule.id, rule.own) for rule in rules] == [
        ("doorbell_2", "Doorbell"),
        ("own", "дверь"),
        ("own_9_uhr", "9 Uhr"),
    ]
    mine = own_rule("Doorbell", "critical")
    kept = with_own_rules(AlertRules(defaults=False, rules=(mine,)), [("Doorbell", "info")]).rules
    assert kept == (mine,)

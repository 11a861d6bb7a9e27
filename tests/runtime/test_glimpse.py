"""Between the judgements of each second a session has the last second judged where a siren begins, and only there."""

import numpy as np
from test_spoken_text import MODEL

from streamer.config import Settings
from streamer.model.labels import resolve
from streamer.rules import parse_rules
from streamer.runtime.listener import Listener
from streamer.runtime.session import GLIMPSE_S, HeadFacts, Session
from streamer.steps import SpanScores, StepResult

RATE = 16_000
SCORES = np.zeros(527, np.float32)
SCORES[sorted(resolve("Siren"))] = 0.5


def two_tones(seconds, begins_s):
    clock = np.arange(seconds * RATE) / RATE
    tone = np.sin(2 * np.pi * np.where(clock % 1 < 0.5, 435, 580) * clock) * (clock > begins_s)
    return (0.1 * tone + 1e-4 * np.random.default_rng(0).standard_normal(clock.size)).astype(np.float32)


def judged(config, samples):
    """What was judged, (end, spans) of each hop where anything was, and the events; the tagger hears a siren."""
    listener, session, asked, events = Listener(config), Session(config, MODEL, HeadFacts()), [], []
    for plan in listener.step(samples):
        request, result = session.begin(plan), None
        if request is not None and request.tag_spans_s:
            end = request.end_sample
            asked.append((end / RATE, request.tag_spans_s))
            spans = [SpanScores(max(0, end - round(span * RATE)), end, SCORES) for span in request.tag_spans_s]
            result = StepResult(request=request, hypothesis=None, judgement=tuple(spans))
        events += session.complete(plan, result)
    return asked, events


def test_a_siren_that_begins_is_glimpsed_until_it_is_raised():
    asked, events = judged(Settings(), two_tones(8, 3.2))
    tagged = [end for end, spans in asked if spans != (GLIMPSE_S,)]
    glimpsed = [end for end, spans in asked if spans == (GLIMPSE_S,)]
    assert tagged == [event.end for event in events if event.type == "tags"] == [1, 2, 3, 4, 5, 6, 7, 8]
    raised = [event.audio_t for event in events if event.type == "alert" and event.state == "raised"]
    assert len(raised) == 1
    assert glimpsed
    assert all(3.2 < end <= raised[0] for end in glimpsed)
    assert raised[0] in (*glimpsed, *tagged)


def test_it_is_raised_before_the_pattern_alone_would_raise_it():
    def raised_s(rule):
        config = Settings(alerts=parse_rules({"rules": [{"id": "siren", **rule}]}))
        asked, events = judged(config, two_tones(9, 3.2))
        glimpsed = any(spans == (GLIMPSE_S,) for _, spans in asked)
        return glimpsed, next(event.audio_t for event in events if event.type == "alert" and event.rule == "siren")

    (glimpsed, with_tagger_s), (not_glimpsed, alone_s) = raised_s({}), raised_s({"labels": []})
    assert glimpsed
    assert not not_glimpsed
    assert with_tagger_s < alone_s


def test_nothing_is_glimpsed_where_judgements_are_left_out():
    listener, session = Listener(Settings()), Session(Settings(), MODEL, HeadFacts())
    for plan in listener.step(two_tones(8, 3.2)):
        request = session.begin(plan, judge=False)
        assert request is None or not request.tag_spans_s
        session.complete(plan, None)


def test_without_a_rule_for_sirens_nothing_is_glimpsed():
    config = Settings(alerts=parse_rules({"rules": [{"id": "siren", "enabled": False}]}))
    asked, _ = judged(config, two_tones(8, 3.2))
    assert [spans for _, spans in asked] == [config.tags.spans_s] * 8

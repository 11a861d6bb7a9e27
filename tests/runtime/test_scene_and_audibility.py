"""What the hearing aid adds to a session's events: scenes, and whether an alert would have been missed."""

import json

import numpy as np
import pytest
from protocol import check_session

from streamer.events.plans import Hop, SpanScores, StepResult
from streamer.policy.prompt import TextModel
from streamer.runtime.session import HeadFacts, Session
from streamer.settings.config import validate
from streamer.sound.labels import find

MODEL = TextModel(encode=lambda text: (), fixed_language="en", carries_prompt=False)
HOP = 8_000
RULES = [
    {"id": "doorbell", "labels": ["doorbell"], "threshold": 0.5, "confirm": 1},
    {"id": "smoke_alarm", "labels": ["smoke_alarm"], "threshold": 0.5, "confirm": 1, "severity": "critical"},
    {"id": "silence", "silence_dbfs": -90, "min_duration_s": 3},
]


def told(seconds=8, silent_s=0, **monitor):
    """The events of noise with a smoke alarm at 3 kHz and a doorbell in it, then of near silence, as plain data."""
    settings = validate({"monitor": monitor, "alerts": {"defaults": False, "rules": RULES}})
    session = Session(settings, MODEL, HeadFacts())
    scores = np.zeros(527, np.float32)
    for name in ("Smoke detector, smoke alarm", "Doorbell"):
        scores[find(name).index] = 0.9
    at = np.arange(HOP) / 16_000
    sound = 0.02 * np.sin(2 * np.pi * 3_100 * at) + 0.05 * np.sin(2 * np.pi * 600 * at)  # 63 and 71 dB SPL
    events = session.status("listening")
    for number in range(1, 2 * (seconds + silent_s) + 1):
        judge = number % 2 == 0
        if number > 2 * seconds:
            sound, scores = np.full(HOP, 1e-6), np.zeros(527, np.float32)
        plan = Hop(number * HOP, sound.astype(np.float32), (False,) * 25, False, judge, False, -30.0)
        spans = (SpanScores(plan.end_sample - 16_000, plan.end_sample, scores),) if judge else ()
        request = session.begin(plan)
        events += session.complete(plan, StepResult(request, None, spans) if request else None)
    return [json.loads(event.to_json()) for event in events + session.finish()]


def of_type(events, kind):
    return [event for event in events if event["type"] == kind]


def test_without_the_hearing_aid_nothing_is_added():
    events = told()
    check_session(events)
    assert not of_type(events, "scene")
    assert all("too_quiet" not in event for event in events)


def test_scenes_come_where_they_are_asked_for_and_the_rest_stays():
    events = told(scenes=True)
    check_session(events)
    assert [event["scene"] for event in of_type(events, "scene")] == ["alarm"]
    rest = [event | {"seq": 0} for event in events if event["type"] != "scene"]
    assert rest == [event | {"seq": 0} for event in told()]


def test_what_would_have_been_missed_says_so_and_comes_first():
    events = told(output="x", audiogram="sloping")  # 75 dB HL at 3 kHz, 20 at 500 Hz
    raised = [event for event in of_type(events, "alert") if event["state"] == "raised"]
    assert [(event["rule"], event.get("too_quiet", False)) for event in raised] == [
        ("smoke_alarm", True),
        ("doorbell", False),
    ]
    check_session(events)


def test_that_it_is_over_and_quiet_again_does_not_make_it_one_that_was_missed():
    """Both were loud enough for the one who hears them, and the alarm never for the other: also at their end."""
    for audiogram, missed in (("mild", set()), ("sloping", {"smoke_alarm"})):
        events = told(seconds=4, silent_s=8, output="x", audiogram=audiogram)
        for state in ("raised", "cleared"):
            found = [event for event in of_type(events, "alert") if event["state"] == state]
            assert {event["rule"] for event in found} >= {"smoke_alarm", "doorbell"}
            assert {event["rule"] for event in found if event.get("too_quiet")} == missed
        assert "silence" in {event["rule"] for event in of_type(events, "alert")}  # of which nothing is to be heard


@pytest.mark.parametrize("audiogram", ["mild", None])
def test_ears_that_hear_it_are_told_in_the_order_of_the_rules(audiogram):
    raised = [event for event in of_type(told(output="x", audiogram=audiogram), "alert") if event["state"] == "raised"]
    assert [event["rule"] for event in raised] == ["doorbell", "smoke_alarm"]
    assert all("too_quiet" not in event for event in raised)

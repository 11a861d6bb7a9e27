"""Of which span a session says that its tags are."""

import json

import numpy as np
import pytest
from protocol import check_session

from streamer.events.plans import Hop, SpanScores, StepResult
from streamer.policy.prompt import TextModel
from streamer.runtime.session import HeadFacts, Session
from streamer.settings.config import Settings

MODEL = TextModel(encode=lambda text: (), fixed_language="en", carries_prompt=False)
HOP = 8_000


@pytest.mark.parametrize("early", [0, 160])
def test_a_window_that_begins_between_two_encoder_frames_is_of_ten_seconds_all_the_same(early):
    """Windows begin on a grid of 10 ms, encoder frames are of 20: the last one of such a window is a half."""
    session = Session(Settings(), MODEL, HeadFacts())
    scores = np.zeros(527, np.float32)
    events = session.status("listening")
    for number in range(1, 25):
        judge = number % 2 == 0
        plan = Hop(number * HOP, np.full(HOP, 0.01, np.float32), (False,) * 25, False, judge, False, -30.0)
        request = session.begin(plan)
        end = plan.end_sample - early
        spans = (SpanScores(max(0, end - 160_000), end, scores),) if judge else ()
        events += session.complete(plan, StepResult(request, None, spans) if request else None)
    told = [json.loads(event.to_json()) for event in events + session.finish()]
    check_session(told)
    (last,) = [event for event in told if event["type"] == "tags"][-1:]
    assert (last["start"], last["end"]) == (2.0, 12.0)

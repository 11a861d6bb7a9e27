"""A session that goes on in another process: one session to whoever reads it, with nothing twice and nothing lost."""

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray
from protocol import check_session

from streamer.audio.files import demo_path, read_audio
from streamer.events import Event, Gap, Tags, Transcript
from streamer.events.plans import Plan
from streamer.model.choice import load_model
from streamer.model.engine import Engine
from streamer.runtime.handover import NOT_SENT, Handover, Kept
from streamer.runtime.stream import Hearing, Listener, Stream
from streamer.runtime.told import Told
from streamer.settings.config import Settings

SECOND = 16_000
WHOLE_S = 20


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load_model("nano"))


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    return read_audio(demo_path("nano"))[: WHOLE_S * SECOND]


def handed_over(
    engine: Engine, sound: NDArray[np.float32], at_s: float, oldest_s: float
) -> tuple[list[Event], Handover]:
    """All events of a session that is taken over after `at_s`, by a sender that has its sound from `oldest_s` on."""
    first = Stream(engine.model, Settings())
    events = first.push(sound[: round(at_s * SECOND)])
    told = Told("s1")
    for event in events:
        told.note(event)
    handover = Handover.of(Kept(told, tuple(events), 0.0, None), oldest_s, 0.0)
    hearing, listener = Hearing(engine.model, Settings()), Listener(Settings(), start_sample=handover.begin_sample)
    hearing.take_up(handover.told, handover.begin_sample)
    events += handover.closing

    def carry_out(plans: Iterable[Plan]) -> None:
        for plan in plans:
            request = hearing.begin(plan)
            events.extend(hearing.complete(plan, engine.step([(hearing.mel, request)])[0] if request else None))

    carry_out(listener.lost(handover.lost_samples, NOT_SENT))
    carry_out(listener.step(sound[handover.begin_sample + handover.lost_samples :]))
    carry_out(listener.finish())
    return events + hearing.session.finish(), handover


def said(events: Iterable[Event]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Transcript) and event.final)


@pytest.mark.parametrize("at_s", [0.5, 3.3, 6.04, 9.7, 15.0])
def test_a_session_that_moves_is_one_session(engine, sound, at_s):
    events, _ = handed_over(engine, sound, at_s, 0.0)
    check_session([event.to_dict() for event in events], degraded=True)
    ends = [event.end for event in events if isinstance(event, Tags)]
    assert ends == [float(second) for second in range(1, WHOLE_S + 1)]  # no second is judged twice or left out
    assert not [event for event in events if isinstance(event, Gap)]
    alone = Stream(engine.model, Settings())
    whole = said(alone.push(sound) + alone.finish())
    assert len(said(events).split()) >= len(whole.split())


def test_sound_that_is_not_sent_again_is_a_gap_to_the_sample(engine, sound):
    events, handover = handed_over(engine, sound, 9.7, 11.0)
    check_session([event.to_dict() for event in events], degraded=True)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert (gap.start, gap.end, gap.reason) == (handover.begin_sample / SECOND, 11.0, NOT_SENT)
    assert gap.start <= 9.7

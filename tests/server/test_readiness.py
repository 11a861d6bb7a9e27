import numpy as np
import pytest

from streamer.events import State, Status
from streamer.server.messages import SessionHealth
from streamer.server.readiness import troubles

FINE = SessionHealth(last_audio_age_s=0.1, lag_s=0.2)


def status(state: State, detail: str = "") -> Status:
    return Status(session="s", seq=1, audio_t=0.0, state=state, detail=detail)


def of_one(status: Status | None, health: SessionHealth | None = FINE, senders: tuple[str, ...] = ()) -> str:
    found = troubles({"s": status}, {} if health is None else {"s": health}, senders, takes_senders=True)
    return found.get("s", "")


@pytest.mark.parametrize(
    ("given", "health", "says"),
    [
        (None, FINE, "starting"),
        (status("starting", "fetching base"), None, "starting: fetching base"),
        (status("no_audio", "unplugged"), FINE, "no_audio: unplugged"),
        (status("stopped"), FINE, "stopped"),
        (status("degraded", "the model failed on a window: out of memory"), FINE, "the model failed on a window"),
        (status("degraded", "the model has not answered for 3 s: captions wait"), FINE, "the model has not answered"),
        (status("degraded", "the thread that asks the model ended"), FINE, "the thread that asks the model ended"),
        (status("listening"), SessionHealth(0.1, 6.0), "6.0 s behind"),
        (status("listening"), SessionHealth(11.0, 0.0), "no sound for 11 s"),
    ],
)
def test_what_is_no_longer_ready(given, health, says):
    assert of_one(given, health).startswith(says)


def test_what_is_ready():
    assert of_one(status("listening")) == ""
    assert of_one(status("degraded", "the machine cannot keep up: text comes every 1 s instead of 0.5 s")) == ""


def test_a_silent_sender_is_no_trouble_but_one_that_is_far_behind_is():
    assert of_one(status("no_audio"), senders=("s",)) == ""
    assert of_one(status("listening"), SessionHealth(60.0, 0.0), senders=("s",)) == ""
    assert "behind" in of_one(status("listening"), SessionHealth(0.0, 9.0), senders=("s",))


def test_without_any_session_it_is_ready_once_it_takes_senders():
    assert troubles({}, {}, (), takes_senders=True) == {}
    assert troubles({}, {}, (), takes_senders=False) == {"": "nothing is listened to yet"}


@pytest.mark.parametrize("new_samples", [0, 8000])
def test_the_program_says_so_when_the_model_fails(new_samples):
    """What this reads is what `runtime.overload` writes."""
    from streamer.events.plans import Hop
    from streamer.runtime.overload import Backlog, Job
    from streamer.settings.config import WindowSettings

    hop = Hop(8000, np.zeros(new_samples, np.float32), (), text=True, judge=False, silent=False, level_db=0.0)
    failed = Backlog(WindowSettings()).failed(Job(hop, text=True, judge=False), RuntimeError("out of memory"))
    assert of_one(status(*failed)) != ""

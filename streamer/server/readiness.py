"""Whether the program does what it is there for: sound arrives, the model answers, and not too late (`/readyz`).

Pure: it reads the last `status` of each session and how the sessions do.
"""

from collections.abc import Container, Mapping

from streamer.events import Status
from streamer.server.messages import SessionHealth

# So the detail of a `degraded` begins that says that the model does nothing.
MODEL_FAILED = ("the model failed", "the model has not answered", "the thread that asks the model ended")
LAG_S = 5.0  # further behind is too late for whoever reads along
AUDIO_AGE_S = 10.0


def troubles(
    statuses: Mapping[str, Status | None],
    health: Mapping[str, SessionHealth],
    senders: Container[str],
    *,
    takes_senders: bool,
) -> dict[str, str]:
    """What is wrong, by session ("" for none in particular); empty: ready.

    `statuses`: the newest of each open session. Of `senders`, sessions that clients bring, silence is no trouble: they
    come and go. `takes_senders`: the program waits for some, so that it need not have a session now.
    """
    found = {name: _trouble(status, health.get(name), name in senders) for name, status in statuses.items()}
    if not statuses and not takes_senders:
        found[""] = "nothing is listened to yet"
    return {name: trouble for name, trouble in found.items() if trouble}


def _trouble(status: Status | None, health: SessionHealth | None, sender: bool) -> str:
    state, detail = ("starting", "") if status is None else (status.state, status.detail)
    if health is not None and health.lag_s > LAG_S:
        return f"{health.lag_s:.1f} s behind"
    if state == "degraded" and detail.startswith(MODEL_FAILED):
        return detail
    if sender:
        return ""
    if state in ("starting", "no_audio", "stopped"):
        return f"{state}: {detail}" if detail else state
    if health is not None and health.last_audio_age_s > AUDIO_AGE_S:
        return f"no sound for {health.last_audio_age_s:.0f} s"
    return ""

"""PROTOCOL's invariants, checked on the events of a whole session as plain dicts (one JSON line each)."""

from itertools import pairwise
from typing import Any

FIELDS = {
    "status": {"state", "detail"},
    "transcript": {
        "segment",
        "start",
        "end",
        "text",
        "partial",
        "final",
        "words",
        "language",
        "speech_probability",
    },
    "tags": {"start", "end", "tags"},
    "sound": {"id", "label", "state", "start", "end", "score"},
    "alert": {"id", "rule", "severity", "state", "start", "end", "score", "labels", "heard", "text", "source"},
    "gap": {"kind", "start", "end", "reason"},
    "scene": {"scene", "start", "scores"},
}
OPTIONAL = {"transcript": {"unclear"}, "alert": {"too_quiet"}}  # left out while they are empty
COMMON = {"v", "type", "session", "seq", "audio_t"}


def check_session(
    events: list[dict[str, Any]],
    *,
    complete: bool = True,
    merged: bool = False,
    ahead: bool = False,
    degraded: bool = False,
) -> None:
    """Assert every invariant; `complete`: the session ended; `merged`: partials that were superseded may be missing;
    `ahead`: of a whole file, whose windows look ahead; `degraded`: there were faults, tags of some seconds are missing.
    """
    for index, event in enumerate(events):
        assert event["v"] == 1
        optional = OPTIONAL.get(event["type"], set())
        assert set(event) - optional == COMMON | FIELDS[event["type"]], event
        assert all(event.get(name, "absent") for name in optional), event
        assert merged or event["seq"] == events[0]["seq"] + index
        assert event["session"] == events[0]["session"]
        if index:
            assert event["seq"] > events[index - 1]["seq"]
            assert event["audio_t"] >= events[index - 1]["audio_t"]
    check_transcripts([event for event in events if event["type"] == "transcript"], complete)
    check_tags([event for event in events if event["type"] == "tags"], ahead, degraded)
    check_spans([event for event in events if event["type"] == "sound"], "start", "end", complete)
    check_spans([event for event in events if event["type"] == "alert"], "raised", "cleared", complete)
    if complete:
        assert (events[-1]["type"], events[-1]["state"]) == ("status", "stopped")


def check_transcripts(events: list[dict[str, Any]], complete: bool) -> None:
    segments: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        segments.setdefault(event["segment"], []).append(event)
    assert list(segments) == sorted(segments)
    last_end = 0.0
    for states in segments.values():
        finals = [state["final"] for state in states]
        assert sum(finals) == 1 if complete else sum(finals) <= 1
        assert True not in finals[:-1]
        for before, after in pairwise(states):
            assert after["text"].startswith(before["text"])
            assert after["words"][: len(before["words"])] == before["words"]
        final = states[-1]
        assert not (final["final"] and final["partial"])
        written = "".join(word["word"] for word in final["words"])
        assert "".join(written.split()) == "".join(final["text"].split())
        for word in final["words"]:
            assert last_end <= word["start"] <= word["end"] <= final["audio_t"]
            assert final["start"] <= word["start"]
            assert word["end"] <= final["end"]
            assert 0 <= word["probability"] <= 1
            last_end = word["end"]
        check_unclear(states)


def check_unclear(states: list[dict[str, Any]]) -> None:
    """Spans in order, without overlaps, inside their segment; what was said to be unclear stays so."""
    for before, after in pairwise(states):
        assert after.get("unclear", [])[: len(before.get("unclear", []))] == before.get("unclear", [])
    final = states[-1]
    last_end = final["start"]
    for span in final.get("unclear", []):
        assert last_end <= span["start"] < span["end"] <= final["end"]
        last_end = span["end"]


def check_tags(events: list[dict[str, Any]], ahead: bool, degraded: bool) -> None:
    ends = [event["end"] for event in events]
    assert all(end == round(end) for end in ends)
    assert ends == (sorted(set(ends)) if degraded else [float(second) for second in range(1, len(ends) + 1)])
    for event in events:
        assert event["end"] <= event["audio_t"] if ahead else event["end"] == event["audio_t"]
        assert 0 <= event["start"] < event["end"]
        assert event["end"] - event["start"] <= 10.001
        scores = [tag["score"] for tag in event["tags"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 10
        assert all(0.1 <= score <= 1 for score in scores)


def check_spans(events: list[dict[str, Any]], begin: str, over: str, complete: bool) -> None:
    """Everything that begins is over exactly once, later, with an end not before its start."""
    lasting: dict[int, dict[str, Any]] = {}
    seen: set[int] = set()
    for event in events:
        assert 0 <= event["start"] <= event["audio_t"]
        if event["state"] == begin:
            assert event["id"] not in seen
            assert event["end"] is None
            seen.add(event["id"])
            lasting[event["id"]] = event
        elif event["state"] == over:
            first = lasting.pop(event["id"])
            assert event["end"] is not None
            assert first["start"] <= event["end"] <= event["audio_t"]
    assert not (complete and lasting)

"""PROTOCOL's invariants, checked on the events of a whole session as plain dicts (one JSON line each).

Each function raises BrokenInvariant, which says which one and shows the event.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from streamer.errors import StreamerError

EventDict = Mapping[str, Any]

FIELDS: Final[Mapping[str, set[str]]] = {
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
}
OPTIONAL: Final[Mapping[str, set[str]]] = {"transcript": {"unclear"}}  # left out while they are empty
COMMON: Final = {"v", "type", "session", "seq", "audio_t"}


class BrokenInvariant(StreamerError):  # noqa: N818 what was found, not what was wrong with a call
    """The events of a session are not what the protocol promises."""


def must(kept: bool, what: str, event: object = None) -> None:
    """Raise BrokenInvariant with `what` unless it is so."""
    if not kept:
        raise BrokenInvariant(what if event is None else f"{what}: {event}")


def check_session(
    events: Sequence[EventDict],
    *,
    complete: bool = True,
    merged: bool = False,
    ahead: bool = False,
    degraded: bool = False,
) -> None:
    """Every invariant; `complete`: the session ended; `merged`: partials that were superseded may be missing;
    `ahead`: of a whole file, whose windows look ahead; `degraded`: there were faults, tags of some seconds are missing.
    """
    for index, event in enumerate(events):
        must(event["v"] == 1, "v is 1", event)
        optional = OPTIONAL.get(event["type"], set())
        must(set(event) - optional == COMMON | FIELDS[event["type"]], "the fields of its type", event)
        must(all(event.get(name, "absent") for name in optional), "what is empty is left out", event)
        must(merged or event["seq"] == events[0]["seq"] + index, "seq grows by one", event)
        must(event["session"] == events[0]["session"], "one session", event)
        if index:
            must(event["seq"] > events[index - 1]["seq"], "seq grows", event)
            must(event["audio_t"] >= events[index - 1]["audio_t"], "audio_t never decreases", event)
    check_transcripts([event for event in events if event["type"] == "transcript"], complete)
    check_tags([event for event in events if event["type"] == "tags"], ahead, degraded)
    check_spans([event for event in events if event["type"] == "sound"], "start", "end", complete)
    check_spans([event for event in events if event["type"] == "alert"], "raised", "cleared", complete)
    if complete:
        last = events[-1]
        must((last["type"], last.get("state")) == ("status", "stopped"), "the last event is `stopped`", last)


def check_transcripts(events: Sequence[EventDict], complete: bool) -> None:
    """Segments in order, each text goes on with the one before, one final; words in order, inside their segment."""
    segments: dict[int, list[EventDict]] = {}
    for event in events:
        segments.setdefault(event["segment"], []).append(event)
    must(list(segments) == sorted(segments), "segments are numbered in order", list(segments))
    last_end = 0.0
    for states in segments.values():
        finals = [state["final"] for state in states]
        must(sum(finals) == 1 if complete else sum(finals) <= 1, "one final for each segment", states[-1])
        must(True not in finals[:-1], "nothing comes behind the final", states[-1])
        for before, after in pairwise(states):
            must(after["text"].startswith(before["text"]), "each text starts with the one before", (before, after))
            must(after["words"][: len(before["words"])] == before["words"], "words never change", (before, after))
        final = states[-1]
        must(not (final["final"] and final["partial"]), "a final has no partial", final)
        written = "".join(word["word"] for word in final["words"])
        must("".join(written.split()) == "".join(final["text"].split()), "the words are the text", final)
        for word in final["words"]:
            must(last_end <= word["start"] <= word["end"] <= final["audio_t"], "word times are monotone", final)
            must(final["start"] <= word["start"], "words lie in their segment", final)
            must(word["end"] <= final["end"], "words lie in their segment", final)
            must(0 <= word["probability"] <= 1, "probabilities are in 0..1", final)
            last_end = word["end"]
        check_unclear(states)


def check_unclear(states: Sequence[EventDict]) -> None:
    """Spans in order, without overlaps, inside their segment; what was said to be unclear stays so."""
    for before, after in pairwise(states):
        said = before.get("unclear", [])
        must(after.get("unclear", [])[: len(said)] == said, "what was unclear stays so", (before, after))
    final = states[-1]
    last_end = final["start"]
    for span in final.get("unclear", []):
        must(last_end <= span["start"] < span["end"] <= final["end"], "unclear spans lie in their segment", final)
        last_end = span["end"]


def check_tags(events: Sequence[EventDict], ahead: bool, degraded: bool) -> None:
    """One for each second, the best first."""
    ends = [event["end"] for event in events]
    must(all(end == round(end) for end in ends), "tags are of whole seconds", ends)
    every = [float(second) for second in range(1, len(ends) + 1)]
    must(ends == (sorted(set(ends)) if degraded else every), "one `tags` for each second", ends)
    for event in events:
        in_time = event["end"] <= event["audio_t"] if ahead else event["end"] == event["audio_t"]
        must(in_time, "tags end at their audio_t", event)
        must(0 <= event["start"] < event["end"], "tags are of a span", event)
        must(event["end"] - event["start"] <= 10.001, "tags are of 10 s at most", event)
        scores = [tag["score"] for tag in event["tags"]]
        must(scores == sorted(scores, reverse=True), "the best tag comes first", event)
        must(len(scores) <= 10, "ten tags at most", event)
        must(all(0.1 <= score <= 1 for score in scores), "scores are in 0.1..1", event)


def check_spans(events: Sequence[EventDict], begin: str, over: str, complete: bool) -> None:
    """Everything that begins is over exactly once, later, with an end not before its start."""
    lasting: dict[int, EventDict] = {}
    seen: set[int] = set()
    for event in events:
        must(0 <= event["start"] <= event["audio_t"], "nothing starts in the future", event)
        if event["state"] == begin:
            must(event["id"] not in seen, "ids are given once", event)
            must(event["end"] is None, "what lasts has no end", event)
            seen.add(event["id"])
            lasting[event["id"]] = event
        elif event["state"] == over:
            must(event["id"] in lasting, f"{over} comes once, behind {begin}", event)
            first = lasting.pop(event["id"])
            must(event["end"] is not None, "what is over has an end", event)
            must(first["start"] <= event["end"] <= event["audio_t"], "it ends behind its start", event)
    must(not (complete and lasting), f"each {begin} has its {over}", list(lasting.values()))

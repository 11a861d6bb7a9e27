"""A check that finds nothing in what is wrong would be worthless: each kind of damage is named."""

import copy

import pytest

from streamer.events import Alert, Status, Tags, Transcript, Word
from streamer.measure.invariants import BrokenInvariant, check_session

STAMP = {"session": "s", "audio_t": 2.0}
TEXT = {"segment": 0, "start": 0.5, "end": 1.5, "language": "en", "speech_probability": 0.9}
ALERT = {"id": 1, "rule": "r", "severity": "info", "start": 0.0, "score": 1.0, "labels": (), "heard": (), "text": ""}
WORDS = (Word("good", 0.5, 0.9, 0.9), Word("morning", 1.0, 1.5, 0.9))


def session() -> list[dict]:
    events = [
        Status(**STAMP, seq=1, state="listening"),
        Tags(**STAMP, seq=2, start=0.0, end=2.0, tags=()),
        Alert(**STAMP, **ALERT, seq=3, state="raised", end=None),
        Transcript(**STAMP, **TEXT, seq=4, text="good", partial=" morning", final=False, words=WORDS[:1]),
        Transcript(**STAMP, **TEXT, seq=5, text="good morning", partial="", final=True, words=WORDS),
        Alert(**STAMP, **ALERT, seq=6, state="cleared", end=2.0),
        Status(**STAMP, seq=7, state="stopped"),
    ]
    return [event.to_dict() for event in events]


def test_a_right_session_passes():
    check_session(session(), degraded=True)


@pytest.mark.parametrize(
    ("at", "change", "said"),
    [
        (1, {"seq": 3}, "seq grows by one"),
        (1, {"audio_t": 1.0}, "audio_t never decreases"),
        (3, {"text": "bad"}, "each text starts with the one before"),
        (4, {"words": [WORDS[1].__class__("bad", 0.5, 0.9, 0.9)]}, "words never change"),
        (4, {"partial": "more"}, "a final has no partial"),
        (4, {"final": False}, "one final for each segment"),
        (2, {"state": "updated"}, "cleared comes once, behind raised"),
        (5, {"state": "updated"}, "each raised has its cleared"),
        (5, {"end": -1.0}, "it ends behind its start"),
        (6, {"state": "listening"}, "the last event is `stopped`"),
        (0, {"more": 1}, "the fields of its type"),
        (1, {"end": 1.5}, "tags are of whole seconds"),
    ],
)
def test_what_is_wrong_is_named(at, change, said):
    events = copy.deepcopy(session())
    events[at] |= change
    with pytest.raises(BrokenInvariant, match=said):
        check_session(events, degraded=True)

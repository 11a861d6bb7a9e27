"""From a session's events to Realtime's: what a client may rely on, whatever comes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server.actions import Actions, ModelFacts
from streamer.server.messages import MessageError
from streamer.server.other_protocols import CommittedText
from streamer.server.realtime import Config, Items

ACTIONS = Actions(model=lambda: ModelFacts("tiny", {"en": "english", "de": "german"}))


def items(*, turns: bool, began_ms: int = 0) -> Items:
    number = itertools.count(1)
    return Items(turns, began_ms, lambda: f"item_{next(number)}")


def transcript(segment: int, text: str, *, final: bool = False, start: float = 1.0) -> dict:
    said = {"type": "transcript", "segment": segment, "text": text, "partial": "" if final else "…", "final": final}
    return said | {"start": start, "end": start + 1, "language": "en"}


STOPPED = {"type": "status", "state": "stopped", "audio_t": 9.0}


def short(messages: list[dict]) -> list[tuple]:
    names = ("item_id", "delta", "transcript", "audio_start_ms", "audio_end_ms", "previous_item_id")
    return [(one["type"].split(".")[-1], *(one[name] for name in names if name in one)) for one in messages]


def test_each_utterance_is_an_item():
    of = items(turns=True, began_ms=500)
    told = [
        *of.step(transcript(0, "")),  # nothing is committed yet
        *of.step(transcript(0, "Good")),
        *of.step(transcript(0, "Good")),  # the partial changed
        *of.step(transcript(0, "Good morning.", final=True)),
        *of.step(transcript(1, "Yes.", final=True, start=4.0)),
        *of.step(STOPPED),
    ]
    assert short(told) == [
        ("speech_started", "item_1", 1500),
        ("delta", "item_1", "Good"),
        ("delta", "item_1", " morning."),
        ("speech_stopped", "item_1", 2500),
        ("committed", "item_1", None),
        ("completed", "item_1", "Good morning."),
        ("speech_started", "item_2", 4500),
        ("delta", "item_2", "Yes."),
        ("speech_stopped", "item_2", 5500),
        ("committed", "item_2", "item_1"),
        ("completed", "item_2", "Yes."),
    ]


def test_all_between_two_commits_is_one_item():
    of = items(turns=False)
    told = [
        *of.step(transcript(0, "Good morning.", final=True)),
        *of.commit(),
        *of.step(transcript(1, "Yes.", final=True)),
        *of.step(STOPPED),
    ]
    assert short(told) == [
        ("delta", "item_1", "Good morning."),
        ("committed", "item_1", None),
        ("delta", "item_1", " Yes."),
        ("completed", "item_1", "Good morning. Yes."),
    ]


def test_a_commit_of_silence_is_completed_without_text():
    of = items(turns=False)
    assert short([*of.commit(), *of.step(STOPPED)]) == [("committed", "item_1", None), ("completed", "item_1", "")]


def test_sounds_and_alerts_come_along():
    siren = {"type": "sound", "label": "Siren"}
    assert items(turns=True).step(siren) == [{"type": "streamer.event", "event": siren}]
    assert items(turns=True).step({"type": "tags"}) == []
    assert items(turns=True).step({"type": "heartbeat"}) == []


@given(st.lists(st.lists(st.text("ab ", max_size=3), max_size=4), max_size=5))
def test_what_was_added_is_what_there_is(segments):
    """Merged or not: superseded transcripts may be missing."""
    said, added = CommittedText(), ""
    for number, pieces in enumerate(segments):
        for end in range(len(pieces) + 1):
            added += said.step(transcript(number, "".join(pieces[:end])))
    assert added == said.text


def test_settings_are_changed_one_by_one():
    config = Config().changed({"transcription": {"model": "whisper-1", "language": "de-DE"}}, ACTIONS)
    assert config == Config(model="whisper-1", language="de")
    assert config.changed({"turn_detection": None}, ACTIONS) == Config(24_000, "whisper-1", "de", turns=False)
    assert config.changed({"format": {"type": "audio/pcm", "rate": 16_000}}, ACTIONS).rate == 16_000
    assert config.changed({}, ACTIONS) == config


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"format": {"type": "audio/pcmu"}}, r"input\.format\.type"),
        ({"format": {"type": "audio/pcm", "rate": 1}}, r"input\.format\.rate"),
        ({"transcription": {"language": "tlh"}}, "does not know 'tlh'"),
        ({"transcription": {"prompt": "names"}}, "prompt"),
        ({"turn_detection": {"type": "manual"}}, r"turn_detection\.type"),
        (["no object"], "input"),
    ],
)
def test_what_cannot_be_is_named(given, says):
    with pytest.raises(MessageError, match=says):
        Config().changed(given, ACTIONS)

"""Where somebody spoke and nothing was shown: from the text session's spans to events, files and alerts."""

import json
from typing import Any

import pytest
from protocol import check_session

from streamer.events import Alert, Event, Transcript
from streamer.events.plans import HypothesisWord, SegmentClosed, SegmentOpened
from streamer.output.event_file import EventFile
from streamer.policy.prompt import TextModel
from streamer.policy.text_session import TextChange
from streamer.runtime.session import Session
from streamer.settings.config import validate

MODEL = TextModel(encode=lambda text: (), fixed_language="en", carries_prompt=False)
CONFIG = {"alerts": {"defaults": False, "rules": [{"id": "said", "phrases": ["unclear"], "patterns": ["^$", r"\["]}]}}
WORD = HypothesisWord(" Hello.", (1,), 16_000, 24_000, 0.9, 20_000)


def change(segment: int, *spans: tuple[int, int], words: tuple[HypothesisWord, ...] = ()) -> TextChange:
    text = "".join(word.text for word in words).strip()
    start, end = 16_000 + 160_000 * segment, 96_000 + 160_000 * segment
    return TextChange(segment, start, end, words, text, "", True, "en", unclear=spans)


@pytest.fixture
def events(monkeypatch) -> list[Event]:
    """A segment with a word and a span, and one with nothing but a span."""
    session = Session(validate(CONFIG), MODEL, None)
    found = session.status("listening")
    for plan, said in [
        (SegmentClosed(96_000, 96_000), change(0, (32_000, 48_000), (64_000, 72_000), words=(WORD,))),
        (SegmentClosed(256_000, 256_000), change(1, (184_000, 200_000))),
    ]:
        found += session.complete(SegmentOpened(plan.end_sample - 80_000, plan.end_sample - 88_000), None)
        monkeypatch.setattr(session.text, "close", lambda plan, said=said: [said])
        found += session.complete(plan, None)
    monkeypatch.undo()
    return found + session.finish()


def plain(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(event.to_json()) for event in events]


def test_the_spans_are_seconds_in_the_event(events):
    check_session(plain(events))
    first, second = (event for event in plain(events) if event["type"] == "transcript")
    assert first["text"] == "Hello."
    assert first["unclear"] == [{"start": 2.0, "end": 3.0}, {"start": 4.0, "end": 4.5}]
    assert (second["text"], second["words"], second["final"]) == ("", [], True)
    assert second["unclear"] == [{"start": 11.5, "end": 12.5}]


def test_without_a_span_the_event_is_what_it_was():
    event = Transcript(
        session="s",
        seq=1,
        audio_t=1.0,
        segment=0,
        start=0.0,
        end=1.0,
        text="a",
        partial="",
        final=True,
        words=(),
        language="en",
        speech_probability=0.0,
    )
    assert "unclear" not in event.to_dict()
    assert event.to_dict()["partial"] == ""
    assert event.to_dict()["speech_probability"] == 0.0


def test_nobody_is_alerted_by_it(events):
    assert not [event for event in events if isinstance(event, Alert)]


def test_text_files_have_it_behind_the_segment(events, tmp_path):
    writer = EventFile(str(tmp_path / "said.txt"), "text", "--output")
    writer.begin()
    for event in events:
        writer.write(event)
    writer.close()
    assert (tmp_path / "said.txt").read_text().splitlines() == ["Hello.", "[unclear]", "[unclear]", "[unclear]"]

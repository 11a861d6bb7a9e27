"""Files of several sources: captions each their own, events all in one."""

import json

import pytest

from streamer.errors import UsageError
from streamer.events import Transcript, Word
from streamer.output.outlet import Sinks, caption_path
from streamer.settings.config import OutputSettings


def said(session: str, text: str) -> Transcript:
    return Transcript(
        session=session,
        seq=1,
        audio_t=2.0,
        segment=0,
        start=0.0,
        end=2.0,
        text=text,
        partial="",
        final=True,
        words=(Word(text, 0.0, 2.0, 0.9),),
        language="en",
        speech_probability=1.0,
    )


def write(output: OutputSettings, sessions, events) -> Sinks:
    sinks = Sinks(output, sessions)
    sinks.begin()
    for event in events:
        sinks.write(event)
    sinks.close()
    return sinks


EVENTS = [said("kitchen", "one two"), said("hall", "three"), said("in1-20261123T060000", "from afar")]


def test_captions_of_several_sources_have_a_file_each_and_events_one_for_all(tmp_path):
    output = OutputSettings(jsonl=str(tmp_path / "all.jsonl"), srt=str(tmp_path / "talk.srt"), vtt=str(tmp_path / "v"))
    write(output, ["kitchen", "hall"], EVENTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("all.jsonl", "talk.hall.srt", "talk.kitchen.srt", "v.hall", "v.kitchen")
    ]
    assert "one two" in (tmp_path / "talk.kitchen.srt").read_text()
    assert "three" in (tmp_path / "v.hall").read_text()
    assert "one" not in (tmp_path / "talk.hall.srt").read_text()
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert [json.loads(line)["session"] for line in lines] == [event.session for event in EVENTS]


def test_captions_of_one_source_are_in_the_file_that_was_named_and_hold_nothing_of_senders(tmp_path):
    write(OutputSettings(srt=str(tmp_path / "talk.srt")), ["kitchen"], EVENTS)
    text = (tmp_path / "talk.srt").read_text()
    assert "one two" in text
    assert "three" not in text
    assert "afar" not in text


def test_files_that_cannot_be_are_named_by_their_option(tmp_path):
    both = ["kitchen", "hall"]
    with pytest.raises(UsageError, match="--srt -: there are several sources"):
        Sinks(OutputSettings(srt="-"), both)
    taken = tmp_path / "talk.hall.srt"
    taken.write_text("a recording")
    with pytest.raises(UsageError, match=r"--srt .*talk\.hall\.srt: is what --input names too"):
        Sinks(OutputSettings(srt=str(tmp_path / "talk.srt")), both, [None, str(taken)])
    with pytest.raises(UsageError, match="--vtt"):
        Sinks(OutputSettings(srt=str(tmp_path / "x"), vtt=str(tmp_path / "x")), ["kitchen"])
    assert taken.read_text() == "a recording"


def test_the_name_stands_before_the_suffix():
    assert caption_path("/a/talk.srt", "hall") == "/a/talk.hall.srt"
    assert caption_path("talk", "hall") == "talk.hall"

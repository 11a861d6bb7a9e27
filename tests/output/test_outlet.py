"""Several sources: captions each in a file, events all in one; in the view names in front, and the gravest state."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cues import sound, spoken, unclear, words
from test_terminal import alert

from streamer.errors import UsageError
from streamer.events import Gap, Status, Transcript, Word
from streamer.output.outlet import Naming, Sinks, caption_path
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


def status(session: str, state: str, detail: str = "") -> Status:
    return Status(session=session, seq=1, audio_t=0.0, state=state, detail=detail)


def test_one_source_needs_no_name_and_a_sender_has_one():
    naming = Naming(["s1-20261123T060000"])
    own, sender = "s1-20261123T060000", "in2-20261123T060100"
    said = Gap(session=own, seq=1, audio_t=1.0, start=0.0, end=1.0, reason="lost")
    assert naming.step(said) == said
    assert naming.step(Gap(session=sender, seq=1, audio_t=1.0, start=0.0, end=1.0, reason="lost")).reason == "in2: lost"


def test_names_stand_in_front_of_what_people_read():
    naming = Naming(["s", "hall"])
    assert naming.step(sound("Siren", 1.0)).label == "s: Siren"
    assert naming.step(alert("raised")).rule == "s: smoke_alarm"
    said = naming.step(spoken(words("one two"), final=True))
    assert said.text.startswith("s: one two")
    assert naming.step(unclear((1.0, 2.0))).text == "s: "
    assert naming.step(status("hall", "degraded", "slow")).detail == "hall: slow"


def test_the_gravest_state_is_shown():
    naming = Naming(["a", "b"])
    assert naming.step(status("a", "listening")).state == "listening"
    assert naming.step(status("b", "no_audio", "gone")).detail == "b: gone"
    assert naming.step(status("a", "listening")) is None
    assert naming.step(status("a", "degraded", "slow")).detail == "a: slow"
    assert naming.step(status("a", "listening")).detail == "b: gone"
    assert naming.step(status("b", "stopped")).state == "listening"
    assert naming.step(status("a", "stopped")).state == "stopped"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["listening", "degraded", "no_audio", "stopped"]))))
def test_trouble_is_shown_exactly_while_somebody_has_it(changes):
    naming, states, shown = Naming("abc"), {}, None
    for session, state in changes:
        states[session] = state
        shown = naming.step(status(session, state, state)) or shown
        assert (shown.state in ("degraded", "no_audio")) == bool({"degraded", "no_audio"} & set(states.values()))
        assert states[shown.session] == shown.state or shown.state in states.values()

"""Files that are valid at every moment; several sources: captions each in a file, names in front, the gravest state."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_captions import sound, spoken, unclear, words
from test_terminal import alert

from streamer.errors import UsageError
from streamer.events import Gap, Status, Tags, Transcript, Word
from streamer.output.event_file import EventFile, OutputError
from streamer.output.outlet import Naming, Outlet, Sinks, caption_path
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
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
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
    with pytest.raises(UsageError, match=r"--vtt .*: cannot be written"):
        Sinks(OutputSettings(vtt=str(tmp_path)), ["kitchen"])


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


TIME = r"\d\d:[0-5]\d:[0-5]\d"
SRT = re.compile(rf"(\d+\n{TIME},\d{{3}} --> {TIME},\d{{3}}\n(?:[^\n]+\n){{1,2}}\n)*")
VTT = re.compile(rf"WEBVTT\n\n({TIME}\.\d{{3}} --> {TIME}\.\d{{3}}\n(?:[^\n]+\n){{1,2}}\n)*")


def script():
    """A minute of speech in portions, with a siren."""
    said = words("this is <b>bold</b> & more --> than one could put into a single cue so it goes on " * 3)
    for count in range(0, len(said), 3):
        yield spoken(said[:count], audio_t=count * 0.3)
    yield sound("Siren & alarm", 10.0, audio_t=12.0)
    yield spoken(said, final=True)
    yield Tags(session="s", seq=9, audio_t=60.0, start=50.0, end=60.0, tags=())
    yield spoken(words("Dobrý večer, 今日は", start=60.0), segment=2, final=True)
    yield unclear((63.0, 64.5), segment=3)


@pytest.mark.parametrize(("kind", "valid"), [("srt", SRT), ("vtt", VTT)])
def test_files_are_valid_at_every_moment(tmp_path, kind, valid):
    path = tmp_path / "captions"
    path.write_text("old content")
    captions = EventFile(str(path), kind)
    assert path.read_text() == "old content", "nothing is lost before there is something new"
    captions.begin()
    sizes = []
    for event in script():
        captions.write(event)
        assert valid.fullmatch(path.read_text("utf-8"))
        sizes.append(path.stat().st_size)
    captions.close()
    captions.close()
    text = path.read_text("utf-8")
    assert valid.fullmatch(text)
    assert sizes[-5] > 100, "cues are written while the segment is still open"
    assert "今日は" in text
    assert "[Siren" in text
    assert re.search(r"00:01:03.000 --> 00:01:04.500\n\[unclear\]\n", text)


def test_srt_counts_from_one(tmp_path):
    path = tmp_path / "a.srt"
    captions = EventFile(str(path), "srt")
    for event in script():
        captions.write(event)
    captions.close()
    numbers = [int(block.split("\n")[0]) for block in path.read_text("utf-8").strip().split("\n\n")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_jsonl_lines_are_whole_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = EventFile(str(path), "jsonl")
    events = list(script())
    for count, event in enumerate(events, 1):
        writer.write(event)
        assert path.read_text("utf-8").count("\n") == count
    writer.close()
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [event.to_dict() for event in events]


@pytest.mark.parametrize("kind", ["srt", "vtt", "jsonl", "text"])
@pytest.mark.parametrize("path", ["", "no/such/folder/file", "bad\0name"])
def test_what_cannot_be_opened_is_named(tmp_path, kind, path):
    with pytest.raises(UsageError, match=f"^--{kind} ") as caught:
        EventFile(os.path.join(tmp_path, path), kind)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux' /dev/full")
def test_a_full_disk_is_named():
    with pytest.raises(OutputError, match=r"^--vtt /dev/full: "):
        EventFile("/dev/full", "vtt").begin()
    writer = EventFile("/dev/full", "jsonl")
    with pytest.raises(OutputError, match=r"^--jsonl /dev/full: "):
        writer.write(next(script()))


def test_half_a_cue_is_taken_back_when_the_disk_fills_up(tmp_path, monkeypatch):
    path = tmp_path / "a.vtt"
    writer = EventFile(str(path), "vtt")
    real, room = os.write, [30]

    def short(fd: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        written = real(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OutputError, match="No space left"):
        writer.write(spoken(words("hello"), final=True))
    monkeypatch.undo()
    assert path.read_text() == "WEBVTT\n\n"
    writer.write(spoken(words("again", start=5.0), segment=2, final=True))
    assert VTT.fullmatch(path.read_text())


def test_a_reader_of_stdout_that_goes_away_is_no_error():
    program = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_outlet import script; from streamer.output.outlet import Sinks\n"
        "from streamer.settings.config import OutputSettings\n"
        "sinks = Sinks(OutputSettings(jsonl='-'), ['s'])\n"
        "for _ in range(2000):\n"
        "    for event in script(): sinks.write(event)\n"
        "assert sinks.reader_gone and not sinks.failed\n"
        "sinks.close(); print('after')\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "transcript"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_what_fails_of_itself_costs_one_event_and_people_are_told_until_all_is_well(tmp_path, monkeypatch, caplog):
    """Not the disk but we: the files go on with the next event, and nobody has to look into the log to learn of it."""
    monkeypatch.setattr("streamer.output.outlet.STEADY_S", 0.0)
    told, path = [], tmp_path / "events.jsonl"
    sinks = Sinks(OutputSettings(jsonl=str(path)), ["s"])
    sinks.begin()
    outlet = Outlet(sinks, lambda state, detail: told.append((state, detail)))
    real = sinks.write

    def write(event):
        if event.text.startswith("poison"):
            raise IndexError("an event that nobody expected")
        real(event)

    monkeypatch.setattr(sinks, "write", write)
    outlet.start()
    outlet.put([said("s", text) for text in ("one", "poison", "poison", "two", "three")])
    assert outlet.stop(30)
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["one", "two", "three"]
    what = "not all of it is written (IndexError: an event that nobody expected)"
    assert told == [("degraded", what), ("listening", "")]
    assert caplog.text.count("nobody expected") == 1
    assert sinks.failed  # the exit status says so


def test_two_writers_of_one_file_are_refused(tmp_path):
    path = str(tmp_path / "a.srt")
    first = EventFile(path, "srt")
    with pytest.raises(UsageError, match=r"^--srt .*another program is writing it"):
        EventFile(path, "srt")
    first.close()
    EventFile(path, "srt").close()


@pytest.mark.parametrize("away", [lambda path, old: path.rename(old), lambda path, old: path.unlink()])
def test_where_a_file_is_moved_away_or_deleted_a_new_one_goes_on(tmp_path, away):
    path = tmp_path / "a.vtt"
    writer = EventFile(str(path), "vtt")
    writer.write(spoken(words("hello"), final=True))
    away(path, tmp_path / "old.vtt")
    writer.write(spoken(words("again", start=5.0), segment=2, final=True))
    writer.close()
    assert VTT.fullmatch(path.read_text())
    assert "again" in path.read_text()
    assert all("again" not in old.read_text() for old in tmp_path.glob("old*"))


@pytest.mark.parametrize("kind", ["vtt", "srt"])
def test_an_emptied_file_begins_anew_without_zeros_in_front(tmp_path, kind):
    path = tmp_path / "a"
    writer = EventFile(str(path), kind)
    writer.write(spoken(words("hello"), final=True))
    os.truncate(path, 0)  # logrotate's copytruncate
    writer.write(spoken(words("again", start=5.0), segment=2, final=True))
    writer.close()
    assert "\0" not in path.read_text()
    assert "again" in path.read_text()
    assert path.read_text().startswith("WEBVTT") == (kind == "vtt")


def test_a_folder_that_is_deleted_is_said_and_written_when_it_is_there_again(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    clock, said_of = [0.0], []
    sinks = Sinks(OutputSettings(jsonl=str(folder / "a.jsonl")), ["kitchen"], clock=lambda: clock[0])
    sinks.tell_of_trouble(lambda state, detail: said_of.append((state, detail)))
    sinks.begin()
    sinks.write(said("kitchen", "one"))
    shutil.rmtree(folder)
    sinks.write(said("kitchen", "two"))
    assert said_of[-1][0] == "degraded"
    assert "No such file" in said_of[-1][1]
    folder.mkdir()
    clock[0] += 60.0
    sinks.write(said("kitchen", "three"))
    assert said_of[-1] == ("listening", "")
    sinks.close()
    assert not sinks.failed
    assert [json.loads(line)["text"] for line in (folder / "a.jsonl").read_text().splitlines()] == ["two", "three"]

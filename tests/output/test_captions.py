import json
import os
import re
import subprocess
import sys

import pytest
from test_cues import sound, spoken, unclear, words

from streamer.errors import UsageError
from streamer.events import Tags
from streamer.output.captions import JsonlWriter, OutputError, SrtWriter, VttWriter, srt_cue, vtt_cue
from streamer.output.cues import Cue

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


@pytest.mark.parametrize(("writer", "valid"), [(SrtWriter, SRT), (VttWriter, VTT)], ids=["srt", "vtt"])
def test_files_are_valid_at_every_moment(tmp_path, writer, valid):
    path = tmp_path / "captions"
    path.write_text("old content")
    captions = writer(str(path))
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
    captions = SrtWriter(str(path))
    for event in script():
        captions.write(event)
    captions.close()
    numbers = [int(block.split("\n")[0]) for block in path.read_text("utf-8").strip().split("\n\n")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_exact_blocks():
    cue = Cue(3_723_004, 3_725_000, ("a & b <i> -->", "second"))
    assert srt_cue(cue, 7) == "7\n01:02:03,004 --> 01:02:05,000\na & b <i> →\nsecond\n\n"
    assert vtt_cue(cue) == "01:02:03.004 --> 01:02:05.000\na &amp; b &lt;i&gt; --&gt;\nsecond\n\n"


def test_jsonl_lines_are_whole_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = JsonlWriter(str(path))
    events = list(script())
    for count, event in enumerate(events, 1):
        writer.write(event)
        assert path.read_text("utf-8").count("\n") == count
    writer.close()
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [event.to_dict() for event in events]


@pytest.mark.parametrize(("writer", "option"), [(SrtWriter, "--srt"), (VttWriter, "--vtt"), (JsonlWriter, "--jsonl")])
@pytest.mark.parametrize("path", ["", "no/such/folder/file", "bad\0name"])
def test_what_cannot_be_opened_is_named(tmp_path, writer, option, path):
    with pytest.raises(UsageError, match=f"^{option} ") as caught:
        writer(os.path.join(tmp_path, path))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux' /dev/full")
def test_a_full_disk_is_named():
    with pytest.raises(OutputError, match=r"^--vtt /dev/full: "):
        VttWriter("/dev/full").begin()
    writer = JsonlWriter("/dev/full")
    with pytest.raises(OutputError, match=r"^--jsonl /dev/full: "):
        writer.write(next(script()))


def test_half_a_cue_is_taken_back_when_the_disk_fills_up(tmp_path, monkeypatch):
    path = tmp_path / "a.vtt"
    writer = VttWriter(str(path))
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
        "from test_captions import script; from streamer.output.captions import JsonlWriter\n"
        "writer = JsonlWriter('-')\n"
        "for _ in range(2000):\n"
        "    for event in script(): writer.write(event)\n"
        "assert writer.broken\n"
        "writer.close(); print('after')\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "transcript"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_two_writers_of_one_file_are_refused(tmp_path):
    path = str(tmp_path / "a.srt")
    first = SrtWriter(path)
    with pytest.raises(UsageError, match=r"^--srt .*another program is writing it"):
        SrtWriter(path)
    first.close()
    SrtWriter(path).close()

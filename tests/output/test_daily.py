"""Transcripts that are kept on disk: a file for each session and day, which survives the program."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.errors import ConfigError, UsageError
from streamer.events import Event, Sound, Span, Status, Transcript
from streamer.output.daily import DailyFiles
from streamer.output.outlet import Sinks
from streamer.settings.config import OutputSettings, validate

EVENING = time.mktime((2026, 11, 29, 23, 59, 30, 0, 0, -1))


class Clock:
    def __init__(self) -> None:
        self.s = EVENING

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock():
    return Clock()


def said(text: str, at: float, session: str = "kitchen", segment: int = 0) -> Transcript:
    return Transcript(
        session=session,
        seq=round(10 * at) + 1,
        audio_t=at + 1,
        segment=segment,
        start=at,
        end=at + 1,
        text=text,
        partial="",
        final=True,
        words=(),
        language="en",
        speech_probability=0.9,
    )


def write(sinks: Sinks, clock: Clock, events: list[Event]) -> None:
    for event in events:
        clock.s = EVENING + event.audio_t
        sinks.write(event)


def sinks_for(folder: Path, now: Clock) -> Sinks:
    sinks = Sinks(OutputSettings(transcripts=str(folder)), ["kitchen"])
    sinks._daily = DailyFiles(str(folder), now)
    sinks.begin()
    return sinks


def test_a_file_for_each_session_and_day_with_the_times_of_day(tmp_path, clock):
    folder = tmp_path / "said" / "here"
    sinks = sinks_for(folder, clock)
    bell = Sound(
        session="kitchen", seq=50, audio_t=6.0, id=1, label="Doorbell", state="start", start=5.0, end=None, score=1
    )
    unclear = replace(said("Come\nin.", 8.0), unclear=(Span(9.0, 10.0),))
    write(
        sinks, clock, [said("Who is it?", 2.0), said("Hello.", 3.0, "hall"), bell, unclear, said("It is late.", 40.0)]
    )
    sinks.close()
    assert sorted(os.listdir(folder)) == [
        "2026-11-29 hall.txt",
        "2026-11-29 kitchen.txt",
        "2026-11-30 kitchen.txt",
    ]
    assert (folder / "2026-11-29 kitchen.txt").read_text() == (
        "23:59:32 Who is it?\n23:59:35 [Doorbell]\n23:59:38 Come in.\n23:59:39 [unclear]\n"
    )
    assert (folder / "2026-11-30 kitchen.txt").read_text() == "00:00:10 It is late.\n"
    assert {(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_who_starts_again_writes_on(tmp_path, clock):
    for text in ("before", "after"):
        sinks = sinks_for(tmp_path, clock)
        write(sinks, clock, [said(text, 1.0), Status(session="kitchen", seq=99, audio_t=3.0, state="stopped")])
        assert sinks._daily is not None
        assert sinks._daily.all() == []  # what has stopped holds no file open
        write(sinks, clock, [said(f"again, {text}", 5.0)])
        sinks.close()
        assert not sinks.failed
    assert (tmp_path / "2026-11-29 kitchen.txt").read_text() == (
        "23:59:31 before\n23:59:35 again, before\n23:59:31 after\n23:59:35 again, after\n"
    )


def test_a_file_that_cannot_be_opened_is_said_once_kept_and_tried_ever_less_often(tmp_path, clock, caplog, monkeypatch):
    sinks = sinks_for(tmp_path, clock)
    sinks._clock = clock
    told: list[tuple[str, str]] = []
    sinks.tell_of_trouble(lambda state, detail: told.append((state, detail)))
    (tmp_path / "2026-11-29 kitchen.txt").mkdir()
    tried: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *more, **options: tried.append(str(path)) or real(path, *more, **options)
    )
    write(sinks, clock, [said(f"word {number}", number / 10) for number in range(200)])
    write(sinks, clock, [said("kept", 20.0, "hall")])
    assert 4 <= len([path for path in tried if "kitchen" in path]) <= 7, "in 20 s: at once, after 0.5, 1, 2, 4, 8 s"
    assert sinks.troubled
    (tmp_path / "2026-11-29 kitchen.txt").rmdir()
    clock.s += 30
    sinks.retry()
    sinks.close()
    assert [state for state, _ in told] == ["degraded", "listening"]
    assert "output.transcripts" in told[0][1]
    assert len(caplog.records) == 2  # that it cannot be written, and that it is again
    assert not sinks.failed
    lines = (tmp_path / "2026-11-29 kitchen.txt").read_text().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (200, "23:59:30 word 0", "23:59:49 word 199")


def test_a_file_that_never_can_be_opened_is_a_failure_at_the_end(tmp_path, clock):
    sinks = sinks_for(tmp_path, clock)
    (tmp_path / "2026-11-29 kitchen.txt").mkdir()
    write(sinks, clock, [said("lost", 1.0)])
    sinks.close()
    assert sinks.failed


def test_what_is_over_is_closed_once_all_of_it_could_be_written(tmp_path, clock, monkeypatch):
    sinks = sinks_for(tmp_path, clock)
    sinks._clock = clock
    closed: list[int] = []
    real = os.close
    monkeypatch.setattr(os, "close", lambda fd: closed.append(fd) or real(fd))

    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        over = Status(session="kitchen", seq=99, audio_t=3.0, state="stopped")
        write(sinks, clock, [said("kept", 1.0), over])
    assert sinks.troubled
    assert not closed
    clock.s += 60
    sinks.retry()
    assert not sinks.troubled
    assert len(closed) == 1
    assert (tmp_path / "2026-11-29 kitchen.txt").read_text() == "23:59:31 kept\n"
    sinks.close()
    assert not sinks.failed


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"output\.transcripts .*: cannot be made"):
        Sinks(OutputSettings(transcripts=str(tmp_path / "file" / "x")), ["kitchen"])
    with pytest.raises(ConfigError, match=r"^output\.transcripts: is for what is heard as it happens"):
        validate({"audio": {"speed": 0}, "output": {"transcripts": "x"}})
    with pytest.raises(ConfigError, match=r"^output\.transcripts: .*at least 1 character"):
        validate({"output": {"transcripts": ""}})

"""Events on disk: whatever ends the program, what is there is what people were told, and the numbers say the rest."""

import json
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.events import Alert, Sound, Status, Tags, Transcript, Word
from streamer.runtime import event_log
from streamer.runtime.event_log import EventLog
from streamer.runtime.told import Told
from streamer.server.hub import Hub
from streamer.server.messages import SessionInfo, Subscribe
from streamer.settings.config import resolve
from streamer.settings.server import EventHistorySettings


class Writer:
    """Makes events of a session as the program does, numbered from where `told` says."""

    def __init__(self, log: EventLog, session: str = "kitchen") -> None:
        self.log, self.session, self.told, self.made = log, session, Told(session), []

    def say(self, kind, **fields):
        event = kind(session=self.session, seq=self.told.seq + 1, audio_t=self.told.seq / 10, **fields)
        self.told.note(event)
        self.made.append(event)
        self.log.write(event)

    def tags(self):
        self.say(Tags, start=0.0, end=1.0, tags=())

    def alert(self, number: int, state: str):
        over = {"end": self.told.seq / 10} if state == "cleared" else {"end": None}
        what = {"rule": "loud", "severity": "info", "score": 1.0, "labels": ("loud",), "heard": (), "text": ""}
        self.say(Alert, id=number, state=state, start=0.0, **over, **what)

    def words(self, segment: int, text: str, final: bool = False):
        words = tuple(Word(word, 0.1, 0.2, 0.9) for word in text.split())
        self.say(
            Transcript,
            segment=segment,
            start=0.0,
            end=0.2,
            text=text,
            partial="" if final else "and",
            final=final,
            words=words,
            language="en",
            speech_probability=0.9,
        )


def killed(log: EventLog) -> None:
    """What the system does for a process that is killed: it closes what is open, and nothing else happens."""
    for descriptor in (log._fd, log._guard):
        if descriptor is not None:
            os.close(descriptor)
    log._fd = log._guard = None


def opened(folder: Path, **given) -> EventLog:
    return EventLog(EventHistorySettings(persist=True, path=str(folder / "events.log"), **given))


def test_after_a_kill_everything_is_there_and_what_was_open_is_ended(tmp_path):
    log = opened(tmp_path)
    one = Writer(log)
    one.say(Status, state="listening")
    one.words(0, "good morning")
    one.alert(1, "raised")
    one.say(Sound, id=1, label="Speech", state="start", start=0.0, end=None, score=0.9)
    killed(log)
    again = opened(tmp_path)
    kept = again.kept["kitchen"]
    assert again.run == log.run
    assert [json.loads(entry.text) for entry in kept.entries] == [event.to_dict() for event in one.made]
    said = kept.go_on(kept.at + 7.5)
    assert [(event.type, event.seq) for event in said] == [
        ("transcript", 5),
        ("alert", 6),
        ("sound", 7),
        ("status", 8),
        ("gap", 9),
    ]
    assert (said[0].text, said[0].partial, said[0].final) == ("good morning", "", True)
    assert (said[1].state, said[2].state, said[3].state) == ("cleared", "end", "starting")
    gap = said[4]
    assert (gap.start, gap.end, gap.audio_t) == (0.3, 8.0, 8.0)  # 0.3 + 7.5 s, in whole seconds
    assert kept.start_s == 8.0
    killed(again)
    assert opened(tmp_path).run == log.run


def test_a_client_goes_on_by_since_seq_and_is_told_what_is_gone(tmp_path):
    log = opened(tmp_path)
    one = Writer(log)
    for _ in range(18):
        one.tags()
    one.words(0, "good morning")
    one.words(0, "good morning", final=True)
    killed(log)
    again = opened(tmp_path)
    kept = again.kept["kitchen"]
    hub = Hub(run=again.run)
    hub.open_session(SessionInfo("kitchen", "nano", None, 16_000), kept.entries[10:], lost_to=10)
    client = hub.connect(held=True)
    hub.subscribe(client, Subscribe(session="kitchen", since_seq=15))
    hello, *events = [json.loads(text) for text in hub.drain(client)]
    assert (hello["sessions"][0]["oldest_seq"], hello["sessions"][0]["last_seq"]) == (11, 20)
    assert [event["seq"] for event in events] == [16, 17, 18, 20]  # the partial is superseded
    assert "good morning" in "".join(hub.transcript("kitchen", "txt"))
    late = hub.connect(held=True)
    hub.subscribe(late, Subscribe(session="kitchen", since_seq=4))
    gap = json.loads(hub.drain(late)[1])
    assert (gap["type"], gap["from_seq"], gap["to_seq"]) == ("gap", 5, 10)


def test_it_is_bounded_and_what_began_long_ago_is_still_ended(tmp_path):
    log = opened(tmp_path, max_mb=1)
    one = Writer(log)
    one.alert(1, "raised")
    for number in range(3000):
        one.words(number, "some words that were said", final=True)
    sizes = [path.stat().st_size for path in tmp_path.glob("events.log*")]
    assert sum(sizes) < 1_001_000
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    killed(log)
    kept = opened(tmp_path, max_mb=1).kept["kitchen"]
    assert kept.lost_to > 0
    assert [entry.seq for entry in kept.entries] == list(range(kept.lost_to + 1, 3002))
    assert [event.state for event in kept.go_on(kept.at) if isinstance(event, Alert)] == ["cleared"]
    assert kept.told.segments == 3000


def test_senders_are_over_and_only_the_last_few_are_remembered(tmp_path):
    log = opened(tmp_path)
    for number in range(8):
        sender = Writer(log, f"in{number}")
        sender.words(0, "hello")
        if number != 5:
            sender.words(0, "hello", final=True)
            sender.say(Status, state="stopped")
    killed(log)
    kept = opened(tmp_path).kept
    assert list(kept) == ["in3", "in4", "in5", "in6", "in7"]
    assert kept["in7"].end() == []
    final, stopped = kept["in5"].end()
    assert (final.final, stopped.state) == (True, "stopped")


def test_the_only_source_goes_on_under_the_name_that_it_had(tmp_path):
    log = opened(tmp_path)
    Writer(log, "s1-20261129T202540").tags()
    Writer(log, "in1-20261129T202541").tags()
    log.close()
    again = opened(tmp_path)
    assert again.earlier("s1") == "s1-20261129T202540"
    assert again.run == log.run


def test_where_a_power_cut_may_have_taken_something_the_numbers_have_another_name(tmp_path, monkeypatch):
    log = opened(tmp_path)
    Writer(log).tags()
    killed(log)
    monkeypatch.setattr(event_log, "_boot", lambda: "another start of the machine")
    again = opened(tmp_path)
    assert again.run != log.run
    assert again.kept["kitchen"].told.seq == 1
    again.close()
    monkeypatch.setattr(event_log, "_boot", lambda: "a third one, after an end in order")
    assert opened(tmp_path).run == again.run


def test_what_is_a_week_old_is_removed(tmp_path):
    settings = EventHistorySettings(path=str(tmp_path / "events.log"))
    log = EventLog(settings, wall=lambda: 1000.0)
    Writer(log).tags()
    log.close()
    again = EventLog(settings, wall=lambda: 1000.0 + 8 * 24 * 3600)
    assert not again.kept
    assert b"tags" not in (tmp_path / "events.log").read_bytes()


def test_two_programs_do_not_write_one_history(tmp_path):
    log = opened(tmp_path)
    with pytest.raises(ConfigError, match=r"history\.path: .*events\.log: another program is writing it"):
        opened(tmp_path)
    log.close()
    opened(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("max_mb", "0"), ("persist", "perhaps"), ("path", "''")])
def test_a_wrong_setting_is_one_line_that_names_it(key, value):
    with pytest.raises(ConfigError, match=rf"^history\.{key}: [^\n]+$"):
        resolve([Path(os.devnull)], [f"history.{key}={value}"], {})


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^history\.path: .*cannot be written: "):
        opened(tmp_path / "file" / "below")


def three_starts(folder: Path) -> list[dict]:
    """A history of two turns of the files and three starts of the program; the events that it was told."""
    made = []
    for begin in range(3):
        log = opened(folder)
        log._half = 3000
        one = Writer(log)
        one.told = log._told.get("kitchen", one.told)
        for number in range(8):
            one.words(begin * 8 + number, "some words that were said", final=number % 2 == 0)
            one.alert(begin * 8 + number + 1, "raised")
        made += [event.to_dict() for event in one.made]
        killed(log)
    return made


@settings(max_examples=60, derandomize=True)
@given(at=st.floats(0, 1), flip=st.integers(0, 255), older=st.booleans())
def test_whatever_is_torn_off_or_broken_it_is_read_and_says_so(at, flip, older):
    """`flip` 0: the file ends there; else this byte there is another one."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        made = three_starts(folder)
        before = opened(folder)
        whole, run = [json.loads(one.text) for one in before.kept["kitchen"].entries], before.run
        assert whole == made[-len(whole) :]
        killed(before)
        path = folder / ("events.log.1" if older else "events.log")
        data = bytearray(path.read_bytes())
        place = min(int(at * len(data)), len(data) - 1)
        if flip:
            data[place] ^= flip
        else:
            del data[place:]
        path.write_bytes(data)
        log = opened(folder)
        kept = log.kept.get("kitchen")
        found = [json.loads(one.text) for one in kept.entries] if kept else []
        seqs = [event["seq"] for event in found]
        assert all(event in made for event in found)
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
        if log.run == run and not older:  # then it ends sooner, as if it had been killed sooner
            assert found == whole[: len(found)] or found == made[len(made) - len(whole) :][: len(found)]
        if older and found and found != whole:
            assert seqs[-1] == whole[-1]["seq"]
        killed(log)
        assert opened(folder).run == log.run  # mended


def signed(text: str) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode())


ODD_NUMBERS = [
    ('"audio_t":0.3', '"audio_t":1e400'),
    ('"audio_t":0.3', '"audio_t":-1e400'),
    ('"audio_t":0.3', '"audio_t":1e300'),
    ('"seq":4', '"seq":1e400'),
    ('"seq":4', '"seq":NaN'),
    ('"probability":0.9', '"probability":NaN'),
    ('"words":[', '"words":[7,'),
    ('"language":"en"', '"language":["en"]'),
    ('"final":false', '"final":"no"'),
]


def rewritten(path: Path, place: int, old: str, new: str) -> None:
    """A line says something else, and its checksum fits: no accident of a disk, but no reason to stop either."""
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert old in lines[place]
    lines[place] = lines[place].replace(old, new, 1)
    path.write_bytes(b"".join(signed(line) for line in lines))


def read_again(folder: Path, caplog) -> dict:
    log = opened(folder)
    kept = log.kept
    for one in kept.values():
        assert one.told.resume_sample >= 0
        assert all(0 <= event.audio_t < 1e12 for event in one.go_on(1e9))
    killed(log)
    assert caplog.text.count("is damaged; what cannot be read is left out, and clients begin again") == 1
    return kept


@pytest.mark.parametrize(("old", "new"), ODD_NUMBERS)
def test_an_event_with_a_number_that_cannot_be_is_left_out_and_said(tmp_path, caplog, old, new):
    log = opened(tmp_path)
    one = Writer(log)
    for number in range(6):
        one.words(number, "some words")
    killed(log)
    rewritten(tmp_path / "events.log", 4, old, new)
    assert [json.loads(entry.text)["seq"] for entry in read_again(tmp_path, caplog)["kitchen"].entries] == [5, 6]


@pytest.mark.parametrize("name", ["seq", "segments", "sounds", "alerts", "audio_t"])
@pytest.mark.parametrize("odd", ["1e400", "NaN", "-1e400", "1e300", '"x"', "null", "[]", "{}"])
def test_what_was_said_before_is_left_out_where_a_number_of_it_cannot_be(tmp_path, caplog, name, odd):
    log = opened(tmp_path)
    one = Writer(log)
    one.words(0, "some words")
    log._turn_over()
    one.words(1, "some more")
    one.words(2, "and more")
    killed(log)
    path = tmp_path / "events.log"
    said = json.loads(path.read_text().splitlines()[0].split(" ", 2)[2])["sessions"]["kitchen"][name]
    rewritten(path, 0, f'"{name}":{json.dumps(said)},"', f'"{name}":{odd},"')
    assert [json.loads(entry.text)["seq"] for entry in read_again(tmp_path, caplog)["kitchen"].entries] == [1, 2, 3]


def test_a_last_line_that_is_not_whole_is_said_and_does_no_harm(tmp_path, caplog):
    log = opened(tmp_path)
    one = Writer(log)
    one.words(0, "some words")
    killed(log)
    with (tmp_path / "events.log").open("ab") as file:
        file.write(b"0000")
    again = opened(tmp_path)
    assert again.run == log.run
    assert caplog.text.count("the last line is not whole and is left out") == 1
    killed(again)


FULL = """
import os, resource, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from test_event_log import Writer, opened, killed
folder = Path(sys.argv[1])
log = opened(folder)
one = Writer(log)
for _ in range(5):
    one.tags()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "events.log").stat().st_size + 150, hard))
one.tags()
one.tags()
print(sorted(path.name for path in folder.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log._again_s = 0.0
one.alert(1, "raised")
one.tags()
killed(log)
again = opened(folder)
kept = again.kept["kitchen"]
print(kept.lost_to, [entry.seq for entry in kept.entries], again.run == log.run)
"""


def test_a_full_disk_removes_the_history_rather_than_let_numbers_come_twice(tmp_path):
    """The kernel's own limit of a file's size stands for the full disk."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), *paths], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["['events.log.lock']", "8 [9] True"], done.stderr
    assert done.stderr.count("cannot be written any more") == 1

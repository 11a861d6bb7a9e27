"""What goes wrong, and what has to happen then. Each fault is a function of the `World` that says what did happen.

It raises BrokenInvariant where that is not what had to.
"""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.bench.chaos.clients import Away, Lags, Place, Reader, Sender, is_closed, stalled
from streamer.bench.chaos.program import Program
from streamer.errors import StreamerError
from streamer.measure.invariants import check_session, must
from streamer.runtime.overload import ADVICE, LATE, SLOW

START_S = 120.0  # for the program to listen
TOLD_S, BACK_S = 5.0, 20.0  # a fault of the model: told of, and over; the program promises 3 s and 15 s
LAG_S, RECOVER_S = 5.0, 30.0  # whatever happens, nobody is further behind, and all is well again so soon
END_S = 6.0  # the program promises 5 s
STALLED_S = 80.0  # a viewer that reads nothing and does not answer is closed before
STRANGERS = 40

Samples = NDArray[np.float32]


@dataclass
class World:
    """The program that is tried, and everybody around it. `arguments`: of its command line; `spoken`: what is sent;
    `expected`: the words of each of these pieces without a server and faults.
    """

    folder: Path
    place: Place
    arguments: Sequence[str]
    spoken: Sequence[Samples]
    expected: Sequence[Sequence[str]]
    rng: Random
    program: Program = field(init=False)
    reader: Reader = field(init=False)
    lags: Lags = field(init=False)
    let_in: int = 0  # strangers
    stalled: list[tuple[float, socket.socket]] = field(default_factory=list)

    def start(self) -> None:
        """Start the program, and read along."""
        self.program = Program(self.arguments, self.folder)
        self.until_ready(START_S)
        self.reader, self.lags = Reader(self.place, "room"), Lags(self.place, "room")

    def until_ready(self, timeout_s: float) -> float:
        """Seconds until `/readyz` says 200. Raises BrokenInvariant where it does not, StreamerError at a start."""
        began_s, said = time.monotonic(), ""
        while time.monotonic() - began_s < timeout_s:
            status, said = self.place.get("/readyz")
            if status == 200:
                return time.monotonic() - began_s
            if not self.program.alive:
                log = (self.folder / "stderr.log").read_text(errors="replace").strip().splitlines()
                raise StreamerError(f"bench chaos: the program ended: {log[-1] if log else 'it said nothing'}")
            time.sleep(0.2)
        must(False, f"ready again within {timeout_s:g} s", said[:200])
        return timeout_s

    def told_and_over(self, fault: str, said: str, timeout_s: float = BACK_S, **more: object) -> str:
        """Have a fault and wait for `degraded` with these words, and for the end of it; in words."""
        since, began_s = self.reader.count, time.monotonic()
        self.program.ask(fault, **more)
        told = self.reader.wait_for(lambda event: _status(event, "degraded", said), since, timeout_s)
        must(told is not None, f"`degraded` with {said!r} comes")
        assert told is not None
        must(told - began_s <= TOLD_S, f"told within {TOLD_S:g} s", told - began_s)
        back = self.reader.wait_for(_is_well, self.reader.count_at(told), timeout_s)
        must(back is not None, f"listening again within {timeout_s:g} s")
        assert back is not None
        return f"told after {told - began_s:.1f} s, listening after {back - began_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `must`: what has to happen. `gentle`: no word of anybody else may be lost for it."""

    name: str
    must: str
    inject: Callable[[World], str]
    gentle: bool = True


def _status(event: dict[str, Any], state: str, said: str) -> bool:
    return event["type"] == "status" and event["state"] == state and said in event["detail"]


def _is_well(event: dict[str, Any]) -> bool:
    """Whether nothing but the machine's slowness is the matter, which the bench does not cause but may meet."""
    if _status(event, "listening", ""):
        return True
    return _status(event, "degraded", "") and all(
        part == ADVICE or part.startswith(SLOW) or part.endswith(LATE) for part in event["detail"].split("; ")
    )


def _none(world: World) -> str:
    time.sleep(2)
    return "nothing"


def _raises(world: World) -> str:
    world.program.ask("raise", times=1)
    since = world.reader.count
    heard = world.reader.wait_for(lambda event: event["type"] == "tags", since, BACK_S)
    must(heard is not None, "the session goes on")
    return "the session went on"


def _raises_for_long(world: World) -> str:
    return world.told_and_over("raise", "", times=6)


def _hangs(world: World) -> str:
    return world.told_and_over("hang", "the model has not answered")


def _ends(world: World) -> str:
    return world.told_and_over("end", "the thread that asks the model ended")


def _device(world: World) -> str:
    since = world.reader.count
    world.program.ask("device")
    heard = world.reader.wait_for(lambda event: event["type"] == "tags", since, BACK_S)
    must(heard is not None, "it goes on with the spare engine")
    return "it went on with the spare engine"


def _slow(world: World) -> str:
    began_s = time.monotonic()
    world.program.ask("slow", seconds=1.0)
    time.sleep(12)
    world.program.ask("slow", seconds=0)
    back_s = world.until_ready(RECOVER_S)
    worst_s = world.lags.worst_s(began_s)
    return f"lag at most {worst_s:.1f} s, ready {back_s:.1f} s later"


def _disk(world: World) -> str:
    size = (world.folder / "events.jsonl").stat().st_size
    since, began_s = world.reader.count, time.monotonic()
    world.program.ask("disk", bytes=size + 100)
    told = world.reader.wait_for(lambda event: _status(event, "degraded", "cannot be written"), since, BACK_S)
    must(told is not None, "`degraded` with what cannot be written")
    assert told is not None
    _check_lines(world.folder / "events.jsonl", torn=False)
    world.program.ask("none")
    back = world.reader.wait_for(_is_well, world.reader.count_at(told), 60)
    must(back is not None, "listening again when there is room")
    assert back is not None
    return f"told after {told - began_s:.1f} s, written again after {back - began_s:.1f} s"


def _check_lines(path: Path, *, torn: bool = True) -> None:
    """Each line of a file of events is one. `torn`: the last one may be in the making."""
    lines = path.read_bytes().split(b"\n")
    must(torn or not lines[-1], f"{path.name} ends with a whole line", lines[-1])
    for line in lines[:-1]:
        try:
            json.loads(line)
        except ValueError:
            must(False, f"each line of {path.name} is JSON", line)


def _leaves(world: World) -> str:
    piece = world.rng.choice(world.spoken)
    sender = Sender(world.place, piece, leave_s=world.rng.uniform(1.5, len(piece) / 16_000 - 1))
    must(sender.wait(90), "the sender is through")
    if not was_taken(sender):
        return "the sender was told to try later"
    reader = Reader(world.place, sender.session)
    over = reader.wait_for(lambda event: _status(event, "stopped", ""), 0, BACK_S)
    reader.end()
    must(over is not None, "its session ends with `stopped`", sender.session)
    check_session(reader.events, merged=True, degraded=True)
    return f"its session ended: {sum(event.get('final', False) for event in reader.events)} finals"


def _bursts(world: World) -> str:
    part = world.rng.randrange(len(world.spoken))
    sender = Sender(world.place, world.spoken[part], speed=0)
    must(sender.wait(150), "the sender is through")
    if not was_taken(sender):
        return "the sender was told to try later"
    check_session(sender.events, merged=True, degraded=True)
    told = [event for event in sender.events if event["type"] == "gap" or event.get("state") == "degraded"]
    lost = missing(world.expected[part], words_in(sender.events))
    must(bool(told) or not lost, "no word is lost without being told", lost)
    return f"all of its sound was taken, {lost} words lost, told {len(told)} times that something is left out"


def was_taken(sender: Sender) -> bool:
    """Whether the sender has a session. On a busy machine it may be told to try later, which is no broken promise."""
    must(bool(sender.session) or "1013" in sender.refused, "a sender is taken or told to try later", sender.refused)
    return bool(sender.session)


def words_in(events: Sequence[dict[str, Any]]) -> list[str]:
    """The words of the segments that are final."""
    return [word["word"] for event in events if event.get("final") for word in event["words"]]


def missing(expected: Sequence[str], given: Sequence[str]) -> int:
    """How many of the expected words are not among those given, in their order."""
    matcher = SequenceMatcher(None, expected, given, autojunk=False)
    return len(expected) - sum(block.size for block in matcher.get_matching_blocks())


def _stalls(world: World) -> str:
    world.stalled.append((time.monotonic(), stalled(world.place)))
    return "others went on"


def closed_stalled(world: World) -> str:
    """Whether who stalled long ago was closed; in words."""
    old = [one for at, one in world.stalled if time.monotonic() - at > STALLED_S]
    closed = [is_closed(one) for one in old]
    must(all(closed), f"viewers that stall are closed within {STALLED_S:g} s", closed)
    for _, one in world.stalled:
        one.close()
    return f"{len(old)} viewers that stalled were closed"


def _strangers(world: World) -> str:
    refused: dict[str, int] = {}
    for number in range(STRANGERS):
        path = world.rng.choice(("/ws", "/ingest", "/v1/realtime"))
        try:
            with world.place.connect(path, token=f"wrong-token-{number}") as connection:
                with suppress(TimeoutError):  # whoever is let in may have to wait for the first word
                    connection.recv(timeout=1)
                world.let_in += 1
        except Away as error:
            status = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
            refused[str(status)] = refused.get(str(status), 0) + 1
    must(world.let_in == 0, "nobody with a wrong token is let in", world.let_in)
    must("429" in refused, "who tries that often is told to wait", refused)
    return f"refused: {refused}"


def _crowd(world: World) -> str:
    crowd = []
    for _ in range(300):
        with suppress(OSError):
            crowd.append(socket.create_connection(("127.0.0.1", world.place.port), timeout=1))
    since = world.reader.count
    served = world.reader.wait_for(lambda event: event["type"] == "tags", since, 10)
    for one in crowd:
        one.close()
    must(served is not None, "who was there is served")
    return f"{len(crowd)} sockets; who was there was served"


def _no_files(world: World) -> str:
    world.program.ask("files")
    time.sleep(0.5)
    crowd, answers = [], {"503": 0, "none": 0, "open": 0}
    for _ in range(60):
        with suppress(OSError):
            one = socket.create_connection(("127.0.0.1", world.place.port), timeout=2)
            crowd.append(one)
            one.sendall(b"GET /ws HTTP/1.1\r\n")  # and nothing more: it stays open
    time.sleep(1)
    for one in crowd:
        one.settimeout(0.05)
        try:
            first = one.recv(64)
            answers["503" if b" 503 " in first else "none"] += 1
        except OSError:
            answers["open"] += 1
    since = world.reader.count
    served = world.reader.wait_for(lambda event: event["type"] == "tags", since, 10)
    for one in crowd:
        one.close()
    world.program.ask("none")
    must(served is not None, "who was there is served")
    must(answers["503"] > 0, "new connections are refused with 503", answers)
    back_s = world.until_ready(RECOVER_S)
    return f"{answers['503']} refused with 503, ready {back_s:.1f} s later"


def _nonsense(world: World) -> str:
    said: list[str | bytes] = ['{"type":"subscribe","types":7}', "[" * 5000, "\x00\xff", '{"type":"ack","id":1e400}']
    said += [bytes(world.rng.randrange(256) for _ in range(200)) for _ in range(6)]
    errors = 0
    for path in ("/ws", "/ingest"):
        try:
            with world.place.connect(path) as connection:
                for one in world.rng.sample(said, len(said)):
                    connection.send(one)
                until_s = time.monotonic() + 3
                while time.monotonic() < until_s:  # events come all the time
                    errors += json.loads(connection.recv(timeout=1))["type"] == "error"
        except Away:
            pass
    must(errors > 0, "nonsense is answered by an error")
    return f"{errors} errors of one line"


def _resets(world: World) -> str:
    before, since = world.reader.connections, world.reader.count
    for _ in range(3):
        world.reader.reset()
        time.sleep(world.rng.uniform(0.3, 1.5))
    back = world.reader.wait_for(lambda event: event["type"] == "tags", since, 15)
    must(back is not None, "the reader goes on")
    must(not world.reader.repeated, "nothing comes twice", world.reader.repeated)
    return f"came back {world.reader.connections - before} times by since_seq"


def _clock(world: World) -> str:
    since = world.reader.count
    for shift_s in (3600.0, -7200.0, 0.0):
        world.program.ask("clock", seconds=shift_s)
        time.sleep(1)
    heard = world.reader.wait_for(lambda event: event["type"] == "tags", since, 10)
    must(heard is not None, "the session goes on")
    return "the session went on"


def kill(world: World) -> str:
    """kill -9 in the middle of everything, and a start with the same arguments."""
    since, runs = world.reader.count, len(world.reader.runs)
    world.program.kill()
    _check_lines(world.folder / "events.jsonl")
    began_s = time.monotonic()
    world.program = Program(world.arguments, world.folder)
    world.until_ready(START_S)
    back = world.reader.wait_for(lambda event: event["type"] == "tags", since + 1, START_S)
    must(back is not None, "the reader goes on by since_seq")
    must(len(world.reader.runs) == runs, "the numbering goes on", world.reader.runs)
    must(not world.reader.repeated, "nothing comes twice", world.reader.repeated)
    must(not world.reader.gaps, "nothing is gone", world.reader.gaps)
    alerts = [event["state"] for event in world.reader.events[since:] if event["type"] == "alert"]
    check_session(world.reader.events, complete=False, merged=True, degraded=True)
    return f"ready after {time.monotonic() - began_s:.1f} s, read on; alerts: {', '.join(alerts[:2]) or 'none open'}"


def ends_in_order(world: World, within_s: float = END_S) -> str:
    """SIGTERM: exit status 0 within 5 s, everything said, by files and by clients alike."""
    try:
        status, took_s = world.program.end(within_s)
    except subprocess.TimeoutExpired:
        must(False, f"it ends within {within_s:g} s of SIGTERM")
        raise
    must(status == 0, "exit status 0", status)
    time.sleep(1)
    world.lags.end()
    world.reader.end()
    _check_lines(world.folder / "events.jsonl", torn=False)
    check_session(world.reader.events, merged=True, degraded=True)
    must(not world.reader.repeated, "nothing comes twice", world.reader.repeated)
    return f"after {took_s:.1f} s; {len(world.reader.events)} events of `room` keep every invariant"


FAULTS: tuple[Fault, ...] = (
    Fault("nothing", "the words of the recording as they are without a server", _none),
    Fault("a step raises", "that window is left out or decoded again, the session goes on", _raises, gentle=False),
    Fault("six steps raise", "`degraded`, then `listening`", _raises_for_long, gentle=False),
    Fault("a step hangs", "`degraded` in 3 s, `listening` in 15 s, same session", _hangs, gentle=False),
    Fault("the worker's thread ends", "`degraded` in 3 s, `listening` in 15 s, same session", _ends, gentle=False),
    Fault("the device fails", "the same windows with a spare engine", _device),
    Fault("12 s of steps that take 1 s more", "lag levels off, ready again", _slow, gentle=False),
    Fault("the disk is full", "`degraded`, whole lines only, `listening` when there is room", _disk),
    Fault("a sender leaves mid-word", "its session ends: finals, cleared alerts, `stopped`", _leaves),
    Fault("a sender bursts", "slowed, nothing lost but what a gap tells", _bursts),
    Fault("a viewer stalls", "nobody else waits; closed", _stalls),
    Fault(f"{STRANGERS} wrong tokens", "none let in, 429", _strangers),
    Fault("300 sockets", "who was there is served", _crowd),
    Fault("no descriptors left", "503 for new ones, who was there is served", _no_files),
    Fault("nonsense", "one error of one line each", _nonsense),
    Fault("connections are reset", "`since_seq`: nothing lost, nothing twice", _resets),
    Fault("the clock jumps", "nothing", _clock),
)
KILL = Fault("kill -9", "files valid, same numbering, alerts cleared, readers go on by since_seq", kill, gentle=False)
END = Fault("SIGTERM", "exit 0 in 5 s, `stopped`, every invariant on the whole log", ends_in_order)

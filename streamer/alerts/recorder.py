"""The history as a target of a delivery: it writes down alerts and marks, and the sound around where people want that.

    capture thread ──► ClipRing (the last seconds) ◄── history thread: cuts and writes WAV files

The recorder runs in its delivery's thread, so that a slow disk delays nobody. Marks come from the server's thread and
wait here, of each alert only the newest; what is on the disk is then told to `on_marks`, also what other programs
marked. The ring keeps references to blocks, nothing else. Positions are those of the capture clock: lost samples count.
"""

import contextlib
import logging
import os
import threading
import time
import wave
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.alerts.delivery import NotDeliveredError, Target
from streamer.alerts.history import AlertHistory, Verdict
from streamer.alerts.parcels import AlertKey, Parcel, without_words
from streamer.audio.block import AudioBlock
from streamer.events import SAMPLE_RATE, Alert
from streamer.settings.deliveries import HistorySettings, make_private

log = logging.getLogger(__name__)

LOOK_S = 0.5  # how often we look whether the sound after an alert is there
MARKS_LOOK_S = 2.0  # how often we look for marks that other programs made
MAX_KNOWN = 10_000  # alerts of this run that can be marked from the pages; the oldest go
MAX_RINGS = 64  # streams whose sound is kept; the oldest that ended go
KEPT_SAMPLES = 45 * SAMPLE_RATE  # of sound: an alert may be raised a while after its onset
FULL_SCALE = 32767


class ClipRing:
    """The last seconds of one stream. Full-queue rule: the oldest blocks go. For several threads."""

    def __init__(self, kept_samples: int = KEPT_SAMPLES, start_sample: int = 0) -> None:
        self._kept = kept_samples
        self._blocks: deque[tuple[int, NDArray[np.float32]]] = deque()  # first sample, float32 [n]
        self._lock = threading.Lock()
        self._end = start_sample
        self.ended = False

    @property
    def end(self) -> int:
        """The sample after the last one."""
        return self._end

    def push(self, block: AudioBlock) -> None:
        """Take a block of the source."""
        with self._lock:
            start = self._end + block.lost_samples
            if len(block.samples):
                self._blocks.append((start, block.samples))
            self._end = start + len(block.samples)
            while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= self._end - self._kept:
                self._blocks.popleft()

    def cut(self, start: int, end: int) -> NDArray[np.float32]:
        """What there is of samples `start` to `end`, float32 [n]; zeros where some were lost in between."""
        with self._lock:
            blocks = [(first, block) for first, block in self._blocks if first < end and first + len(block) > start]
        if not blocks:
            return np.zeros(0, np.float32)
        first = max(start, blocks[0][0])
        last = min(end, blocks[-1][0] + len(blocks[-1][1]))
        found = np.zeros(last - first, np.float32)
        for position, block in blocks:
            begin, stop = max(first, position), min(last, position + len(block))
            found[begin - first : stop - first] = block[begin - position : stop - position]
        return found


@dataclass(frozen=True, slots=True)
class _Due:
    """A clip to cut when its sound is there."""

    number: int
    ring: ClipRing
    start: int
    end: int


class Recorder(Target):
    """Writes `history`. `wall`: Unix time; `wake`: has `tick` called soon; `on_marks`: told of a session's marks.

    `spoken`: the rules for words, of whose alerts only the words are kept back.
    """

    name = "history"

    def __init__(
        self,
        history: AlertHistory,
        settings: HistorySettings,
        wall: Callable[[], float] = time.time,
        *,
        spoken: Collection[str] = (),
    ) -> None:
        self._history, self._settings, self._wall, self._spoken = history, settings, wall, spoken
        self.tick_s = LOOK_S if settings.clips else MARKS_LOOK_S
        self._lock = threading.Lock()
        self._rings: dict[str, ClipRing] = {}
        self._due: list[_Due] = []
        self._numbers: dict[AlertKey, int | None] = {}  # can be marked: number in the history, None: not yet
        self._waiting: dict[AlertKey, Verdict | None] = {}  # marks to be written
        self._stamp = history.stamp()
        self._told: dict[str, tuple[list[int], list[int]]] = {}
        self.wake: Callable[[], None] = lambda: None
        self.on_marks: Callable[[str, list[int], list[int]], None] = lambda session, false, true: None

    def expect(self, alert: Alert) -> None:
        """This alert can be marked from now on, if it is kept; any thread."""
        if not self._settings.keeps(alert):
            return
        with self._lock:
            self._numbers.setdefault((alert.session, alert.id))
            if len(self._numbers) > MAX_KNOWN:
                del self._numbers[next(iter(self._numbers))]

    def mark(self, id: int, session: str | None, *, false_alarm: bool) -> None:
        """Have a mark written; any thread, never waits. LookupError: the session (None: the newest) has no such alert.

        `false_alarm` False takes a mark back.
        """
        with self._lock:
            session = session or next((name for name, _ in reversed(self._numbers)), None)
            key = (session or "", id)
            if key not in self._numbers:
                raise LookupError(f"session {session!r} has no alert {id} that could be marked")
            self._waiting[key] = "false" if false_alarm else None
        self.wake()

    def clips(self, session: str, start_sample: int = 0) -> ClipRing | None:
        """Where the session's blocks are to go, so that its last seconds are kept; None: clips are not wanted."""
        if not self._settings.clips:
            return None
        with self._lock:
            ended = [name for name, ring in self._rings.items() if ring.ended]
            for name in ended[: max(0, len(self._rings) + 1 - MAX_RINGS)]:
                del self._rings[name]
            ring = self._rings[session] = ClipRing(start_sample=start_sample)
        return ring

    def send(self, parcel: Parcel) -> None:
        """Write a change of an alert down. Raises NotDeliveredError."""
        alert = parcel.alert if self._settings.include_text else without_words(parcel.alert, self._spoken)
        try:
            number = self._history.append(alert, parcel.made_at)
        except OSError as error:
            raise NotDeliveredError(error.strerror or type(error).__name__) from None
        with self._lock:
            if parcel.alert_key in self._numbers:
                self._numbers[parcel.alert_key] = number
        if parcel.alert.state == "raised":
            self._plan(number, parcel.alert)

    def tick(self) -> None:
        """Write the marks, and the clips whose sound is there. Raises NotDeliveredError."""
        self._write_marks()
        self._read_marks()
        ready = [due for due in self._due if due.ring.end >= due.end or due.ring.ended]
        self._due = [due for due in self._due if due not in ready]
        for due in ready:
            self._cut(due)

    def close(self) -> None:
        """Write the last marks, and what there is of the clips that still wait for sound."""
        with contextlib.suppress(NotDeliveredError):
            self._write_marks()
        for due in self._due:
            self._cut(due)
        self._due = []

    def _write_marks(self) -> None:
        with self._lock:
            waiting = [(key, verdict, self._numbers.get(key, 0)) for key, verdict in self._waiting.items()]
        for key, verdict, number in waiting:
            if number is None:  # not written yet: the disk has trouble
                continue
            try:
                if number:
                    self._history.add_mark(number, verdict, self._wall())
            except OSError as error:
                log.warning("history: a mark is not written: %s; trying again", error.strerror)
                raise NotDeliveredError(error.strerror or type(error).__name__) from None
            with self._lock:
                if self._waiting.get(key, verdict) == verdict:
                    self._waiting.pop(key, None)

    def _read_marks(self) -> None:
        """Tell of the sessions whose marks changed on the disk, whoever wrote them."""
        stamp = self._history.stamp()
        if stamp == self._stamp:
            return
        verdicts = {entry.number: entry.verdict for entry in self._history.read()}
        told: dict[str, tuple[list[int], list[int]]] = {}
        with self._lock:
            for (session, id), number in self._numbers.items():
                false, true = told.setdefault(session, ([], []))
                if (verdict := verdicts.get(number or 0)) is not None:
                    (true if verdict == "true" else false).append(id)
        for session, marks in told.items():
            if marks != self._told.get(session, ([], [])):
                self.on_marks(session, *marks)
        self._stamp, self._told = stamp, told

    def _plan(self, number: int, alert: Alert) -> None:
        with self._lock:
            ring = self._rings.get(alert.session)
        if ring is None:
            return
        start = round((alert.start - self._settings.clip_before_s) * SAMPLE_RATE)
        end = round((alert.audio_t + self._settings.clip_after_s) * SAMPLE_RATE)
        self._due.append(_Due(number, ring, max(0, start), end))

    def _cut(self, due: _Due) -> None:
        samples = due.ring.cut(due.start, due.end)
        if not len(samples):
            return
        folder = self._history.path.parent / "clips"
        try:
            write_wav(folder / f"{due.number:06d}.wav", samples)
            limit_folder(folder, round(self._settings.clips_max_mb * 1e6))
            self._history.add_clip(due.number, f"clips/{due.number:06d}.wav", self._wall())
        except OSError as error:
            raise NotDeliveredError(error.strerror or type(error).__name__) from None


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Write float32 [n] in -1..1 as 16-bit mono at 16 kHz, for this user only. Raises OSError."""
    make_private(path.parent)
    pcm = np.round(np.clip(np.nan_to_num(samples), -1, 1) * FULL_SCALE).astype("<i2")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes(pcm.tobytes())


def limit_folder(folder: Path, max_bytes: int) -> int:
    """Delete the oldest clips until the others fit; how many went. Raises OSError."""
    clips = sorted(folder.glob("*.wav"), key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in clips) - max_bytes
    gone = 0
    for path in clips[:-1]:
        if excess <= 0:
            break
        excess -= path.stat().st_size
        path.unlink()
        gone += 1
    return gone

"""Where sound comes from, as the command line names it: a file, a pipe, the bundled demo, a microphone.

Files are streamed in real time or as fast as they go, or read whole. Standard input or a named pipe gives raw samples,
or a container (WAV, Ogg, WebM, MP3, MP4 …), which its first bytes tell. Containers are decoded as they come. Only an
MP4 whose table of contents stands at its end has to be there as a whole before anything can be heard: it is put aside
in a temporary file.
"""

import logging
import os
import select
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock, Clock, Pacer, Source, empty
from streamer.audio.containers import LinkReader, WholeFile, container_of, wants
from streamer.audio.microphone import STALL_S, Microphone
from streamer.audio.resample import BlockMaker, mix_to_mono
from streamer.audio.track import AudioTrack
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

_log = logging.getLogger(__name__)

_DEMOS = {"nano": "demo.flac"}  # by model: its own, with words that it knows
_VOICES = "demo_voices.ogg"  # for every other: people
_READ_BYTES = BLOCK_SAMPLES * 2
_COPY_BYTES = 1 << 20
_BOX_HEADER_BYTES = 16  # of MP4: size, type, and the size again where it needs 64 bits
_HEAD_START = 1.02  # how much faster than the clock a pipe may run in real time
_RIGHT = "raw s16le 16 kHz mono PCM or a file such as wav, ogg, webm, mp3"


def open_source(
    device: int | str | None = None,
    input: str | None = None,
    *,
    realtime: bool = True,
    stall_s: float = STALL_S,
    clock: Clock | None = None,
    track: int | None = None,
    label: str = "--input",
) -> Source:
    """The source that `--device` or `--input` names; without either the default microphone.

    `realtime` False reads files and stdin as fast as they go; a microphone always is in real time. `stall_s`: silence
    of the device after which it is looked for again. `track`: which audio track of a file, from 1. Raises InputError of
    one line that names the option, or `label` where something else gave the input.
    """
    if input is None and track is not None:
        raise InputError(f"--track {track}: a microphone has no tracks; give it with --input FILE")
    if input is None:
        return Microphone(device, clock=clock, stall_s=stall_s)
    if device is not None:
        raise InputError("--device and --input: give only one of them")
    if not input:
        raise InputError(f"{label.rstrip(':')}: is empty; give an audio or video file, - for standard input, or demo")
    if input == "-":
        return StdinSource(realtime=realtime, clock=clock, track=track, label=label)
    path = demo_path("", label) if input == "demo" else input
    if is_pipe(path):
        return StdinSource(path=path, realtime=realtime, clock=clock, track=track, label=label)
    return FileSource(path, realtime=realtime, clock=clock, track=track, label=label)


class FileSource:
    """One audio track of a file, decoded as it goes. `realtime`: each block waits until it would have sounded.

    Raises InputError when the file is missing, damaged from the start, or has no sound.
    """

    def __init__(
        self,
        path: str,
        *,
        realtime: bool,
        clock: Clock | None = None,
        label: str = "--input",
        track: int | None = None,
    ) -> None:
        """`label` names the file in errors: the option that gave it. `track`: as in `AudioTrack`."""
        self.name, self._where = Path(path).name, f"{label} {path}"
        self.live = realtime
        self._track = AudioTrack(path, label, track)
        self.duration_s = self._track.duration_s
        self._closed = threading.Event()
        self._pacer = Pacer(clock or Clock(), self._closed, SAMPLE_RATE if realtime else inf)

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks of at most 50 ms; once. What cannot be decoded is a loss or a `degraded` block, never an exception."""
        heard = 0
        try:
            for block in track_blocks(self._track):
                if not self._pacer.let_go(block):
                    return
                heard += len(block.samples)
                yield block
            if not heard:
                _log.warning("%s: has no sound in it", self._where)
        finally:
            self._track.close()

    def close(self) -> None:
        """End `blocks`."""
        self._closed.set()


class StdinSource:
    """Standard input or a named pipe: raw s16le 16 kHz mono PCM, or a container. Ends with it or when closed."""

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        realtime: bool,
        clock: Clock | None = None,
        track: int | None = None,
        label: str = "--input",
        path: str = "-",
    ) -> None:
        """`path`: of a named pipe, into which somebody may write later. `track`: as in `AudioTrack`.

        `label` (the option that gave it) names it in errors. Raises InputError.
        """
        self.name = "stdin" if path == "-" else os.path.basename(path)
        self.live = realtime
        self._label, self._path, self._wanted = label, path, track
        self._where, self._what = f"{label} {path}", "standard input" if path == "-" else "the pipe"
        self._closed = threading.Event()
        self._owned = path != "-"  # whether the stream is ours to close
        try:
            self._stream = self._pipe(path) if self._owned else stream or sys.stdin.buffer  # kept open while we read
            self._fd = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            raise InputError(f"{self._where}: {self._what} is closed; pipe {_RIGHT} into it") from None
        if os.isatty(self._fd):
            raise InputError(f"{self._where}: {self._what} is a terminal; pipe {_RIGHT} into it")
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._pacer = Pacer(clock or Clock(), self._closed, SAMPLE_RATE * _HEAD_START if realtime else inf)

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks of at most 50 ms, as the bytes come. Raises InputError when the pipe cannot be read or decoded."""
        heard = 0
        try:
            head = self._head()
            container = container_of(head)
            for block in self._raw(head) if container is None else self._contained(head, container):
                if not self._pacer.let_go(block):
                    return
                heard += len(block.samples)
                yield block
            if not (heard or self._closed.is_set()):
                _log.warning("%s: has no sound in it", self._where)
        finally:
            self._release()

    def close(self) -> None:
        """End `blocks`; the standard input itself stays open."""
        with self._lock:
            if not self._closed.is_set():
                self._closed.set()
                os.write(self._wake_write, b"x")

    def _pipe(self, path: str) -> BinaryIO:
        try:
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else it waits here for a writer
            os.set_blocking(pipe, True)
        except OSError as error:
            raise InputError(f"{self._where}: cannot be read: {error.strerror}") from None
        return os.fdopen(pipe, "rb")

    def _raw(self, head: bytes) -> Iterator[AudioBlock]:
        if self._wanted is not None:
            raise InputError(f"--track {self._wanted}: {self._where} is raw PCM, which has no tracks; leave it out")
        data = head
        while True:
            if whole := min(len(data) // 2 * 2, _READ_BYTES):
                yield AudioBlock(mix_to_mono(np.frombuffer(data[:whole], "<i2")[:, None]))
                data = data[whole:]
            elif more := self._read(_READ_BYTES):
                data += more
            else:  # half a sample may be left
                return

    def _contained(self, head: bytes, container: str) -> Iterator[AudioBlock]:
        pipe = LinkReader(self._read, container, head)
        with tempfile.TemporaryFile() as aside:
            reader = self._movie(pipe, aside) if container == "mov" else pipe
            if self._closed.is_set():
                return
            track = AudioTrack(self._path, self._label, self._wanted, reader)
            try:
                yield from track_blocks(track)
            finally:
                track.close()

    def _movie(self, reader: LinkReader, aside: BinaryIO) -> LinkReader | WholeFile:
        """An MP4 or MOV as it comes if its contents are told first; else all of it, put `aside`."""
        boxes = b""
        while (kind := _first_telling_box(boxes)) is None and (data := reader.read(_COPY_BYTES)):
            boxes += data
        if kind != b"mdat":
            return LinkReader(self._read, reader.container, boxes)
        try:
            aside.write(boxes)
            while data := reader.read(_COPY_BYTES):
                aside.write(data)
            aside.seek(0)
        except OSError as error:
            raise InputError(
                f"{self._where}: this MP4 tells at its end what is in it and cannot be put aside: {error.strerror}; "
                "give the file itself"
            ) from None
        return WholeFile(aside, reader.container)

    def _head(self) -> bytes:
        """The first bytes, enough to know what they are."""
        head, ended = b"", False
        while (missing := wants(head, ended=ended) - len(head)) > 0:
            data = self._read(missing)
            head, ended = head + data, not data
        return head

    def _release(self) -> None:
        with self._lock:
            if self._wake_read >= 0:
                self._closed.set()
                os.close(self._wake_read)
                os.close(self._wake_write)
                if self._owned:
                    self._stream.close()
                self._wake_read = self._wake_write = -1

    def _read(self, size: int) -> bytes:
        """At most `size` next bytes, none at the end or once closed."""
        try:
            select.select([self._fd, self._wake_read], [], [])
            return b"" if self._closed.is_set() else os.read(self._fd, size)
        except OSError as error:
            raise InputError(f"{self._where}: {self._what} cannot be read: {error.strerror}") from None


def is_pipe(path: str) -> bool:
    """Whether `path` is a named pipe."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _first_telling_box(data: bytes) -> bytes | None:
    """`moov` or `moof` where an MP4's contents come before its samples, else `mdat`; None: more bytes are needed."""
    at = 0
    while at + _BOX_HEADER_BYTES <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in (b"moov", b"moof", b"mdat"):
            return kind
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return b"mdat"  # nothing that we know: let all of it be looked at
        at += size
    return None


def read_audio(path: str) -> NDArray[np.float32]:
    """A whole file as float32 [n], 16 kHz mono; what is broken inside is zeros. Raises InputError as `FileSource`."""
    track = AudioTrack(path, label="file")
    try:
        parts = [
            part for block in track_blocks(track) for part in (np.zeros(block.lost_samples, np.float32), block.samples)
        ]
    finally:
        track.close()
    return np.concatenate(parts) if parts else empty()


def demo_path(model: str = "nano", label: str = "--input") -> str:
    """The bundled demo that fits a model. Raises InputError, with `label` in front, when this installation has none."""
    path = Path(__file__).parent.parent / "data" / _DEMOS.get(model, _VOICES)
    if not path.is_file():
        raise InputError(f"{label} demo: {path} is missing; install Streamer again, or give a file")
    return str(path)


def track_blocks(track: AudioTrack) -> Iterator[AudioBlock]:
    """Everything in `track`, in blocks of at most `BLOCK_SAMPLES`."""
    maker = BlockMaker(track.rate)
    for piece in track.pieces():
        if piece.notice:
            yield AudioBlock(empty(), notice=piece.notice)
        if piece.rate != maker.rate:
            yield from _cut(maker.change_rate(piece.rate))
        if piece.lost_frames:
            yield from _cut(maker.lost(piece.lost_frames, piece.complaint))
        elif piece.complaint:
            yield AudioBlock(empty(), reason=piece.complaint, state="degraded")
        yield from _cut(maker.push(piece.samples))
    yield from _cut(maker.finish())


def _cut(blocks: Iterator[AudioBlock]) -> Iterator[AudioBlock]:
    """The same sound in blocks of at most `BLOCK_SAMPLES`."""
    for block in blocks:
        if len(block.samples) <= BLOCK_SAMPLES:
            yield block
            continue
        for at in range(0, len(block.samples), BLOCK_SAMPLES):
            yield AudioBlock(block.samples[at : at + BLOCK_SAMPLES])

"""The first audio track of a media file, decoded piece by piece with PyAV (FFmpeg's libraries, bundled in its wheel).

What is broken inside is skipped; how much is missing follows from the timestamps around the hole. A file that ends
before its header says so gives what there is, and says so too.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard
from numpy.typing import NDArray

from streamer.audio.pcm import mix_to_mono
from streamer.errors import InputError

_JITTER_S = Fraction(1, 50)  # containers round timestamps, Matroska to 1 ms: less than this is no hole
_LONGEST_HOLE_S = 600  # a longer jump is a timestamp that wrapped around or was reset, not lost sound
_SHORT_S = 0.5  # ending this much before the announced end is a truncation, not rounding or encoder padding
_DEMUX_ERRORS = 50  # so many read errors in a row end the file


@dataclass(frozen=True, slots=True)
class Piece:
    """Mono float32 [n] at `rate` Hz, after `lost_frames` native samples that could not be read.

    `complaint` says in one line what is wrong with the file here, or nothing.
    """

    samples: NDArray[np.float32]
    rate: int
    lost_frames: int = 0
    complaint: str = ""


class AudioTrack:
    """One open file. Raises InputError, with `label` (the option) in front, when it has no sound to give."""

    def __init__(self, path: str, label: str = "--input") -> None:
        self._path, self._where = path, f"{label} {path}"
        self._container = _open(path, self._where)
        if not self._container.streams.audio:
            self._container.close()
            raise InputError(f"{self._where}: has no audio track; give a file that has one")
        self._stream: AudioStream = self._container.streams.audio[0]
        for other in self._container.streams:
            if other is not self._stream:
                other.discard = Discard.all
        self._broken = 0
        self._heard = Fraction(0)  # seconds decoded or counted as lost so far
        self._origin: Fraction | None = None  # timestamp, in seconds, of the first sample
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        if self._first is None and self._broken:
            self._container.close()
            raise InputError(f"{self._where}: is damaged, nothing in it can be decoded; give an intact audio file")

    @property
    def rate(self) -> int:
        """The native sample rate, in Hz."""
        return self._first.sample_rate if self._first is not None else self._stream.codec_context.sample_rate

    @property
    def duration_s(self) -> float | None:
        """How long the file says it is, in seconds; None if it does not say."""
        return None if self._container.duration is None else self._container.duration / 1_000_000

    def pieces(self) -> Iterator[Piece]:
        """Everything that can be decoded, in order; once."""
        if self._first is not None:
            yield self._piece(self._first)
            for frame in self._frames:
                yield self._piece(frame)
        complaint = self._ending()
        if complaint:
            yield Piece(np.zeros(0, np.float32), self.rate, 0, complaint)

    def close(self) -> None:
        """Let go of the file; only by the thread that reads."""
        self._container.close()

    def _decoded(self) -> Iterator[av.AudioFrame]:
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._broken += 1

    def _packets(self) -> Iterator["av.Packet[AudioStream]"]:
        errors = 0
        packets = self._container.demux(self._stream)
        while errors < _DEMUX_ERRORS:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self._broken += 1
                errors += 1
                packets = self._container.demux(self._stream)
            else:
                errors = 0
                yield packet

    def _piece(self, frame: av.AudioFrame) -> Piece:
        rate = frame.sample_rate
        lost, complaint = self._hole(frame)
        if self._broken and not lost:
            complaint = complaint or f"{self._name()}: skipped {self._broken} broken packets"
        self._broken = 0
        self._heard += Fraction(lost + frame.samples, rate)
        return Piece(_mono(frame), rate, lost, complaint)

    def _hole(self, frame: av.AudioFrame) -> tuple[int, str]:
        """Native samples that are missing before `frame`, by its timestamp, and what to say about it."""
        if frame.pts is None or frame.time_base is None:
            return 0, ""
        stamp = frame.pts * frame.time_base
        if self._origin is None:
            start = self._stream.start_time if self._broken else None
            self._origin = stamp if start is None or self._stream.time_base is None else start * self._stream.time_base
        ahead = stamp - self._origin - self._heard
        if abs(ahead) <= _JITTER_S:
            return 0, ""
        if 0 < ahead <= _LONGEST_HOLE_S:
            return round(ahead * frame.sample_rate), f"{self._name()}: damaged here, or recorded with a pause"
        self._origin = stamp - self._heard
        return 0, f"{self._name()}: its timestamps jump by {float(ahead):.1f} s" if ahead > 0 else ""

    def _ending(self) -> str:
        """What to say about the end of the file."""
        heard, announced = float(self._heard), self._announced_s()
        if announced is not None and announced - heard > _SHORT_S:
            return f"{self._name()}: ends early, {heard:.1f} of {announced:.1f} s are there"
        if _is_cut(self._path):
            return f"{self._name()}: ends early, after {heard:.1f} s; the file is cut off"
        return f"{self._name()}: skipped {self._broken} broken packets" if self._broken else ""

    def _announced_s(self) -> float | None:
        """How long the header says the track is, in seconds."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / av.time_base
        return None

    def _name(self) -> str:
        return os.path.basename(self._path)


def _open(path: str, where: str) -> InputContainer:
    if not os.path.exists(path):
        raise InputError(f"{where}: no such file; give an audio or video file, - for standard input, or demo")
    if os.path.isdir(path):
        raise InputError(f"{where}: is a directory; give one audio or video file")
    try:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise InputError(f"{where}: is empty; give an audio or video file")
        # Local files only: a playlist must not make us fetch what it names.
        options = {"protocol_whitelist": "file"}
        return av.open(os.path.abspath(path), options=options, metadata_errors="replace")
    except PermissionError:
        raise InputError(f"{where}: may not be read; check its permissions") from None
    except (av.FFmpegError, OSError):
        raise InputError(
            f"{where}: is damaged or no audio or video file; give wav, flac, mp3, ogg, m4a, mp4 …"
        ) from None


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The mean of the channels, float32 [n]."""
    data = frame.to_ndarray()
    return mix_to_mono(data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels))


def _is_cut(path: str) -> bool:
    """Whether the bytes of a WAV or Ogg file stop before its own end marks (FFmpeg does not tell)."""
    if not os.path.isfile(path):
        return False
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        file.seek(max(0, size - 65_536))
        tail = file.read()
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        announced = int.from_bytes(head[4:8], "little") + 8
        return size + 2 < announced < 0x7FFF_F000  # above: written to a pipe, length unknown
    if head[:4] == b"OggS":
        page = tail.rfind(b"OggS")  # RFC 3533: byte 5 of a page's header holds its flags, 4 is the end of the stream
        return page < 0 or page + 5 >= len(tail) or not tail[page + 5] & 4
    return False

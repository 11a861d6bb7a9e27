"""One media file, or one link of a chained one: the sound of its chosen audio track, and what is missing in it.

Decoded piece by piece with PyAV (FFmpeg's libraries, bundled in its wheel). What is broken inside is skipped; how much
is missing follows from the timestamps around the hole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from streamer.audio.choice import Choice
from streamer.audio.mixing import Mixer
from streamer.audio.timeline import Evidence, Missing, Timeline
from streamer.errors import InputError

SHORT_S = 0.5  # ending this much before the announced end is a truncation, not rounding or encoder padding
_LATEST_BEGIN_S = 60  # a clock that should begin at 0 and begins later is that of a piece cut out of something
_DEMUX_ERRORS = 50  # so many read errors in a row end the file
_UNEXPLAINED_BYTES = 512  # more between two packets than a container's headers take
_SUSPICIOUS_FRAMES = 3  # so long damage in the bytes may show in the timestamps

_UNSTAMPED = frozenset({"mp3", "aac", "ac3", "eac3", "loas", "amr", "dts"})  # what they say of times follows from sizes
_FROM_ZERO = frozenset({"mov", "matroska"})  # formats whose clock begins at 0, whatever sounds first
_LEAVES_OUT_SILENCE = frozenset({"opus", "libopus", "speex", "amrnb", "amrwb", "amr_nb", "amr_wb", "silk"})
_QUIET, _QUIETER = (
    0.01,
    0.1,
)  # root mean square, absolute and beside the loudest of late, before a pause that is not sent
_LOUDEST_KEEPS = 0.999  # of it a frame


@dataclass(frozen=True, slots=True)
class Piece:
    """Mono float32 [n] at `rate` Hz, after `lost_frames` native samples that could not be read.

    `complaint` says in one line what is wrong with the file here, or nothing; `notice` what is no trouble.
    """

    samples: NDArray[np.float32]
    rate: int
    lost_frames: int = 0
    complaint: str = ""
    notice: str = ""


class Link:
    """`container` is this object's from here on. `further`: another link came before, its clock begins anew.

    `damage` tells the byte offsets that a scan found broken. Raises InputError, with `where` (option and file) in
    front, when nothing can be decoded.
    """

    def __init__(
        self,
        container: InputContainer,
        choice: Choice,
        name: str,
        where: str,
        damage: Callable[[], list[int]] = list,
        *,
        further: bool = False,
    ) -> None:
        self._container, self._name, self._damage = container, name, damage
        self._format = container.format.name
        self._stream: AudioStream = choice.stream(container)
        self._all_packets = self._format.startswith("matroska")  # all are read anyway, and account for the bytes
        for other in container.streams:
            if other is not self._stream and not self._all_packets:
                other.discard = Discard.all
        self._broken = self._suspicious = self._seen_damage = 0
        self._block: int | None = None  # where the last packet's block of bytes begins, which may hold several packets
        self._accounted = 0  # where what is known of it ends
        self._mixer: Mixer | None = None
        self._pauses = self._stream.codec_context.name in _LEAVES_OUT_SILENCE
        self._loudest, self._last_level = 0.0, 0.0
        self._timeline = Timeline(self._origin(further), stamped=self._format not in _UNSTAMPED)
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        if self._first is None and self._broken:
            container.close()
            raise InputError(f"{where}: is damaged, nothing in it can be decoded; give an intact audio file")

    @property
    def rate(self) -> int:
        """The native sample rate, in Hz."""
        return self._first.sample_rate if self._first is not None else self._stream.codec_context.sample_rate

    @property
    def duration_s(self) -> float | None:
        """How long the file says it is, in seconds; None if it does not say."""
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def heard_s(self) -> float:
        """Seconds of the file's clock so far."""
        return float(self._timeline.heard)

    def pieces(self) -> Iterator[Piece]:
        """Everything that can be decoded, in order; once."""
        if self._first is not None:
            yield from self._placed(self._first)
            for frame in self._frames:
                yield from self._placed(frame)

    def ending(self, *, cut: bool) -> str:
        """What to say about the end of the file. `cut`: its bytes stop before its own end marks."""
        heard, announced = float(self._timeline.heard - self._timeline.lead), self._announced_s()
        if announced is not None and announced - heard > SHORT_S:
            return f"{self._name}: ends early, {heard:.1f} of {announced:.1f} s are there"
        if cut:
            return f"{self._name}: ends early, after {heard:.1f} s; the file is cut off"
        return f"{self._name}: skipped {self._broken} broken packets" if self._broken else ""

    def close(self) -> None:
        """Let go of the file; only by the thread that reads."""
        self._container.close()

    def _origin(self, further: bool) -> Fraction | None:
        """When the container's clock begins, which all of its tracks share; None: with our first sound."""
        start = self._container.start_time
        if start is None or self._format in _UNSTAMPED:
            return None
        begin = Fraction(start, av.time_base)
        if self._format.split(",")[0] in _FROM_ZERO and not further and 0 <= begin <= _LATEST_BEGIN_S:
            return Fraction(0)
        return begin

    def _decoded(self) -> Iterator[av.AudioFrame]:
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self._broken += 1

    def _packets(self) -> Iterator["av.Packet[AudioStream]"]:
        errors = 0
        while errors < _DEMUX_ERRORS:
            packets = self._container.demux() if self._all_packets else self._container.demux(self._stream)
            try:
                for packet in packets:
                    errors = 0
                    self._account_for(packet)
                    if packet.stream is self._stream:
                        yield cast("av.Packet[AudioStream]", packet)
                return
            except av.FFmpegError:
                self._broken += 1
                errors += 1

    def _account_for(self, packet: "av.Packet[Any]") -> None:
        """Note damage that the demuxer skipped without an error: bytes that belong to no packet, broken pages."""
        damaged = packet.is_corrupt
        at = packet.pos
        if at is not None and at >= 0:
            if self._all_packets and self._block is not None and at != self._block:
                damaged |= at - self._accounted > _UNEXPLAINED_BYTES
            self._accounted = packet.size + (self._accounted if at == self._block else at)
            self._block = at
            passed = sum(offset <= at for offset in self._damage())
            damaged |= passed > self._seen_damage
            self._seen_damage = passed
        if damaged:
            self._suspicious = _SUSPICIOUS_FRAMES

    def _placed(self, frame: av.AudioFrame) -> Iterator[Piece]:
        """The frame behind what is missing before it."""
        rate = frame.sample_rate
        stamp = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        pause = self._pauses and self._last_level <= max(_QUIET, _QUIETER * self._loudest)
        before = self._timeline.place(stamp, frame.samples, rate, Evidence(self._broken, self._suspicious > 0, pause))
        complaint, notice = before.complaint and f"{self._name}: {before.complaint}", before.notice
        lost = before.frames if before.missing is Missing.LOST else 0
        if self._broken and not lost:
            complaint = complaint or f"{self._name}: skipped {self._broken} broken packets"
        self._broken, self._suspicious = 0, 0 if lost else max(0, self._suspicious - 1)
        if before.missing is Missing.SILENCE:
            for at in range(0, before.frames, rate):
                yield Piece(np.zeros(min(rate, before.frames - at), np.float32), rate)
        if self._mixer is None or self._mixer.rate != rate:
            self._mixer = Mixer(rate)
        mono = self._mixer.push(self._channels(frame))
        told = notice and f"{self._name}: {notice}"
        yield Piece(mono, rate, lost, complaint, told or self._mixer.take_notice())

    def _channels(self, frame: av.AudioFrame) -> NDArray[np.generic]:
        """Frames [n, channels] as they were decoded; how loud they are is noted where pauses may follow."""
        data = frame.to_ndarray()
        frames = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
        if self._pauses and frames.dtype.kind == "f":
            last = frames[-max(1, frame.sample_rate // 50) :].astype(np.float64)
            self._last_level = float(np.sqrt(np.square(last).mean())) if last.size else 0.0
            self._loudest = max(self._loudest * _LOUDEST_KEEPS, self._last_level)
        return frames

    def _announced_s(self) -> float | None:
        """How long the header says the sound is, in seconds."""
        if self._format in _UNSTAMPED and not self._counts_frames():
            return None
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        others = [one for one in self._container.streams if not one.disposition & Disposition.attached_pic]
        if self._container.duration is None or len(others) > 1:
            return None
        begin = self._timeline.origin if self._all_packets else None  # Matroska's ends on its clock
        return self._container.duration / av.time_base - float((begin or 0) + self._timeline.lead)

    def _counts_frames(self) -> bool:
        """Whether an MP3 says how long it is (a Xing or VBRI frame), so that FFmpeg need not guess by its size."""
        return self._format == "mp3" and self._stream.start_time not in (None, 0)

"""One link of a file or pipe: its frames decoded, and laid on the clock of the file with what is missing between them.

Decoded piece by piece with PyAV (FFmpeg's libraries, bundled in its wheel). What is broken inside is skipped; how much
is missing follows from the timestamps around the hole (`Timeline`, pure: exact fractions of seconds). The clock begins
at the file's `origin`, where nothing need sound yet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from streamer.audio.resample import Mixer
from streamer.errors import InputError

_SHORT_S = 0.5  # ending this much before the announced end is a truncation, not rounding or encoder padding
_LATEST_BEGIN_S = 60  # a clock that should begin at 0 and begins later is that of a piece cut out of something
_DEMUX_ERRORS = 50  # so many read errors in a row end the file
_UNEXPLAINED_BYTES = 512  # more between two packets than a container's headers take
_SUSPICIOUS_FRAMES = 3  # so long damage in the bytes may show in the timestamps

_UNSTAMPED = frozenset({"mp3", "aac", "ac3", "eac3", "loas", "amr", "dts"})  # what they say of times follows from sizes
_FROM_ZERO = frozenset({"mov", "matroska"})  # formats whose clock begins at 0, whatever sounds first
_LEAVES_OUT_SILENCE = frozenset({"opus", "libopus", "speex", "amrnb", "amrwb", "amr_nb", "amr_wb", "silk"})
_QUIET, _QUIETER = 0.01, 0.1  # before a pause that is not sent: root mean square, or its share of the loudest of late
_LOUDEST_KEEPS = 0.999  # of it a frame

JITTER_S = Fraction(1, 50)  # containers round timestamps, Matroska to 1 ms: less than this is no hole
_EARLY_S = Fraction(1, 5)  # frames that come so much before their turn begin a new clock; less is jitter
_LONGEST_HOLE_S = 600  # a longer jump is a timestamp that wrapped around or was reset, not lost sound
_LATEST_LEAD_S = 86_400
_DRIFT_S = Fraction(1, 10)  # of silence put in for drift, of which people are told once

DAMAGED = "damaged here, or recorded with a pause"
DRIFTS = "its clock and its samples drift apart; a little silence keeps the times right"


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
    """One open container and one of its audio tracks, by number from 1; `container` is this object's from now on.

    `further`: another link came before, its clock begins anew.

    `damage` tells the byte offsets that a scan found broken. Raises InputError, with `where` (option and file) in
    front, when nothing can be decoded.
    """

    def __init__(
        self,
        container: InputContainer,
        number: int,
        name: str,
        where: str,
        damage: Callable[[], list[int]] = list,
        *,
        further: bool = False,
    ) -> None:
        self._container, self._name, self._damage = container, name, damage
        self._format = container.format.name
        tracks = container.streams.audio
        self._stream: AudioStream = tracks[min(number, len(tracks)) - 1]  # a further link may have fewer
        damaged = InputError(f"{where}: is damaged, nothing in it can be decoded; give an intact audio file")
        if self._stream.codec_context is None:  # a codec that damage made out of another one
            raise damaged
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
            raise damaged

    @property
    def rate(self) -> int:
        """The native sample rate, in Hz."""
        return self._first.sample_rate if self._first is not None else self._stream.codec_context.sample_rate

    @property
    def duration_s(self) -> float | None:
        """How long the file says it is, in seconds; None if it does not say."""
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def elapsed_s(self) -> float:
        """Seconds of the file's clock so far."""
        return float(self._timeline.elapsed)

    def pieces(self) -> Iterator[Piece]:
        """Everything that can be decoded, in order; once."""
        if self._first is not None:
            yield from self._placed(self._first)
            for frame in self._frames:
                yield from self._placed(frame)

    def ending(self, *, cut: bool) -> str:
        """What to say about the end of the file. `cut`: its bytes stop before its own end marks."""
        elapsed_s, announced = float(self._timeline.elapsed - self._timeline.lead), self._announced_s()
        if announced is not None and announced - elapsed_s > _SHORT_S:
            return f"{self._name}: ends early, {elapsed_s:.1f} of {announced:.1f} s are there"
        if cut:
            return f"{self._name}: ends early, after {elapsed_s:.1f} s; the file is cut off"
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
        if self._format in _UNSTAMPED and (self._format != "mp3" or self._stream.start_time in (None, 0)):
            return None  # an MP3 tells by a Xing or VBRI frame how long it is; else FFmpeg guesses by its size
        if self._stream.duration is not None and self._stream.time_base is not None:
            begin = self._timeline.origin if self._format == "ogg" else None  # a radio's: it is the last timestamp
            return float(self._stream.duration * self._stream.time_base - (begin or 0))
        others = [one for one in self._container.streams if not one.disposition & Disposition.attached_pic]
        if self._container.duration is None or len(others) > 1:
            return None
        begin = self._timeline.origin if self._all_packets else None  # Matroska's ends on its clock
        return self._container.duration / av.time_base - float((begin or 0) + self._timeline.lead)


class Missing(Enum):
    """What the time before a frame was."""

    NOTHING = auto()  # no time at all
    SILENCE = auto()  # nothing was sent because nothing sounded
    LOST = auto()  # sound that is gone


@dataclass(frozen=True, slots=True)
class Before:
    """`frames` native samples stand before the frame. `complaint`, `notice`: as in `Piece`, without the file's name."""

    missing: Missing = Missing.NOTHING
    frames: int = 0
    complaint: str = ""
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about the way to a frame.

    `broken`: packets that could not be decoded; `damaged`: bytes that no packet accounts for; `pause`: the encoder
    leaves out silence, and what came last was quiet.
    """

    broken: int = 0
    damaged: bool = False
    pause: bool = False


NOTHING_KNOWN = Evidence()


class Timeline:
    """One track. `origin`: the time at which the clock begins, None: with the first frame.

    `stamped` False: the format has no times, what looks like them follows from sizes; only broken packets make holes.
    """

    def __init__(self, origin: Fraction | None = None, *, stamped: bool = True) -> None:
        self.elapsed = Fraction(0)  # seconds so far, whatever is missing included
        self.lead = Fraction(0)  # seconds of them before the first frame
        self.origin = origin
        self._stamped = stamped
        self._begun = False
        self._ahead = Fraction(0)  # of its turn, by which the last frame came
        self._end = Fraction(0)  # of the last frame, by its own stamp
        self._drifted: Fraction | None = Fraction(0)  # None: people were told

    def place(self, stamp: Fraction | None, frames: int, rate: int, evidence: Evidence = NOTHING_KNOWN) -> Before:
        """The next frame, of so many native samples, that says it belongs at `stamp` seconds (None: it does not)."""
        before = Before() if stamp is None else self._before(stamp, rate, evidence)
        self._begun = True
        self._end = (stamp or Fraction(0)) + Fraction(frames, rate)
        self.elapsed += Fraction(before.frames + frames, rate)
        return before

    def _before(self, stamp: Fraction, rate: int, evidence: Evidence) -> Before:
        if self.origin is None:
            self.origin = stamp
        if not self._begun:
            return self._first(stamp, rate, evidence)
        if not self._stamped:
            step = stamp - self._end
            return _lost(step, rate) if evidence.broken and JITTER_S < step <= _LONGEST_HOLE_S else Before()
        ahead = stamp - self.origin - self.elapsed
        step, self._ahead = ahead - self._ahead, ahead
        if ahead < -_EARLY_S or ahead > _LONGEST_HOLE_S:
            self.origin, self._ahead = stamp - self.elapsed, Fraction(0)
            return Before(complaint=f"its timestamps jump by {float(ahead):.1f} s" if ahead > 0 else "")
        if ahead <= JITTER_S:
            return Before()
        self._ahead = Fraction(0)
        if evidence.broken or evidence.damaged:
            return _lost(ahead, rate)
        if step <= JITTER_S:
            return Before(Missing.SILENCE, round(ahead * rate), notice=self._drifts(ahead))
        return Before(Missing.SILENCE, round(ahead * rate)) if evidence.pause else _lost(ahead, rate)

    def _first(self, stamp: Fraction, rate: int, evidence: Evidence) -> Before:
        assert self.origin is not None
        lead = stamp - self.origin
        if not JITTER_S < lead <= _LATEST_LEAD_S:
            self.origin = stamp if lead < 0 or lead > JITTER_S else self.origin
            return Before()
        if evidence.broken:
            return _lost(lead, rate)
        self.lead = Fraction(round(lead * rate), rate)
        return Before(Missing.SILENCE, round(lead * rate))

    def _drifts(self, by: Fraction) -> str:
        if self._drifted is None:
            return ""
        self._drifted += by
        if self._drifted < _DRIFT_S:
            return ""
        self._drifted = None
        return DRIFTS


def _lost(seconds: Fraction, rate: int) -> Before:
    return Before(Missing.LOST, round(seconds * rate), complaint=DAMAGED)

"""One audio track of a media file, or of a container that comes through a pipe; link by link where several are chained.

Decoded piece by piece with PyAV (FFmpeg's libraries, bundled in its wheel). What is broken inside is skipped; how much
is missing follows from the timestamps around the hole. A file that ends before its header says so gives what there is,
and says so too.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from streamer.audio.containers import HEAD_BYTES, LinkReader, WholeFile, container_of, is_cut, scan_file
from streamer.audio.resample import Mixer
from streamer.audio.timeline import Evidence, Missing, Timeline
from streamer.audio.track_choice import SILENT_PEAK, SILENT_S, Choice, TrackFacts, choose
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

# A pipe is heard while it comes: FFmpeg is to look at little of it before it lets us have the first packet.
_PIPE_OPTIONS = {"probesize": "262144", "analyzeduration": "1000000"}

_ASIDE = (
    Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.karaoke
    | Disposition.descriptions | Disposition.clean_effects
)  # fmt: skip


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
        tracks = container.streams.audio
        self._stream: AudioStream = tracks[min(choice.number, len(tracks)) - 1]  # a further link may have fewer
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


class AudioTrack:
    """One open file. Raises InputError, with `label` (the option) in front, when it has no sound to give.

    `track`: which of its audio tracks, from 1; None: the one that its makers meant. `pipe`: where the bytes come from
    if not from the file at `path`, which then is no more than a name.
    """

    def __init__(
        self, path: str, label: str = "--input", track: int | None = None, pipe: LinkReader | WholeFile | None = None
    ) -> None:
        self._where, self._path = f"{label} {path}", path if pipe is None else None
        self._name = "standard input" if path == "-" else os.path.basename(path)
        self._file: BinaryIO | None = None
        damage: list[int] = []
        self._reader = pipe
        if pipe is None:
            _check(path, self._where)
            self._reader, damage = self._scanned(path)
        try:
            container = self._open()
            self._choice = self._chosen(container, track)
            self._link = self._linked(container, damage)
        except InputError:
            self._close_file()
            raise

    @property
    def rate(self) -> int:
        """The native sample rate at the begin, in Hz."""
        return self._link.rate

    @property
    def duration_s(self) -> float | None:
        """How long the file says it is, in seconds; None if it does not say."""
        return self._link.duration_s if self._reader is None else None

    def pieces(self) -> Iterator[Piece]:
        """Everything that can be decoded, in order; once."""
        if self._choice.notice:
            yield self._said(notice=f"{self._name}: {self._choice.notice}")
        yield from self._link.pieces()
        while self._reader is not None and self._reader.next_link():
            if complaint := self._link.ending(cut=False):
                yield self._said(complaint)
            try:
                container = self._open()
                link = self._linked(container, [], further=True)
            except InputError as error:
                yield self._said(f"{self._name}: a further part {str(error).removeprefix(self._where + ': ')}")
                continue
            self._link.close()
            self._link = link
            yield from link.pieces()
        if complaint := self._link.ending(cut=self._path is not None and is_cut(self._path)):
            yield self._said(complaint)

    def close(self) -> None:
        """Let go of the file; only by the thread that reads."""
        self._link.close()
        self._close_file()

    def _said(self, complaint: str = "", notice: str = "") -> Piece:
        return Piece(np.zeros(0, np.float32), self.rate, 0, complaint, notice)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()

    def _scanned(self, path: str) -> tuple[LinkReader | None, list[int]]:
        """A reader if the file is chained; else nothing, and where an Ogg file is broken."""
        if not os.path.isfile(path):
            return None, []
        try:
            file = open(path, "rb")  # noqa: SIM115  kept for the reader, closed by `close`
            kind = container_of(file.read(HEAD_BYTES)) or ""
            links, damage = scan_file(file, kind)
        except PermissionError:
            raise InputError(f"{self._where}: may not be read; check its permissions") from None
        except OSError as error:
            raise InputError(f"{self._where}: cannot be read: {error.strerror}") from None
        if links == 1:
            file.close()
            return None, damage
        file.seek(0)
        self._file = file
        return LinkReader(file.read, kind), []

    def _open(self) -> InputContainer:
        """The file, or the present link. Local files only: a playlist must not make us fetch what it names."""
        try:
            if self._reader is None:
                assert self._path is not None
                return av.open(
                    os.path.abspath(self._path), options={"protocol_whitelist": "file"}, metadata_errors="replace"
                )
            options = {**_PIPE_OPTIONS, "protocol_whitelist": ""} if self._path is None else {"protocol_whitelist": ""}
            return av.open(self._reader, "r", format=self._reader.container, options=options, metadata_errors="replace")
        except PermissionError:
            raise InputError(f"{self._where}: may not be read; check its permissions") from None
        except (av.FFmpegError, OSError):
            kinds = "wav, flac, mp3, ogg, m4a, mp4 …"
            raise InputError(f"{self._where}: is damaged or no audio or video file; give {kinds}") from None

    def _chosen(self, container: InputContainer, track: int | None) -> Choice:
        try:
            return choose([_facts(one) for one in container.streams.audio], track, self._where, self._sounds)
        except InputError:
            container.close()
            raise

    def _linked(self, container: InputContainer, damage: list[int], *, further: bool = False) -> Link:
        if not container.streams.audio:
            container.close()
            raise InputError(f"{self._where}: has no audio track; give a file that has one")
        reader = self._reader
        known = (lambda: damage) if reader is None else (lambda: reader.damage)
        return Link(container, self._choice, self._name, self._where, known, further=further)

    def _sounds(self, number: int) -> bool:
        """Whether a track of the file is anything but silence at its beginning; of a pipe nobody can know yet."""
        if self._reader is not None:
            return True
        try:
            link = Link(self._open(), Choice(number, number), self._name, self._where)
        except InputError:
            return False
        try:
            for piece in link.pieces():
                if len(piece.samples) and float(np.abs(piece.samples).max()) > SILENT_PEAK:
                    return True
                if link.elapsed_s > SILENT_S:
                    return False
        finally:
            link.close()
        return False


def _facts(track: AudioStream) -> TrackFacts:
    handler = track.metadata.get("handler_name", "")  # a title in some MP4 files, in most a word for all sound
    title = track.metadata.get("title", "") or ("" if "handler" in handler.lower() else handler)
    return TrackFacts(
        default=bool(track.disposition & Disposition.default),
        aside=bool(track.disposition & _ASIDE),
        language=track.metadata.get("language", ""),
        title=title,
        channels=track.codec_context.channels,
    )


def _check(path: str, where: str) -> None:
    if not os.path.exists(path):
        raise InputError(f"{where}: no such file; give an audio or video file, - for standard input, or demo")
    if os.path.isdir(path):
        raise InputError(f"{where}: is a directory; give one audio or video file")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise InputError(f"{where}: is empty; give an audio or video file")

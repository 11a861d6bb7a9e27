"""One audio track of a media file, or of a container that comes through a pipe; link by link where several are chained.

Heard is the track that was asked for, else the one that its makers meant to be heard: the default track; commentary and
descriptions for the blind only where there is nothing else; and where that track is silent at its beginning, the first
that is not. A file that ends before its header says so gives what there is, and says so too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from streamer.audio.containers import HEAD_BYTES, LinkReader, WholeFile, container_of, is_cut, scan_file
from streamer.audio.link import Link, Piece
from streamer.errors import InputError

SILENT_S = 60.0  # a track that is silent so long, while another is not, is not meant
SILENT_PEAK = 1e-4  # full scale 1: -80 dB

# A pipe is heard while it comes: FFmpeg is to look at little of it before it lets us have the first packet.
_PIPE_OPTIONS = {"probesize": "262144", "analyzeduration": "1000000"}
# Where there is but one stream, whose first frame says all: of few bits a second, what FFmpeg would look at lasts long.
_PLAIN = frozenset({"wav", "mp3", "aac", "flac", "amr", "au", "aiff", "caf", "wv"})
_PLAIN_OPTIONS = {"probesize": "4096", "analyzeduration": "100000"}

_ASIDE = (
    Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.karaoke
    | Disposition.descriptions | Disposition.clean_effects
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What a file says of one audio track. `aside`: marked as commentary, description for the blind or the like;
    `decodable`: there is a decoder for it here.
    """

    default: bool = False
    aside: bool = False
    language: str = ""
    title: str = ""
    channels: int = 1
    decodable: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The audio track `number` (from 1) of `count`. `notice`: what to tell people, nothing where there is but one."""

    number: int
    count: int
    notice: str = ""


def choose(tracks: Sequence[TrackFacts], wanted: int | None, where: str, sounds: Callable[[int], bool]) -> Choice:
    """Choose a track. `wanted`: what the user asked for, from 1. `sounds`: whether a track (from 1) is not silent.

    Raises InputError, with `where` (option and file) in front, when there is none or not the one that is wanted.
    """
    count = len(tracks)
    if not count:
        raise InputError(f"{where}: has no audio track; give a file that has one")
    if wanted is not None and wanted > count:
        right = "1" if count == 1 else f"1 to {count}"
        raise InputError(f"--track {wanted}: {where} has {count} audio track{'s'[: count > 1]}; give {right}")
    if not any(track.decodable for track in (tracks if wanted is None else tracks[wanted - 1 : wanted])):
        which = "its sound" if wanted is None else f"the sound of --track {wanted}"
        raise InputError(f"{where}: {which} is in a coding that has no decoder here; convert it to wav or flac")
    if count == 1:
        return Choice(1, 1)
    if wanted is not None:
        return Choice(wanted, count, _notice(wanted, tracks, ""))
    able = [number for number in range(1, count + 1) if tracks[number - 1].decodable]
    order = sorted(able, key=lambda number: (*_rank(tracks[number - 1]), number))
    number = next((number for number in order if sounds(number)), order[0])
    silent = "" if number == order[0] else f"; track {order[0]} is silent at its beginning"
    return Choice(number, count, _notice(number, tracks, silent))


def _rank(track: TrackFacts) -> tuple[bool, bool]:
    return track.aside or "commentary" in track.title.lower(), not track.default


def _notice(number: int, tracks: Sequence[TrackFacts], silent: str) -> str:
    track = tracks[number - 1]
    language = "" if track.language == "und" else track.language
    told = ", ".join(filter(None, (language, track.title, f"{track.channels} ch")))
    return f"audio track {number} of {len(tracks)} is heard ({told}){silent}; --track N takes another"


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
            _check(path, self._where, "" if label == "file" else ", - for standard input, or demo")
            self._reader, damage = self._scanned(path)
        try:
            container = self._open()
            facts = [_facts(one) for one in container.streams.audio]
            self._choice = choose(facts, track, self._where, self._sounds)
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
            options = {"protocol_whitelist": ""}
            if self._path is None:
                options |= _PLAIN_OPTIONS if self._reader.container in _PLAIN else _PIPE_OPTIONS
            return av.open(self._reader, "r", format=self._reader.container, options=options, metadata_errors="replace")
        except PermissionError:
            raise InputError(f"{self._where}: may not be read; check its permissions") from None
        except (av.FFmpegError, OSError):
            kinds = "wav, flac, mp3, ogg, m4a, mp4 …"
            raise InputError(f"{self._where}: is damaged or no audio or video file; give {kinds}") from None

    def _linked(self, container: InputContainer, damage: list[int], *, further: bool = False) -> Link:
        if not container.streams.audio:
            container.close()
            raise InputError(f"{self._where}: has no audio track; give a file that has one")
        reader = self._reader
        known = (lambda: damage) if reader is None else (lambda: reader.damage)
        return Link(container, self._choice.number, self._name, self._where, known, further=further)

    def _sounds(self, number: int) -> bool:
        """Whether a track of the file is anything but silence at its beginning; of a pipe nobody can know yet."""
        if self._reader is not None:
            return True
        try:
            link = Link(self._open(), number, self._name, self._where)
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
    decodable = track.codec_context is not None  # PyAV has none for a codec that FFmpeg does not know
    return TrackFacts(
        default=bool(track.disposition & Disposition.default),
        aside=bool(track.disposition & _ASIDE),
        language=track.metadata.get("language", ""),
        title=title,
        channels=track.codec_context.channels if decodable else 0,
        decodable=decodable,
    )


def _check(path: str, where: str, others: str) -> None:
    """`others`: what else the option takes."""
    if not os.path.exists(path):
        raise InputError(f"{where}: no such file; give an audio or video file{others}")
    if os.path.isdir(path):
        raise InputError(f"{where}: is a directory; give one audio or video file")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise InputError(f"{where}: is empty; give an audio or video file")

"""One audio track of a media file or of a container that comes through a pipe, link by link where several are chained.

A file that ends before its header says so gives what there is, and says so too.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer

from streamer.audio.choice import SILENT_PEAK, SILENT_S, Choice, choose
from streamer.audio.link import Link, Piece
from streamer.audio.links import ByteLinks, LinkReader, scan_file
from streamer.audio.signatures import HEAD_BYTES, container_of
from streamer.errors import InputError

__all__ = ["AudioTrack", "Piece"]

# A pipe is heard while it comes: FFmpeg is to look at little of it before it lets us have the first packet.
_PIPE_OPTIONS = {"probesize": "262144", "analyzeduration": "1000000"}
_WAV_UNKNOWN_BYTES = 0x7FFF_F000  # from here on a RIFF size was written by a program that did not know it


class AudioTrack:
    """One open file. Raises InputError, with `label` (the option) in front, when it has no sound to give.

    `track`: which of its audio tracks, from 1; None: the one that its makers meant. `pipe`: where the bytes come from
    if not from the file at `path`, which then is no more than a name.
    """

    def __init__(
        self, path: str, label: str = "--input", track: int | None = None, pipe: ByteLinks | None = None
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
        if complaint := self._link.ending(cut=self._path is not None and _is_cut(self._path)):
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
            return choose(container, track, self._where, self._sounds)
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
                if link.heard_s > SILENT_S:
                    return False
        finally:
            link.close()
        return False


def _check(path: str, where: str) -> None:
    if not os.path.exists(path):
        raise InputError(f"{where}: no such file; give an audio or video file, - for standard input, or demo")
    if os.path.isdir(path):
        raise InputError(f"{where}: is a directory; give one audio or video file")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise InputError(f"{where}: is empty; give an audio or video file")


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
        return size + 2 < announced < _WAV_UNKNOWN_BYTES
    if head[:4] == b"OggS":
        page = tail.rfind(b"OggS")  # RFC 3533: byte 5 of a page's header holds its flags, 4 is the end of the stream
        return page < 0 or page + 5 >= len(tail) or not tail[page + 5] & 4
    return False

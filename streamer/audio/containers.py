"""What a stream of bytes is, by its first ones, and where in it one file follows another.

Raw samples may begin with any bytes, so each signature is checked as far as its format allows.

Chained files are one after another in one stream of bytes, each a link (RFC 3533's word) with headers of its own. Radio
recorders write Ogg so, `cat` does it to WAV, FLAC and Matroska. FFmpeg's demuxers give up, or go on with wrong times,
where the next link has another rate or other channels; each link is therefore read as a file of its own. The scan of an
Ogg stream also notes where pages are broken or missing, which FFmpeg skips without a word.
"""

import os
import re
import zlib
from collections.abc import Callable
from typing import BinaryIO

HEAD_BYTES = 16_384  # at most so many are asked for; nearly always a dozen are enough
_FIRST_BYTES = 64

_TAGS: tuple[tuple[str, bytes], ...] = (
    ("wav", rb"(RIFF|RF64|BW64)....WAVE"),
    ("w64", rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1"),
    ("flac", rb"fLaC[\x00\x80]\x00\x00\x22"),
    ("ogg", rb"OggS\x00[\x00-\x07].{20}[^\x00]"),
    ("matroska", rb"\x1a\x45\xdf\xa3.{0,48}\x42\x82.(matroska|webm)"),
    ("mov", rb"\x00\x00..ftyp[ -~]{4}.{4}([ -~]{4}|....(moov|mdat|free|skip|wide|uuid))"),
    ("mov", rb"....moov....mvhd|\x00\x00..(wide|free|skip)....(mdat|moov)"),
    ("aiff", rb"FORM....AIF[FC]"),
    ("caf", rb"caff\x00\x01\x00\x00desc"),
    ("au", rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1c]"),
    ("asf", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    ("flv", rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09"),
    ("amr", rb"#!AMR(-WB)?\n"),
    ("wv", rb"wvpk....[\x00-\x10]\x04"),
    ("avi", rb"RIFF....AVI "),
    ("mpeg", rb"\x00\x00\x01\xba([\x21-\x3f].{7}|[\x44-\x7f].{8}[\xf8-\xff]\xff{0,7})\x00\x00\x01[\xb9-\xff]"),
)
_PATTERNS = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _TAGS)

_ID3 = re.compile(rb"ID3[\x02-\x04]\x00.[\x00-\x7f]{4}", re.DOTALL)
_ID3_FRAME = re.compile(rb"[A-Z][A-Z0-9]{2,3}")

_TS_BYTES = 188
_KBPS_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)  # MPEG 1, layer II
_KBPS_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer III
_KBPS_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
_MPEG_HZ = (44_100, 48_000, 32_000)
_HEADER_BYTES = 10  # at most, of a frame
_FRAMES_IN_A_ROW = 3  # headers that point at one another: no accident
_SCAN_BYTES = 1 << 20  # read at a time
_SCAN_MOST_BYTES = 1 << 30  # further into a file nobody looks for links, so that opening it does not take minutes
_BEGINS = {
    "wav": re.compile(rb"(?:RIFF|RF64)....WAVE(?:fmt |JUNK|bext|LIST|ds64)", re.DOTALL),
    "flac": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL),
    "mp3": re.compile(rb"ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}[A-Z][A-Z0-9]{2,3}", re.DOTALL),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3.{0,40}?\x42\x82.(?:matroska|webm)", re.DOTALL),
}
_LONGEST_BEGIN = 64
_WAV_UNKNOWN_BYTES = 0x7FFF_F000  # from here on a RIFF size was written by a program that did not know it
_BOS = 2  # an Ogg page's flag: the first of a logical stream
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def wants(head: bytes, *, ended: bool) -> int:
    """How many bytes are needed before `container_of` can be asked: more than there are, until it is enough."""
    if ended or len(head) >= HEAD_BYTES:
        return len(head)
    needed = _FIRST_BYTES
    if head[:1] == b"\x47":
        needed = 4 * _TS_BYTES
    elif len(head) >= _FIRST_BYTES and _ID3.match(head):
        behind = 10 + _id3_bytes(head)
        if behind < HEAD_BYTES:  # else the tag itself has to do
            needed = behind + _chain_bytes(head[behind:])
    elif head[:1] == b"\xff":
        needed = _chain_bytes(head)
    return max(len(head), min(needed, HEAD_BYTES))


def container_of(head: bytes) -> str | None:
    """The demuxer that reads what begins with `head`; None: it is no file's begin."""
    for name, pattern in _PATTERNS:
        if pattern.match(head):
            return name
    if len(head) > 2 * _TS_BYTES and head[0] == head[_TS_BYTES] == head[2 * _TS_BYTES] == 0x47:
        return "mpegts"
    if _ID3.match(head) and (behind := _behind_id3(head)):
        return behind
    if _is_chain(head, _mp3_frame_bytes):
        return "mp3"
    return "aac" if _is_chain(head, _adts_frame_bytes) else None


def _behind_id3(head: bytes) -> str | None:
    """ID3v2 tags stand before MP3 as a rule; sometimes before FLAC or AAC."""
    rest = head[10 + _id3_bytes(head) :]
    if rest[:4] == b"fLaC":
        return "flac"
    if _is_chain(rest, _adts_frame_bytes):
        return "aac"
    return "mp3" if _ID3_FRAME.match(head, 10) or _is_chain(rest, _mp3_frame_bytes) else None


def _id3_bytes(head: bytes) -> int:
    """How long an ID3v2 tag is behind its header of ten bytes."""
    return head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]


def _chain_bytes(data: bytes) -> int:
    """How many bytes are needed to know of MP3 and AAC frames whether they are a chain: three headers, no more, for
    frames of few bits last long.
    """
    needed = 0
    for frame_bytes in (_mp3_frame_bytes, _adts_frame_bytes):
        at = 0
        for _ in range(_FRAMES_IN_A_ROW):
            needed = max(needed, at + _HEADER_BYTES)
            if not (size := frame_bytes(data[at : at + _HEADER_BYTES])):
                break
            at += size
    return needed


def _is_chain(data: bytes, frame_bytes: Callable[[bytes], int]) -> bool:
    at = 0
    for _ in range(_FRAMES_IN_A_ROW):
        size = frame_bytes(data[at : at + _HEADER_BYTES])
        if not size:
            return False
        at += size
    return True


def _mp3_frame_bytes(header: bytes) -> int:
    """Length of the MPEG audio frame of layer II or III with this header (ISO 11172-3, 13818-3); 0: it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 not in (0xE2, 0xE4):
        return 0
    version, index, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or index in (0, 15) or rate == 3:
        return 0
    hz = _MPEG_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    layer_2 = header[1] & 0x06 == 0x04
    kbps = (_KBPS_2 if layer_2 else _KBPS_3)[index] if version == 3 else _KBPS_LOW[index]
    return (144 if layer_2 or version == 3 else 72) * kbps * 1000 // hz + (header[2] >> 1 & 1)


def _adts_frame_bytes(header: bytes) -> int:
    """Length of the AAC frame with this ADTS header (ISO 13818-7); 0: it is none."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0


def scan_of(container: str) -> "OggScan | SignatureScan | None":
    """A scan for streams of this demuxer's; None: they are not chained."""
    if container == "ogg":
        return OggScan()
    return SignatureScan(_BEGINS[container]) if container in _BEGINS else None


class SignatureScan:
    """Links of formats whose first bytes are so particular that they are nothing else: where further ones begin.

    `damage`: offsets at which something broken begins, ascending; of these formats nothing is known.
    """

    def __init__(self, begin: re.Pattern[bytes]) -> None:
        self.damage: list[int] = []
        self._begin = begin
        self._kept, self._at = b"", 0  # bytes that may hold a begin's first part, and the offset of the first of them
        self._last_start = 0

    @property
    def certain(self) -> int:
        """No link will be found to begin before this offset any more."""
        return self._at

    def feed(self, data: bytes) -> list[int]:
        """The next bytes; offsets, from the first byte on, at which a further link begins."""
        window = self._kept + data
        starts = [self._at + match.start() for match in self._begin.finditer(window)]
        fresh = [start for start in starts if start > self._last_start]
        self._last_start = max([self._last_start, *fresh])
        keep = min(len(window), _LONGEST_BEGIN)
        self._at += len(window) - keep
        self._kept = window[len(window) - keep :]
        return fresh


class OggScan:
    """As `SignatureScan`, of pages of Ogg (RFC 3533).

    A link begins where a stream begins and others were under way before.
    """

    def __init__(self) -> None:
        self.damage: list[int] = []
        self._buffer, self._at = b"", 0
        self._under_way = self._lost = False  # a stream is; the pages are
        self._numbers: dict[bytes, int] = {}  # the last page's number by the serial number of the logical stream

    @property
    def certain(self) -> int:
        """See `SignatureScan`."""
        return self._at

    def feed(self, data: bytes) -> list[int]:
        """See `SignatureScan`."""
        buffer, at, begins = self._buffer + data, 0, []
        while True:
            page = buffer.find(b"OggS\x00", at)
            if page != at and len(buffer) - at >= 5:
                self._lose(self._at + at)
                at = page if page >= 0 else max(at, len(buffer) - 4)
            size = _page_bytes(buffer, at)
            if size is None or at + size > len(buffer):
                break
            if not _is_whole(buffer[at : at + size]):
                self._lose(self._at + at)
                at += 4
                continue
            self._lost = False
            if self._begins_link(buffer[at : at + 27], self._at + at):
                begins.append(self._at + at)
            at += size
        self._buffer, self._at = buffer[at:], self._at + at
        return begins

    def _begins_link(self, header: bytes, offset: int) -> bool:
        first, serial = bool(header[5] & _BOS), header[14:18]
        number = int.from_bytes(header[18:22], "little")
        begins = first and self._under_way
        self._under_way = not first
        if begins:
            self._numbers = {}
        if not first and number != (self._numbers.get(serial, number - 1) + 1) & 0xFFFF_FFFF:
            self.damage.append(offset)
        self._numbers[serial] = number
        return begins

    def _lose(self, offset: int) -> None:
        if not self._lost:
            self.damage.append(offset)
        self._lost = True


def _page_bytes(buffer: bytes, at: int) -> int | None:
    """Length of the page whose header begins at `at`; None: not enough of the header is there."""
    if len(buffer) < at + 27 or len(buffer) < at + 27 + buffer[at + 26]:
        return None
    count = buffer[at + 26]
    return 27 + count + sum(buffer[at + 27 : at + 27 + count])


def _is_whole(page: bytes) -> bool:
    """Whether a page's checksum is right: CRC 0x04c11db7, bits not reflected, which zlib's is when the bits are."""
    plain = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    found = zlib.crc32(plain, 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return page[22:26].translate(_REVERSED) == found.to_bytes(4, "big")


class LinkReader:
    """The links in a stream of bytes, as `av.open` reads them: a file that ends with each link.

    `read_some(n)` gives one to n bytes, waiting for them; none at the end. `container`: FFmpeg's name of the demuxer.
    """

    def __init__(self, read_some: Callable[[int], bytes], container: str, head: bytes = b"") -> None:
        """`head`: bytes that were read already."""
        self.container = container
        self._read_some, self._scan = read_some, scan_of(container)
        self._buffer = b""
        self._begin = self._given = 0  # offsets: of the present link, of the next byte to give
        self._links: list[int] = []  # where further ones begin
        self._ended = False
        if head:
            self._take(head)

    @property
    def damage(self) -> list[int]:
        """Offsets in the present link at which something broken begins."""
        return [] if self._scan is None else [at - self._begin for at in self._scan.damage if at >= self._begin]

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of the present link; none at its end."""
        size = _SCAN_BYTES if size < 0 else size
        while not (ready := self._ready()) and not self._ended and not self._links:
            self._take(self._read_some(size))
        count = min(ready, size)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        self._given += count
        return data

    def next_link(self) -> bool:
        """Leave the rest of the present link; False: it was the last."""
        while self.read(_SCAN_BYTES):
            pass
        if not self._links:
            return False
        self._begin = self._links.pop(0)
        return True

    def _ready(self) -> int:
        """How many bytes of the buffer surely belong to the present link."""
        end = self._given + len(self._buffer)
        if self._links:
            end = self._links[0]
        elif self._scan is not None and not self._ended:
            end = min(end, max(self._given, self._scan.certain))
        return end - self._given

    def _take(self, data: bytes) -> None:
        self._ended = not data
        self._buffer += data
        if self._scan is not None:
            self._links += self._scan.feed(data)


class WholeFile:
    """A file of one link with a place to seek in, where `LinkReader` reads onwards only."""

    def __init__(self, file: BinaryIO, container: str) -> None:
        self.container, self.damage = container, list[int]()
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def next_link(self) -> bool:
        """There is no other."""
        return False


def scan_file(file: BinaryIO, container: str) -> tuple[int, list[int]]:
    """How many links a file has, and where an Ogg file is broken; all of it is read if it must be. Raises OSError."""
    scan = scan_of(container)
    if scan is None:
        return 1, []
    if container != "ogg" and (announced := _announced_bytes(file, container)) is not None:
        file.seek(announced)
        head = file.read(_LONGEST_BEGIN)
        if not _BEGINS[container].match(head):
            return 1, []
    file.seek(0)
    links, left = 1, _SCAN_MOST_BYTES
    while left > 0 and (data := file.read(_SCAN_BYTES)):
        links += len(scan.feed(data))
        left -= len(data)
    return links, scan.damage


def is_cut(path: str) -> bool:
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


def _announced_bytes(file: BinaryIO, container: str) -> int | None:
    """Where the first link ends by its own header; None: it does not say."""
    file.seek(0)
    head = file.read(_LONGEST_BEGIN)
    if container == "wav":
        size = int.from_bytes(head[4:8], "little")
        return size + 8 + size % 2 if head[:4] == b"RIFF" and 4 < size < _WAV_UNKNOWN_BYTES else None
    if container == "matroska":
        begin, header = _element_size(head, 4)
        if header is None or head[begin + header : begin + header + 4] != b"\x18\x53\x80\x67":
            return None
        inside, length = _element_size(head, begin + header + 4)
        return None if length is None else inside + length
    return None


def _element_size(data: bytes, at: int) -> tuple[int, int | None]:
    """Where the content of an EBML element begins whose size (RFC 8794) stands at `at`, and the size; None: unknown."""
    length = 9 - data[at].bit_length() if at < len(data) else 9
    if length > 8 or at + length > len(data):
        return at, None
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return at + length, None if value == (1 << 7 * length) - 1 else value

"""What a stream of bytes is, by its first ones: the name of FFmpeg's demuxer for it, or nothing (raw samples, say).

Raw samples may begin with any bytes, so each signature is checked as far as its format allows.
"""

import re
from collections.abc import Callable

HEAD_BYTES = 16_384  # at most so many are asked for; nearly always a dozen are enough
_FIRST_BYTES = 64

_TAGS: tuple[tuple[str, bytes], ...] = (
    ("wav", rb"(RIFF|RF64|BW64)....WAVE"),
    ("w64", rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1"),
    ("flac", rb"fLaC[\x00\x80]\x00\x00\x22"),
    ("ogg", rb"OggS\x00[\x00-\x07].{20}[^\x00]"),
    ("matroska", rb"\x1a\x45\xdf\xa3.{0,48}\x42\x82.(matroska|webm)"),
    ("mov", rb"\x00\x00..ftyp[ -~]{4}.{4}[ -~]{4}|....moov....mvhd|\x00\x00..(wide|free|skip)....(mdat|moov)"),
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
_FRAMES_IN_A_ROW = 3  # headers that point at one another: no accident


def wants(head: bytes, *, ended: bool) -> int:
    """How many bytes are needed before `container_of` can be asked: more than there are, until it is enough."""
    if ended or len(head) >= HEAD_BYTES:
        return len(head)
    long = head[:1] == b"\x47" or head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] >= 0xE0)
    return max(len(head), 4 * _TS_BYTES) if head[:1] == b"\x47" else HEAD_BYTES if long else _FIRST_BYTES


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
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    rest = head[10 + size :]
    if rest[:4] == b"fLaC":
        return "flac"
    if _is_chain(rest, _adts_frame_bytes):
        return "aac"
    return "mp3" if _ID3_FRAME.match(head, 10) or _is_chain(rest, _mp3_frame_bytes) else None


def _is_chain(data: bytes, frame_bytes: Callable[[bytes], int]) -> bool:
    at = 0
    for _ in range(_FRAMES_IN_A_ROW):
        size = frame_bytes(data[at : at + 10])
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

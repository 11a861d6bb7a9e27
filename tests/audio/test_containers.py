import io
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import babble, write_media

from streamer.audio.containers import HEAD_BYTES, LinkReader, container_of, scan_file, wants


@pytest.mark.parametrize(
    ("suffix", "codec", "container", "found"),
    [
        ("wav", "pcm_s16le", None, "wav"),
        ("flac", "flac", None, "flac"),
        ("ogg", "libopus", None, "ogg"),
        ("webm", "libopus", None, "matroska"),
        ("mkv", "aac", None, "matroska"),
        ("mp3", "libmp3lame", None, "mp3"),
        ("mp2", "mp2", None, "mp3"),
        ("aac", "aac", "adts", "aac"),
        ("m4a", "aac", None, "mov"),
        ("mov", "aac", None, "mov"),
        ("ts", "aac", "mpegts", "mpegts"),
        ("aiff", "pcm_s16be", None, "aiff"),
        ("au", "pcm_s16be", None, "au"),
        ("caf", "pcm_s16le", None, "caf"),
        ("flv", "aac", None, "flv"),
        ("wma", "aac", "asf", "asf"),
        ("w64", "pcm_s16le", None, "w64"),
        ("avi", "pcm_s16le", None, "avi"),
    ],
)
def test_what_people_pipe_is_known_by_its_first_bytes(tmp_path, suffix, codec, container, found):
    path = write_media(tmp_path / f"x.{suffix}", babble(48_000, 0.5), 48_000, codec, container=container)
    data = path.read_bytes()
    head = data[:2]
    while (more := wants(head, ended=False)) > len(head) and len(head) < len(data):
        head = data[:more]
    assert container_of(head) == found


@given(st.integers(0, 2**32), st.integers(0, 3_000))
def test_samples_are_no_file(seed, size):  # not binary(): that makes the very signatures that it reads in the code
    assert container_of(random.Random(seed).randbytes(size)) is None


@pytest.mark.parametrize(
    "begin",
    [
        *(b"RIFF", b"ID3", b"ID3\x03\x00", b"OggS", b"fLaC", b"FORM", b".snd", b"mdat", b"G"),
        *(b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"\x1a\x45\xdf\xa3", b"\x00\x00\x00\x20ftyp", b"\x00\x00\x01\xba"),
    ],
)
def test_samples_that_begin_with_odd_bytes_are_no_file(begin):
    for seed in range(50):
        assert container_of(begin + random.Random(seed).randbytes(4_000).replace(b"\xff", b"\xfe")) is None
    assert container_of(begin + bytes(4_000)) is None
    assert container_of(begin) is None


def test_an_mp4_may_name_no_brand_but_its_own():
    head = b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"
    assert container_of(head + b"\x00\x00\x00\x08free\x00\x00\x01\x00moov" + bytes(400)) == "mov"
    assert container_of(head + b"\x00\x00\x01\x00moov" + bytes(400)) == "mov"


def test_a_few_bytes_are_enough_for_samples():
    assert wants(b"\x01\x00", ended=False) == 64
    assert wants(b"\x01\x00", ended=True) == 2
    assert wants(bytes(64), ended=False) == 64
    assert wants(b"\xff\xfb", ended=False) < 16
    assert wants(b"\xff\xfb" + bytes(14), ended=False) == 16


def test_three_frames_are_enough_for_mp3_whatever_stands_before_them(tmp_path):
    data = write_media(tmp_path / "x.mp3", babble(24_000, 3.0), 24_000, "libmp3lame", bit_rate=24_000).read_bytes()
    size = 10 + (data[8] << 7 | data[9])
    assert data[:3] == b"ID3"
    frames, large = data[size:], b"ID3\x04\x00\x00\x00\x10\x00\x00APIC" + bytes(262_140)
    for whole, most in ((data, size + 600), (frames, 600), (large + frames, 64)):
        head = b""
        while (more := wants(head, ended=False)) > len(head):
            head = whole[:more]
        assert container_of(head) == "mp3"
        assert len(head) <= most < HEAD_BYTES


KINDS = {
    "ogg": ("ogg", "libopus", 48_000),
    "oga": ("ogg", "flac", 16_000),
    "flac": ("flac", "flac", 16_000),
    "wav": ("wav", "pcm_s16le", 16_000),
    "webm": ("matroska", "libopus", 48_000),
    "mp3": ("mp3", "libmp3lame", 16_000),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, list[bytes]]:
    """By suffix: three files of other lengths, of which the second is stereo."""
    folder = tmp_path_factory.mktemp("links")
    return {
        suffix: [
            write_media(folder / f"{number}.{suffix}", babble(rate, seconds, channels), rate, codec).read_bytes()
            for number, (seconds, channels) in enumerate([(0.7, 1), (0.4, 2), (0.5, 1)])
        ]
        for suffix, (_, codec, rate) in KINDS.items()
    }


def links(data: bytes, container: str, sizes: list[int]) -> list[bytes]:
    stream, given_sizes = io.BytesIO(data), itertools.cycle(sizes)
    reader, found = LinkReader(lambda size: stream.read(min(size, next(given_sizes))), container), []
    while True:
        part = b""
        while piece := reader.read(5_000):
            part += piece
        found.append(part)
        if not reader.next_link():
            return found


@pytest.mark.parametrize("suffix", KINDS)
@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 200))
@settings(max_examples=8, deadline=None)
def test_each_link_is_a_file_of_its_own_however_the_bytes_come(parts, suffix, sizes):
    container = KINDS[suffix][0]
    assert links(b"".join(parts[suffix]), container, sizes) == parts[suffix]
    assert links(parts[suffix][0], container, sizes) == parts[suffix][:1]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_tells_how_many_links_it_has(parts, suffix):
    container = KINDS[suffix][0]
    for count in (1, 2, 3):
        assert scan_file(io.BytesIO(b"".join(parts[suffix][:count])), container) == (count, [])


def test_a_link_that_nobody_reads_to_its_end_is_left(parts):
    data = b"".join(parts["wav"])
    stream = io.BytesIO(data)
    reader = LinkReader(stream.read, "wav")
    reader.read(10)
    assert reader.next_link()
    assert reader.read(100) == parts["wav"][1][:100]


def test_broken_and_missing_pages_of_ogg_are_noted(parts):
    data = b"".join(parts["ogg"][:1])
    pages = [at for at in range(len(data)) if data[at : at + 5] == b"OggS\0"]
    assert len(pages) >= 3
    broken = bytearray(data)
    broken[pages[2] + 60] ^= 0xFF
    assert scan_file(io.BytesIO(bytes(broken)), "ogg")[1][0] == pages[2]
    missing = data[: pages[1]] + data[pages[2] :]
    assert scan_file(io.BytesIO(missing), "ogg")[1] == [pages[1]]


@given(st.binary(max_size=3_000), st.sampled_from(["ogg", "flac", "wav", "matroska", "mp3"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_come_through_whole(data, container):
    assert b"".join(links(data, container, [97])) == data
    scan_file(io.BytesIO(data), container)


def test_other_formats_are_never_cut():
    data = np.random.default_rng(1).bytes(5_000) + b"OggS\0\2fLaC\0\0\0\x22RIFF....WAVEfmt "
    assert links(data, "mpegts", [333]) == [data]

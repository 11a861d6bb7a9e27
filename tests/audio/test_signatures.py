import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import babble, write_media

from streamer.audio.signatures import HEAD_BYTES, container_of, wants


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


@given(st.binary(max_size=3_000))
def test_samples_are_no_file(data):
    assert container_of(data) is None


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


def test_a_few_bytes_are_enough_for_samples():
    assert wants(b"\x01\x00", ended=False) == 64
    assert wants(b"\x01\x00", ended=True) == 2
    assert wants(bytes(64), ended=False) == 64
    assert wants(b"\xff\xfb", ended=False) == HEAD_BYTES

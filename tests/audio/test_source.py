"""Standard input and named pipes: raw samples, and containers as they come."""

import io
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import ScriptedClock, Sound, babble, place_of, tone, write_media, write_tracks

from streamer.audio.block import AudioBlock
from streamer.audio.files import FileSource, StdinSource, open_source
from streamer.errors import InputError


def test_a_file_is_paced_or_not(tmp_path):
    path = str(write_media(tmp_path / "x.flac", tone(16_000, 0.2), 16_000, "flac"))
    fast = open_source(input=path, realtime=False)
    assert isinstance(fast, FileSource)
    assert not fast.live
    assert open_source(input=path, realtime=True).live


def test_a_dash_is_standard_input(monkeypatch, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(10))
    with (tmp_path / "raw").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        source = open_source(input="-", realtime=False)
        assert isinstance(source, StdinSource)
        assert sum(len(block.samples) for block in source.blocks()) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": 0, "input": "x.wav"}, "--device and --input"),
        ({"input": ""}, "--input: is empty"),
        ({"input": "nowhere.wav"}, "--input nowhere.wav: no such file"),
    ],
)
def test_a_refusal_names_the_option(arguments, words):
    with pytest.raises(InputError) as caught:
        open_source(**arguments)
    assert str(caught.value).startswith(words)


def test_without_portaudio_a_microphone_is_refused_with_the_command_that_mends_it_and_files_still_work(tmp_path):
    path = write_media(tmp_path / "x.flac", tone(16_000, 0.2), 16_000, "flac")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from streamer.audio.files import open_source
from streamer.errors import InputError
print(sum(len(block.samples) for block in open_source(input={str(path)!r}, realtime=False).blocks()))
try:
    open_source(device=0)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, refusal = done.stdout.strip().splitlines()
    assert samples == "3200"
    assert "apt-get install libportaudio2" in refusal
    assert "brew install portaudio" in refusal


def test_importing_the_sources_imports_no_sounddevice():
    code = "import sys, streamer.audio.files; print('sounddevice' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def stdin_of(data: bytes, sizes: list[int]) -> io.BufferedReader:
    """A pipe into which somebody writes pieces of odd sizes and then hangs up."""
    read_end, write_end = os.pipe()

    def write() -> None:
        at = 0
        for size in [*sizes, len(data)]:
            os.write(write_end, data[at : at + size])
            at += size
        os.close(write_end)

    threading.Thread(target=write).start()
    return os.fdopen(read_end, "rb")


def test_stdin_gives_every_sample_whatever_the_splits():
    values = np.random.default_rng(1).integers(-32_768, 32_767, 20_000, dtype=np.int16)
    with stdin_of(values.tobytes(), [1, 3, 1_601, 4_096, 7]) as pipe:
        source = StdinSource(pipe, realtime=False)
        blocks = list(source.blocks())
    assert not source.live
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), values / np.float32(32_768))
    assert max(len(block.samples) for block in blocks) <= 800


def test_a_pipe_that_ends_before_any_sound_is_said_to_be_empty(caplog, tmp_path):
    (tmp_path / "nothing").touch()
    with (tmp_path / "nothing").open("rb") as nothing:
        assert list(StdinSource(nothing, realtime=True).blocks()) == []
    assert [record.getMessage() for record in caplog.records] == ["--input -: has no sound in it"]


def test_a_file_as_stdin_works_and_its_odd_last_byte_is_dropped(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"\x01\x00" * 100 + b"\x7f")
    with path.open("rb") as file:
        assert sum(len(block.samples) for block in StdinSource(file, realtime=False).blocks()) == 100


def test_real_time_holds_a_file_back_but_only_a_little_faster_than_the_clock(tmp_path):
    path, clock = tmp_path / "raw", ScriptedClock()
    path.write_bytes(bytes(2 * 16_000 * 2))
    with path.open("rb") as file:
        source = StdinSource(file, realtime=True, clock=clock)
        assert source.live
        assert sum(len(block.samples) for block in source.blocks()) == 32_000
    assert 1.9 < clock.now() < 2.0


def test_close_ends_a_source_that_waits_for_bytes():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe, os.fdopen(write_end, "wb"):
        source = StdinSource(pipe, realtime=True)
        reader = threading.Thread(target=lambda: list(source.blocks()))
        reader.start()
        source.close()
        source.close()
        reader.join(10)
        assert not reader.is_alive()
        source.close()


def test_a_terminal_or_a_closed_stdin_is_refused(monkeypatch):
    leader, terminal = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(terminal, "rb") as keyboard, pytest.raises(InputError, match="a terminal"):
        StdinSource(keyboard, realtime=True)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="is closed"):
        StdinSource(realtime=True)


def test_a_stdin_that_is_no_file_is_refused_in_one_line():
    with pytest.raises(InputError, match="--input -") as caught:
        StdinSource(io.BytesIO(b""), realtime=False)
    assert "\n" not in str(caught.value)


def heard(blocks: list[AudioBlock]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(block.samples for block in blocks)])


def piped(data: bytes, **options: int) -> list[AudioBlock]:
    with stdin_of(data, [5, 300, 40_000]) as pipe:
        return list(StdinSource(pipe, realtime=False, **options).blocks())


@pytest.mark.parametrize(
    ("suffix", "codec", "container"),
    [
        ("wav", "pcm_s16le", None),
        ("wav", "pcm_f32le", None),
        ("flac", "flac", None),
        ("ogg", "libopus", None),
        ("webm", "libopus", None),
        ("mkv", "aac", None),
        ("mp3", "libmp3lame", None),
        ("aac", "aac", "adts"),
        ("m4a", "aac", None),  # its contents stand at the end
        ("ts", "aac", "mpegts"),
    ],
)
def test_a_file_that_is_piped_is_decoded(tmp_path, suffix, codec, container):
    sound = babble(48_000, 3.0)
    frames = sound.astype(np.float32) / 32_768 if codec == "pcm_f32le" else sound
    path = write_media(tmp_path / f"x.{suffix}", frames, 48_000, codec, container=container)
    blocks = piped(path.read_bytes())
    at, likeness = place_of(heard(blocks), sound[::3, 0].astype(np.float32))
    assert abs(at) < 0.06
    assert likeness > 0.9
    assert max(len(block.samples) for block in blocks) <= 800
    assert not [block.reason for block in blocks if block.reason]


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "bit_rate"),
    [("mp3", "libmp3lame", 24_000, 24_000), ("mp3", "libmp3lame", 44_100, 128_000), ("aac", "aac", 44_100, 64_000)],
)
def test_what_is_compressed_is_heard_when_the_first_half_second_of_it_is_there(tmp_path, suffix, codec, rate, bit_rate):
    path = write_media(tmp_path / f"x.{suffix}", babble(rate, 8.0), rate, codec, bit_rate=bit_rate)
    data = path.read_bytes()
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe, os.fdopen(write_end, "wb", buffering=0) as writer:
        source = StdinSource(pipe, realtime=False)
        patience = threading.Timer(30, source.close)  # then there is no block, and the test fails
        patience.start()
        writer.write(data[: len(data) // 16])
        first = next((block for block in source.blocks() if len(block.samples)), None)
        patience.cancel()
        assert first is not None
        source.close()


def test_a_wav_whose_length_nobody_knew_is_heard_as_it_comes(tmp_path):
    sound = babble(16_000, 1.0)
    data = bytearray(write_media(tmp_path / "x.wav", sound, 16_000, "pcm_s16le").read_bytes())
    data[4:8] = b"\xff" * 4
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff" * 4
    assert np.array_equal(heard(piped(bytes(data))), sound[:, 0].astype(np.float32) / 32_768)


def test_several_files_in_one_pipe_are_heard_one_after_another(tmp_path):
    sounds = [babble(rate, 1.0, channels) for rate, channels in ((16_000, 1), (44_100, 2))]
    parts = [
        write_media(tmp_path / f"{number}.wav", sound, rate, "pcm_s16le").read_bytes()
        for number, (sound, rate) in enumerate(zip(sounds, (16_000, 44_100), strict=True))
    ]
    assert len(heard(piped(b"".join(parts)))) == 32_000


@given(
    st.integers(0, 2**32),
    st.integers(2, 4_000),
    st.sampled_from([b"", b"RIFF", b"ID3\x03", b"OggS", b"\xff\xfb", b"G"]),
)
@settings(max_examples=30, deadline=None)
def test_samples_that_begin_with_odd_bytes_stay_samples(seed, size, begin):
    data = begin + random.Random(seed).randbytes(size)
    expected = np.frombuffer(data[: len(data) // 2 * 2], "<i2") / np.float32(32_768)
    assert np.array_equal(heard(piped(data)), expected)


def test_a_file_that_is_broken_is_one_line(tmp_path):
    data = write_media(tmp_path / "x.m4a", babble(16_000, 1.0), 16_000, "aac").read_bytes()
    with pytest.raises(InputError, match=r"^--input -: is damaged or no audio or video file") as caught:
        piped(data[: len(data) // 2])
    assert "\n" not in str(caught.value)


def test_a_track_is_chosen_in_what_is_piped_and_samples_have_none(tmp_path):
    other, sound = babble(48_000, 1.0, seed=5), babble(48_000, 1.0)
    path = write_tracks(tmp_path / "x.mkv", [Sound(other), Sound(sound, default=True)])
    for options in ({}, {"track": 2}):
        assert place_of(heard(piped(path.read_bytes(), **options)), sound[::3, 0].astype(np.float32))[1] > 0.9
    with pytest.raises(InputError, match=r"^--track 1: --input - is raw PCM"):
        piped(bytes(100), track=1)
    with pytest.raises(InputError, match=r"^--track 3: --input - has 2 audio tracks"):
        piped(path.read_bytes(), track=3)


@pytest.mark.parametrize("raw", [True, False])
def test_a_named_pipe_is_waited_for_and_read(tmp_path, raw):
    sound = babble(16_000, 1.0)
    data = sound.tobytes() if raw else write_media(tmp_path / "x.wav", sound, 16_000, "pcm_s16le").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = open_source(input=str(pipe), realtime=False)
    writer = threading.Thread(target=Path(pipe).write_bytes, args=(data,))
    writer.start()
    assert np.array_equal(heard(list(source.blocks())), sound[:, 0].astype(np.float32) / 32_768)
    writer.join()


def test_a_named_pipe_into_which_nobody_writes_can_be_closed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    source = open_source(input=str(tmp_path / "pipe"), realtime=True)
    reader = threading.Thread(target=lambda: list(source.blocks()))
    reader.start()
    source.close()
    reader.join(10)
    assert not reader.is_alive()

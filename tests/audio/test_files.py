import json
import threading
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from media_files import ScriptedClock, tone, write_media

from streamer.audio import files
from streamer.audio.block import AudioBlock
from streamer.audio.files import FileSource, demo_path, read_audio
from streamer.errors import InputError


def read_blocks(path: Path) -> list[AudioBlock]:
    return list(FileSource(str(path), realtime=False).blocks())


def clock_samples(blocks: list[AudioBlock]) -> int:
    return sum(len(block.samples) + block.lost_samples for block in blocks)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def damage(path: Path, start: float, count: int) -> Path:
    """Overwrite `count` bytes from the share `start` of the file on."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * start)
    data[at : at + count] = np.random.default_rng(3).integers(0, 256, count, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


@given(st.integers(0, 9_000), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_16_khz_wav_and_flac_are_bit_exact(tmp_path, count, seed):
    values = np.random.default_rng(seed).integers(-32_768, 32_767, count, dtype=np.int16, endpoint=True)
    expected = values.astype(np.float32) / 32_768
    assert np.array_equal(read_audio(str(write_wav(tmp_path / "x.wav", values))), expected)
    if count >= 16:  # FLAC's smallest block
        flac = write_media(tmp_path / "x.flac", values[:, None], 16_000, "flac")
        assert np.array_equal(read_audio(str(flac)), expected)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "channels", "video"),
    [
        ("wav", "pcm_s16le", 44_100, 2, False),
        ("wav", "pcm_s24le", 96_000, 1, False),
        ("wav", "pcm_u8", 8_000, 1, False),
        ("wav", "pcm_f32le", 22_050, 2, False),
        ("wav", "pcm_f64le", 11_025, 1, False),
        ("flac", "flac", 48_000, 6, False),
        ("mp3", "libmp3lame", 44_100, 2, False),
        ("ogg", "libopus", 48_000, 2, False),
        ("webm", "libopus", 48_000, 1, False),
        ("m4a", "aac", 44_100, 2, False),
        ("mp4", "aac", 48_000, 2, True),
        ("mkv", "aac", 48_000, 1, True),
    ],
)
def test_whatever_people_have_becomes_16_khz_mono(tmp_path, suffix, codec, rate, channels, video):
    path = write_media(tmp_path / f"x.{suffix}", tone(rate, 2.0, channels), rate, codec, video=video)
    source = FileSource(str(path), realtime=False)
    blocks = list(source.blocks())
    sound = np.concatenate([block.samples for block in blocks])
    assert source.name == path.name
    assert not source.live
    assert sound.dtype == np.float32
    assert max(len(block.samples) for block in blocks) <= 800
    assert not [block.reason for block in blocks if block.reason]
    assert abs(len(sound) - 32_000) < 1_600  # lossy encoders pad
    spectrum = np.abs(np.fft.rfft(sound[8_000:24_000]))
    assert int(np.argmax(spectrum)) == 440
    assert 0.25 < np.abs(sound[8_000:24_000]).max() < 0.35


def test_channels_are_averaged(tmp_path):
    frames = np.stack([np.full(1_600, 16_384), np.zeros(1_600)], axis=1).astype(np.int16)
    assert set(read_audio(str(write_media(tmp_path / "x.flac", frames, 16_000, "flac")))) == {np.float32(0.25)}


def test_blocks_and_read_audio_are_the_same_sound(tmp_path):
    path = write_media(tmp_path / "x.mp3", tone(44_100, 3), 44_100, "libmp3lame")
    assert np.array_equal(np.concatenate([block.samples for block in read_blocks(path)]), read_audio(str(path)))


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [("flac", "flac", 16_000), ("m4a", "aac", 48_000), ("ogg", "libopus", 48_000), ("mp3", "libmp3lame", 44_100)],
)
def test_damage_inside_is_a_loss_in_its_place(tmp_path, suffix, codec, rate):
    path = write_media(tmp_path / f"x.{suffix}", tone(rate, 10.0), rate, codec)
    whole = clock_samples(read_blocks(path))
    blocks = read_blocks(damage(path, 0.5, 500))
    lost = sum(block.lost_samples for block in blocks)
    assert lost > 0
    assert [block.reason for block in blocks if block.lost_samples] == [
        f"{path.name}: damaged here, or recorded with a pause"
    ]
    assert abs(clock_samples(blocks) - whole) < 800  # MP3 hides a frame; the others are exact
    if suffix == "flac":
        assert clock_samples(blocks) == whole


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 16_000),
        ("flac", "flac", 16_000),
        ("mp3", "libmp3lame", 44_100),
        ("ogg", "libopus", 48_000),
        ("webm", "libopus", 48_000),
        ("mkv", "aac", 48_000),
    ],
)
def test_a_truncated_file_gives_what_there_is_and_says_so(tmp_path, suffix, codec, rate):
    path = write_media(tmp_path / f"x.{suffix}", tone(rate, 5.0), rate, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    blocks = read_blocks(path)
    assert 30_000 < sum(len(block.samples) for block in blocks) < 55_000
    told = [block for block in blocks if block.reason]
    assert len(told) == 1
    assert told[0].state == "degraded"
    assert told[0].reason.startswith(f"{path.name}: ends early, ")


@given(st.binary(max_size=200), st.floats(0, 1), st.sampled_from(["flac", "mp3", "ogg", "wav", "m4a"]))
@example(garbage=bytes(7), where=0.9375, suffix="m4a")  # a track of no known codec
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_ever_is_a_traceback(tmp_path, garbage, where, suffix):
    codec, rate = {"flac": ("flac", 16_000), "mp3": ("libmp3lame", 16_000), "ogg": ("libopus", 16_000)}.get(
        suffix, ("aac" if suffix == "m4a" else "pcm_s16le", 16_000)
    )
    path = write_media(tmp_path / f"x.{suffix}", tone(rate, 1.0), rate, codec)
    data = bytearray(path.read_bytes())
    at = int(where * len(data))
    data[at : at + len(garbage)] = garbage
    path.write_bytes(data)
    with suppress(InputError):
        assert clock_samples(read_blocks(path)) < 16_000 * 700


def test_files_without_sound_are_refused_by_name_in_one_line(tmp_path):
    text, empty, garbage = tmp_path / "notes.txt", tmp_path / "empty.wav", tmp_path / "garbage.mp3"
    text.write_text("no sound\n" * 100)
    empty.touch()
    garbage.write_bytes(bytes(range(256)) * 8)
    cases = [
        (tmp_path / "nowhere.wav", "no such file"),
        (tmp_path, "is a directory"),
        (empty, "is empty"),
        (garbage, "is damaged or no audio"),
        (text, "has no audio track"),
    ]
    for path, words in cases:
        with pytest.raises(InputError) as caught:
            FileSource(str(path), realtime=False)
        assert str(caught.value).startswith(f"--input {path}: {words}")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^file "):
        read_audio(str(garbage))


def test_a_wav_of_no_samples_just_ends_and_is_said_to_be_empty(tmp_path, caplog):
    assert read_blocks(write_wav(tmp_path / "x.wav", np.zeros(0))) == []
    assert caplog.messages == [f"--input {tmp_path / 'x.wav'}: has no sound in it"]
    assert read_audio(str(tmp_path / "x.wav")).shape == (0,)


def test_a_name_that_looks_like_an_address_is_only_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "concat:a|b.wav", np.ones(100))
    assert len(read_audio("concat:a|b.wav")) == 100
    with pytest.raises(InputError, match="no such file"):
        read_audio("http://127.0.0.1:9/x.wav")


def test_a_playlist_cannot_make_us_fetch(tmp_path):
    playlist = tmp_path / "x.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError):
        read_audio(str(playlist))


def test_real_time_keeps_step_with_the_clock(tmp_path):
    clock = ScriptedClock()
    source = FileSource(str(write_wav(tmp_path / "x.wav", np.ones(32_000))), realtime=True, clock=clock)
    assert source.live
    sounded = 0
    for block in source.blocks():
        sounded += len(block.samples)
        assert clock.now() == pytest.approx(sounded / 16_000)
    assert sounded == 32_000


def test_after_a_stalled_consumer_it_does_not_rush(tmp_path):
    clock = ScriptedClock()
    source = FileSource(str(write_wav(tmp_path / "x.wav", np.ones(160_000))), realtime=True, clock=clock)
    blocks = source.blocks()
    next(blocks)
    clock.now_s += 60.0
    stalled_until = clock.now()
    rest = sum(len(block.samples) for block in blocks)
    assert clock.now() - stalled_until == pytest.approx(rest / 16_000 - 1.0, abs=0.1)


@pytest.mark.parametrize("realtime", [True, False])
def test_close_from_another_thread_ends_the_blocks(tmp_path, realtime):
    source = FileSource(str(write_wav(tmp_path / "x.wav", np.ones(16_000 * 600))), realtime=realtime)
    seen = threading.Event()
    got = []

    def read() -> None:
        for block in source.blocks():
            got.append(len(block.samples))
            seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert seen.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


def test_an_hour_is_never_in_memory_at_once(tmp_path):
    path = write_media(tmp_path / "x.flac", np.zeros((16_000 * 60, 1), np.int16), 16_000, "flac")
    longest = 0
    for block in FileSource(str(path), realtime=False).blocks():
        longest = max(longest, 0 if block.samples.base is None else block.samples.base.size)
    assert longest < 16_000  # what a block is cut from is one decoded frame, not the file


def test_the_demo_is_the_one_that_fits_the_model_or_its_absence_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "audio" / "files.py"))
    with pytest.raises(InputError, match=r"--input demo: .* is missing"):
        demo_path()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo.flac").touch()
    assert demo_path("nano") == str(tmp_path / "data" / "demo.flac")
    with pytest.raises(InputError, match=r"--input demo: .*demo_voices.ogg is missing"):
        demo_path("base")


def test_the_demo_with_people_is_whole_and_says_whose_voices_they_are():
    path = Path(demo_path("base"))
    truth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(read_audio(str(path))) == pytest.approx(truth["seconds"] * 16_000, abs=800)
    assert path.stat().st_size < 700_000
    for part in (*truth["segments"], *truth["events"]):
        assert 0 <= part["start"] < part["end"] <= truth["seconds"]
        assert part["licence"]
    assert all(segment["voice"] and segment["text"] for segment in truth["segments"])


@pytest.mark.shared
def test_the_scenes_decode_to_their_exact_length(shared_dir):
    for path in sorted((shared_dir / "scenes").glob("*.flac"))[:3]:
        sound = read_audio(str(path))
        assert np.array_equal(np.round(sound * 32_768), sound * 32_768)
        assert len(sound) % 16_000 == 0

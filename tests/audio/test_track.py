"""What files really hold: late tracks, several of them, chained links, pauses that were not sent, real damage."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_files import Sound, babble, place_of, rewrite, tone, write_media, write_tracks

from streamer.audio.block import AudioBlock
from streamer.audio.files import FileSource, read_audio
from streamer.audio.resample import Resampler
from streamer.errors import InputError


def blocks_of(path: Path, **options: int) -> list[AudioBlock]:
    return list(FileSource(str(path), realtime=False, **options).blocks())


def heard(blocks: list[AudioBlock]) -> np.ndarray:
    return np.concatenate([part for block in blocks for part in (np.zeros(block.lost_samples), block.samples)])


def told(blocks: list[AudioBlock]) -> list[str]:
    return [block.reason or block.notice for block in blocks if block.reason or block.notice]


def reference(frames: np.ndarray, rate: int) -> np.ndarray:
    """The mean of the channels at 16 kHz."""
    resampler = Resampler(rate)
    return np.concatenate([resampler.push(frames.mean(axis=1).astype(np.float32) / 32_768), resampler.flush()])


def assert_lies_at(blocks: list[AudioBlock], frames: np.ndarray, seconds: float, rate: int = 48_000) -> None:
    at, likeness = place_of(heard(blocks), reference(frames, rate))
    assert at == pytest.approx(seconds, abs=0.03)
    assert likeness > 0.9


def test_channels_that_cancel_are_heard_and_told_once(tmp_path):
    one = babble(16_000, 3.0)
    path = write_media(tmp_path / "x.flac", np.concatenate([one, -one], axis=1), 16_000, "flac")
    blocks = blocks_of(path)
    assert len(told(blocks)) == 1
    assert "cancel each other out" in told(blocks)[0]
    assert {block.state for block in blocks} == {"listening"}
    assert_lies_at(blocks, one, 0.0, 16_000)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
def test_sound_that_begins_late_in_a_video_lies_in_its_place(tmp_path, suffix):
    sound = babble(48_000, 2.0)
    path = write_tracks(tmp_path / f"x.{suffix}", [Sound(sound, "aac", start_s=3.0)], video_s=5.0)
    blocks = blocks_of(path)
    assert told(blocks) == []
    assert sum(block.lost_samples for block in blocks) == 0
    assert_lies_at(blocks, sound, 3.0)


def test_a_sound_file_that_begins_late_keeps_the_clock_and_one_cut_out_of_a_stream_does_not(tmp_path):
    sound = babble(48_000, 1.0)
    for start_s, found_s in [(2.0, 2.0), (4_000.0, 0.0)]:
        path = write_tracks(tmp_path / "x.mkv", [Sound(sound, start_s=start_s)])
        blocks = blocks_of(path)
        assert told(blocks) == []
        assert_lies_at(blocks, sound, found_s)


def test_a_radio_stream_that_was_joined_late_begins_at_once_and_is_whole(tmp_path):
    sound = babble(48_000, 2.0)
    blocks = blocks_of(write_tracks(tmp_path / "x.ogg", [Sound(sound, start_s=3.0)]))
    assert told(blocks) == []
    assert_lies_at(blocks, sound, 0.0)


@pytest.mark.parametrize("suffix", ["webm", "mka"])
def test_pauses_that_were_not_sent_are_silence_and_nothing_is_said(tmp_path, suffix):
    sound = babble(48_000, 5.0)
    sound[48_000:81_600] = sound[153_600:192_000] = 0
    whole = write_media(tmp_path / "whole.webm", sound, 48_000, "libopus")

    def paused(number: int, seconds: float, size: int) -> int | None:
        return None if 1.1 < seconds < 1.6 or 3.3 < seconds < 3.6 else round(1000 * seconds)

    blocks = blocks_of(rewrite(whole, tmp_path / f"paused.{suffix}", paused))
    assert told(blocks) == []
    assert sum(block.lost_samples for block in blocks) == 0
    assert_lies_at(blocks, sound[:48_000], 0.0)
    assert_lies_at(blocks, sound[4 * 48_000 :], 4.0)


@pytest.mark.parametrize(("codec", "rate"), [("libopus", 48_000), ("aac", 48_000)])
def test_sound_that_is_missing_in_the_middle_of_a_word_is_a_gap(tmp_path, codec, rate):
    whole = write_media(tmp_path / "whole.mkv", tone(rate, 5.0), rate, codec)

    def lost(number: int, seconds: float, size: int) -> int | None:
        return None if 2.0 < seconds < 3.0 else round(1000 * seconds)

    blocks = blocks_of(rewrite(whole, tmp_path / "x.mkv", lost))
    assert told(blocks) == ["x.mkv: damaged here, or recorded with a pause"]
    assert sum(block.lost_samples for block in blocks) == pytest.approx(16_000, abs=700)


@pytest.mark.parametrize("suffix", ["webm", "ogg"])
def test_bytes_that_are_overwritten_in_a_pause_are_a_gap_all_the_same(tmp_path, suffix):
    sound = babble(48_000, 12.0)
    sound[4 * 48_000 :] //= 100
    path = write_media(tmp_path / f"x.{suffix}", sound, 48_000, "libopus")
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 500] = np.random.default_rng(3).bytes(500)
    path.write_bytes(data)
    blocks = blocks_of(path)
    assert sum(block.lost_samples for block in blocks) > 8_000
    assert told(blocks) == [f"{path.name}: damaged here, or recorded with a pause"]


@pytest.mark.parametrize("percent", [0.02, -0.02])
def test_a_clock_that_drifts_is_no_damage(tmp_path, percent):
    whole = write_media(tmp_path / "whole.webm", babble(48_000, 30.0)[:, :1], 48_000, "libopus")
    path = rewrite(
        whole, tmp_path / "x.webm", lambda number, seconds, size: round(1000 * seconds * (1 + percent / 100))
    )
    blocks = blocks_of(path)
    assert told(blocks) == []
    assert sum(block.lost_samples for block in blocks) == 0


@pytest.mark.parametrize(
    ("suffix", "codec", "rates"),
    [
        ("ogg", "flac", (16_000, 44_100, 8_000)),
        ("ogg", "libopus", (48_000, 48_000, 48_000)),
        ("flac", "flac", (44_100, 22_050, 44_100)),
        ("wav", "pcm_s16le", (44_100, 8_000, 48_000)),
        ("webm", "libopus", (48_000, 48_000, 48_000)),
        ("mp3", "libmp3lame", (44_100, 22_050, 44_100)),
    ],
)
def test_files_in_a_row_are_heard_to_the_end(tmp_path, suffix, codec, rates):
    sounds = [
        babble(rate, 2.0, channels, seed) for rate, channels, seed in zip(rates, (1, 2, 1), (1, 2, 3), strict=True)
    ]
    path = tmp_path / f"chained.{suffix}"
    path.write_bytes(
        b"".join(
            write_media(tmp_path / f"{number}.{suffix}", sound, rate, codec).read_bytes()
            for number, (sound, rate) in enumerate(zip(sounds, rates, strict=True))
        )
    )
    blocks = blocks_of(path)
    assert told(blocks) == []
    for number, (sound, rate) in enumerate(zip(sounds, rates, strict=True)):
        assert_lies_at(blocks, sound, 2.0 * number, rate)


def test_a_link_that_cannot_be_read_is_told_and_the_next_is_heard(tmp_path):
    sounds = [babble(16_000, 1.0, seed=seed) for seed in (1, 2, 3)]
    parts = [write_media(tmp_path / "x.flac", sound, 16_000, "flac").read_bytes() for sound in sounds]
    parts[1] = parts[1][:60] + bytes(len(parts[1]) - 60)
    path = tmp_path / "chained.flac"
    path.write_bytes(b"".join(parts))
    blocks = blocks_of(path)
    assert len(told(blocks)) == 1
    assert told(blocks)[0].startswith("chained.flac: ")
    assert_lies_at(blocks, sounds[2], 1.0, 16_000)


SILENCE, VOICE, OTHER = np.zeros((48_000, 1), np.int16), babble(48_000, 1.0), babble(48_000, 1.0, seed=2)


@pytest.mark.parametrize(
    ("sounds", "number"),
    [
        ([Sound(OTHER), Sound(VOICE, default=True)], 2),
        ([Sound(VOICE, default=True), Sound(OTHER)], 1),
        ([Sound(VOICE), Sound(OTHER)], 1),
        ([Sound(OTHER, title="Director's commentary", default=True), Sound(VOICE)], 2),
        ([Sound(SILENCE, default=True), Sound(VOICE)], 2),
        ([Sound(SILENCE), Sound(SILENCE), Sound(VOICE)], 3),
        ([Sound(VOICE[:0]), Sound(VOICE)], 2),
    ],
)
def test_the_track_that_is_meant_is_heard_and_told(tmp_path, sounds, number):
    blocks = blocks_of(write_tracks(tmp_path / "x.mkv", sounds, video_s=1.0))
    assert len(told(blocks)) == 1
    assert told(blocks)[0].startswith(f"x.mkv: audio track {number} of {len(sounds)} is heard")
    assert_lies_at(blocks, VOICE, 0.0)


def test_another_track_can_be_asked_for_and_a_wrong_number_is_refused(tmp_path):
    path = write_tracks(tmp_path / "x.mkv", [Sound(VOICE, default=True), Sound(OTHER)])
    blocks = blocks_of(path, track=2)
    assert "audio track 2 of 2" in told(blocks)[0]
    assert_lies_at(blocks, OTHER, 0.0)
    with pytest.raises(InputError, match=r"^--track 3: --input .*x\.mkv has 2 audio tracks; give 1 to 2$"):
        blocks_of(path, track=3)
    one = write_media(tmp_path / "one.flac", VOICE, 48_000, "flac")
    assert told(blocks_of(one, track=1)) == []
    with pytest.raises(InputError, match=r"has 1 audio track; give 1$"):
        blocks_of(one, track=2)


def test_a_picture_of_the_cover_changes_nothing(tmp_path):
    path = tmp_path / "x.mp3"
    with av.open(str(path), "w") as output:
        stream, picture = output.add_stream("libmp3lame", rate=44_100), output.add_stream("mjpeg", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt, picture.disposition = "yuvj420p", Disposition.attached_pic
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(babble(44_100, 2.0).reshape(1, -1), format="s16", layout="mono")
        frame.rate = 44_100
        output.mux([*picture.encode(av.VideoFrame(64, 64, "yuvj420p")), *picture.encode(None)])
        output.mux([*stream.encode(frame), *stream.encode(None)])
    blocks = blocks_of(path)
    assert told(blocks) == []
    assert_lies_at(blocks, babble(44_100, 2.0), 0.0, 44_100)


@pytest.mark.parametrize(
    ("codec", "dtype", "rate", "channels"),
    [
        ("pcm_s32le", np.int32, 192_000, 2),
        ("pcm_f64le", np.float64, 48_000, 1),
        ("pcm_u8", np.uint8, 8_000, 1),
    ],
)
def test_unusual_samples_are_heard(tmp_path, codec, dtype, rate, channels):
    sound = tone(rate, 1.0, channels).astype(np.float64) / 32_768
    values = {np.int32: sound * 2**31, np.float64: sound, np.uint8: sound * 127 + 128}[dtype].astype(dtype)
    samples = read_audio(str(write_media(tmp_path / "x.wav", values, rate, codec)))
    assert len(samples) == 16_000
    assert np.abs(samples).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "begins_s", "lines"),
    [
        ("antiphase.flac", 0.0, 1),
        ("chained_rate.ogg", 0.0, 0),
        ("late_audio.mp4", 5.0, 0),
        ("opus_dtx.webm", 0.0, 0),
        ("pipe_container.m4a", 0.0, 0),
        ("second_track_default.mkv", 0.0, 1),
    ],
)
def test_the_files_that_were_reported_are_heard_in_full(shared_dir, name, begins_s, lines):
    with av.open(str(shared_dir / "bugs" / "antiphase.flac")) as container:
        left = np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in container.decode(audio=0)])
    blocks = blocks_of(shared_dir / "bugs" / name)
    at, likeness = place_of(heard(blocks), left.astype(np.float32) / 32_768)
    assert at == pytest.approx(begins_s, abs=0.05)
    assert likeness > 0.6
    assert sum(block.lost_samples for block in blocks) == 0
    assert len(told(blocks)) == lines


def test_a_coding_that_nobody_can_decode_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 136, b"WAVE", b"fmt ", 16, 0x7777, 1, 8000, 8000, 1, 8, b"data", 100
    )
    path.write_bytes(header + bytes(100))
    with pytest.raises(InputError, match=r"odd\.wav: its sound is in a coding that has no decoder here; convert it"):
        read_audio(str(path))

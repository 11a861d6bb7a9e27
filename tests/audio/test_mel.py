"""The whole recording's mel is openai-whisper's, however the samples come."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

from streamer.audio.mel import MelFrames, RecordingMel

RNG = np.random.default_rng(3)
T = np.arange(31 * 16_000) / 16_000
SOUND = (0.3 * np.sin(2 * np.pi * 440 * T * (1 + T / 20)) * (T % 1.5) + 0.02 * RNG.standard_normal(len(T))).astype(
    np.float32
)
SOUND[5 * 16_000 : 7 * 16_000] = 0  # digital silence


def filled(samples: np.ndarray, chunks: list[int], n_mels: int = 80, start_sample: int = 0) -> MelFrames:
    mel = MelFrames(n_mels, start_sample)
    at = turn = 0
    while at < len(samples):
        size = chunks[turn % len(chunks)]
        mel.append(samples[at : at + size])
        at, turn = at + size, turn + 1
    return mel


def whisper_mel(samples: np.ndarray, n_mels: int = 80, total_frames: int | None = None) -> torch.Tensor:
    padding = 0 if total_frames is None else total_frames * 160 - len(samples)
    return log_mel_spectrogram(samples, n_mels, padding=padding)


@pytest.mark.parametrize("n_mels", [80, 128])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_window_equals_openai_whispers_mel_of_the_same_samples(n_mels: int, data: st.DataObject) -> None:
    start = 160 * data.draw(st.integers(0, 1000))
    length = data.draw(st.one_of(st.integers(201, 2000), st.integers(2001, 200_000)))
    offset = 160 * data.draw(st.integers(0, 100))  # the stream need not begin at sample 0
    mel = filled(SOUND[: start + length], [4000], n_mels, offset)
    window = mel.window(offset + start, offset + start + length)
    assert_close(window, whisper_mel(SOUND[start : start + length], n_mels), atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(0, 100),
    length=st.one_of(st.integers(201, 2000), st.integers(2001, 400_000), st.integers(479_000, 480_000)),
    spare=st.integers(0, 5),
)
def test_a_padded_window_equals_openai_whispers_mel_with_zeros_behind(start: int, length: int, spare: int) -> None:
    samples = SOUND[160 * start : 160 * start + length]
    mel = filled(SOUND[: 160 * start + length], [8000])
    for total_frames in (3000, -(-length // 160) + spare):
        window = mel.window(160 * start, 160 * start + length, total_frames)
        assert window.shape == (80, total_frames)
        assert_close(window, whisper_mel(samples, total_frames=total_frames), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    hop=st.sampled_from([1600, 8000, 12_345]),
    length=st.integers(0, 30_000),
)
def test_chunks_discards_and_earlier_windows_change_no_bit(chunks: list[int], hop: int, length: int) -> None:
    samples = SOUND[: 64_000 + length]
    start, end = 160 * 130, len(samples)
    whole = filled(samples, [len(samples)]).window(start, end)

    mel, at, turn, asked = MelFrames(80), 0, 0, hop
    while at < end:
        mel.append(samples[at : at + chunks[turn % len(chunks)]])
        at, turn = mel.end_sample, turn + 1
        while asked <= at:  # what the live engine does: windows while audio arrives, old audio discarded
            mel.window(mel.start_sample // 160 * 160 + 160, asked) if asked - mel.start_sample > 400 else None
            mel.discard_before(min(start, asked - 6000))
            asked += hop
    assert torch.equal(mel.window(start, end), whole)


def test_memory_stays_bounded_while_a_stream_runs_for_long() -> None:
    mel = MelFrames(80)
    for second in range(600):
        mel.append(SOUND[:16_000])
        if second >= 30:
            mel.window((second - 29) * 16_000, (second + 1) * 16_000)
            mel.discard_before((second - 29) * 16_000)
    assert len(mel._blocks) <= 62
    assert len(mel._samples) <= 4 * 31 * 16_000
    assert mel.end_sample - mel.start_sample == 30 * 16_000


def test_one_huge_chunk_is_given_back_when_discarded() -> None:
    mel = MelFrames(80)
    mel.append(np.zeros(5_000_000, dtype=np.float32))
    mel.discard_before(4_990_000)
    assert len(mel._samples) <= 32_000
    assert mel.window(4_990_080, 5_000_000).shape == (80, 62)


@pytest.mark.parametrize(
    ("start", "end", "total", "says"),
    [
        (10, 8000, None, "multiple of 160"),
        (0, 8000, None, "not all kept"),
        (1600, 16_001, None, "not all kept"),
        (1600, 1800, None, "too short"),
        (1600, 8000, 39, "do not fit"),
    ],
)
def test_impossible_windows_are_refused(start: int, end: int, total: int | None, says: str) -> None:
    mel = filled(SOUND[:16_000], [4000])
    mel.discard_before(1000)
    with pytest.raises(ValueError, match=says):
        mel.window(start, end, total)


def test_wrong_samples_are_refused() -> None:
    mel = MelFrames(80)
    with pytest.raises(ValueError, match="float32"):
        mel.append(np.zeros(10))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float32"):
        mel.append(np.zeros((2, 10), dtype=np.float32))


def cut(samples, seed):
    places = np.sort(np.random.default_rng(seed).integers(0, len(samples) + 1, 60))
    return np.split(samples, places)


@pytest.mark.parametrize(("seconds", "n_mels"), [(0.0, 80), (0.01, 80), (1.003, 128), (29.99, 80), (64.217, 80)])
def test_windows_equal_openai_whispers(seconds, n_mels):
    generator = np.random.default_rng(round(seconds * 1000))
    samples = generator.normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)
    samples *= np.linspace(0.001, 1, len(samples), dtype=np.float32) ** 4  # the loudest frame comes last
    mel = log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES)
    found = RecordingMel(cut(samples, 1), n_mels)
    assert found.frames == mel.shape[1] - N_FRAMES
    torch.testing.assert_close(found.opening(), pad_or_trim(mel, N_FRAMES), atol=1e-5, rtol=0)
    for start in {0, found.frames // 3, max(found.frames - 50, 0)}:
        end = min(start + N_FRAMES, found.frames)
        torch.testing.assert_close(
            found.window(start, end), pad_or_trim(mel[:, start:end], N_FRAMES), atol=1e-5, rtol=0
        )


def test_values_that_are_not_finite_are_silence():
    samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    silent = samples.copy()
    samples[5000:5100], silent[5000:5100] = np.nan, 0
    found, right = RecordingMel([samples], 80), RecordingMel([silent], 80)
    assert torch.equal(found.window(0, 200), right.window(0, 200))

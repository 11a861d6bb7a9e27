"""The whole recording's mel is openai-whisper's, however the samples come."""

import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

from streamer.audio.recording_mel import RecordingMel


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

"""silero-vad beside webrtcvad on a real voice, and on sounds that webrtcvad takes for one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamer.audio.files import read_audio
from streamer.events import FRAME_SAMPLES
from streamer.settings.config import VadSettings
from streamer.vad.voice import SpeechProbability, VoiceDetector

VOICE = Path(__file__).parents[1] / "recordings" / "LJ001-0081.flac"
SECONDS = np.arange(6 * 16_000) / 16_000
NOISE = np.random.default_rng(0)
SOUNDS = {
    "white noise": 0.1 * NOISE.standard_normal(len(SECONDS)),
    "siren": 0.3 * np.sin(2 * np.pi * np.cumsum(900 + 400 * np.sin(2 * np.pi * 0.3 * SECONDS)) / 16_000),
    "bursts": 0.2 * NOISE.standard_normal(len(SECONDS)) * (np.sin(2 * np.pi * 3 * SECONDS) > 0.5),
}


def voiced(samples, **about) -> float:
    """The share of voiced frames."""
    detector = VoiceDetector(VadSettings(**about))
    samples = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].astype(np.float32)
    return float(np.mean([detector.step(frame).voiced for frame in samples.reshape(-1, FRAME_SAMPLES)]))


@pytest.mark.parametrize("level_db", [0, -20, -35])
def test_a_voice_is_one_however_quiet(level_db):
    assert voiced(read_audio(str(VOICE)) * 10 ** (level_db / 20)) > 0.6


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_no_voice(name):
    assert voiced(SOUNDS[name]) < 0.02


def test_without_its_word_webrtcvad_decides():
    assert voiced(SOUNDS["bursts"], speech_probability=0) > 0.2


def test_pieces_may_be_cut_anywhere():
    samples = read_audio(str(VOICE))[:16_000]
    whole = SpeechProbability()
    expected = [whole.step(samples[at : at + 512]) for at in range(0, len(samples) - 511, 512)]
    cut = SpeechProbability()
    found = [
        cut.step(piece) for piece in np.split(samples[: len(expected) * 512], range(100, len(expected) * 512, 100))
    ]
    assert found[-1] == expected[-1]
    assert set(found) <= {0.0, *expected}


def test_it_leaves_the_number_of_torchs_threads_alone():
    """Importing silero_vad itself would set it to one, for the whole program."""
    code = (
        "import torch; torch.set_num_threads(3); from streamer.vad.voice import SpeechProbability; "
        "SpeechProbability(); assert torch.get_num_threads() == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

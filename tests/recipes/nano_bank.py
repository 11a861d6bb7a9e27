"""A small bank of tones in place of voices, for tests that must run without espeak-ng, flite or recordings."""

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.bank import Bank
from streamer.recipes.nano.words import DIGITS
from streamer.recipes.synthesis.clips import Clip, SoundClip, TimedWord, activity


def word(text: str, number: int, seconds: float = 0.4) -> Clip:
    """One "word": a steady tone whose pitch tells which."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    audio = (0.3 * np.sin(2 * np.pi * (200 + 150 * number) * time)).astype(np.float32)
    return Clip(audio, (TimedWord(text, 0, len(audio)),), "tone")


def small_bank() -> Bank:
    """Two speakers, one voice, three sentences, two sounds."""
    speaker = {text: (word(text, number), word(text, number, 0.5)) for number, text in enumerate(DIGITS)}
    parts = [word(text, number) for number, text in enumerate(("open", "the", "door"))]
    place, timed = 0, []
    for part in parts:
        timed.append(TimedWord(part.words[0].text, place, place + len(part.audio)))
        place += len(part.audio)
    sentence = Clip(np.concatenate([part.audio for part in parts]), tuple(timed), "tone")
    random = np.random.default_rng(0)
    sounds = []
    for index, name in ((80, "cat"), (288, "water")):
        audio = (0.2 * random.normal(0, 1, 2 * SAMPLE_RATE)).astype(np.float32)
        audio[SAMPLE_RATE:] = 0
        sounds.append(SoundClip(audio, (index,), activity(audio), name))
    return Bank((speaker, speaker), (speaker,), (sentence,) * 3, tuple(sounds))

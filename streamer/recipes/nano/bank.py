"""The bank: all speech and sounds that windows are composed of, made once per run from recordings and synthesis."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from streamer.recipes.nano.voices import Espeak, flite_phones, random_espeak, random_flite
from streamer.recipes.nano.words import DIGITS, digits, sentence
from streamer.recipes.synthesis.clips import Audio, Clip, Recordings, SoundClip, TimedWord


@dataclass(frozen=True)
class Bank:
    """Speech and sounds to compose from.

    `speakers`: recorded digits, by speaker and word. `voices`: the same of synthetic voices. `sentences`: continuous
    synthetic speech. `sounds`: recorded sounds.
    """

    speakers: tuple[dict[str, tuple[Clip, ...]], ...]
    voices: tuple[dict[str, tuple[Clip, ...]], ...]
    sentences: tuple[Clip, ...]
    sounds: tuple[SoundClip, ...]

    @cached_property
    def flite(self) -> tuple[Clip, ...]:
        """The sentences by flite's voices."""
        return tuple(clip for clip in self.sentences if clip.voice.startswith("flite:"))

    @cached_property
    def espeak(self) -> tuple[Clip, ...]:
        """The sentences by espeak-ng's voices."""
        return tuple(clip for clip in self.sentences if not clip.voice.startswith("flite:"))


def build(recordings: Recordings, *, voices: int, espeak: int, flite: int, seed: int) -> Bank:
    """Synthesise `voices` sets of digits, `espeak` and `flite` sentences; take the recordings as they are."""
    random = np.random.default_rng(seed)
    library, phones = Espeak(), lru_cache(flite_phones)
    with ThreadPoolExecutor(1) as beside:  # flite runs as a program: the library of espeak-ng works meanwhile
        told = beside.submit(_flite_sentences, flite, np.random.default_rng([seed, 1]), phones)
        sets = [_digit_voice(library, random, phones, with_flite=index % 6 == 0) for index in range(voices)]
        spoken = [random_espeak(library, _text(random), random) for _ in range(espeak)] + told.result()
    return Bank(
        speakers=tuple(_by_word(clips) for _, clips in sorted(recordings.digits.items())),
        voices=tuple(_by_word(tuple(clips)) for clips in sets),
        sentences=tuple(_levelled(clip) for clip in spoken if clip is not None),
        sounds=recordings.sounds,
    )


def _flite_sentences(count: int, random: np.random.Generator, phones: Callable[[str], int]) -> list[Clip | None]:
    return [random_flite(_text(random), random, phones) for _ in range(count)]


def _text(random: np.random.Generator) -> tuple[str, ...]:
    return digits(random, 2, 6) if random.random() < 0.25 else sentence(random)


def _digit_voice(
    library: Espeak, random: np.random.Generator, phones: Callable[[str], int], *, with_flite: bool
) -> list[Clip]:
    """The ten digits spoken alone by one random voice."""
    seed = int(random.integers(0, 2**31))
    clips = []
    for word in DIGITS:
        voice = np.random.default_rng(seed)
        clip = random_flite((word,), voice, phones) if with_flite else random_espeak(library, (word,), voice)
        if clip is not None:
            clips.append(_levelled(_trimmed(clip)))
    return clips


def _by_word(clips: tuple[Clip, ...]) -> dict[str, tuple[Clip, ...]]:
    words: dict[str, list[Clip]] = {}
    for clip in clips:
        words.setdefault(clip.words[0].text, []).append(clip)
    return {word: tuple(found) for word, found in words.items()}


def _trimmed(clip: Clip) -> Clip:
    """A clip of one word without the silence around it."""
    loud = np.flatnonzero(np.abs(clip.audio) > 0.02 * np.abs(clip.audio).max())
    audio: Audio = clip.audio[loud[0] : loud[-1] + 1]
    return Clip(audio, (TimedWord(clip.words[0].text, 0, len(audio)),), clip.voice)


def _levelled(clip: Clip) -> Clip:
    peak = max(float(np.abs(clip.audio).max()), 1e-4)
    return Clip((clip.audio / peak * 0.5).astype(np.float32), clip.words, clip.voice)

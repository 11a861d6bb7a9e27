"""Windows as streaming cuts them, from recordings of people: they begin and end anywhere, also inside a word.

Recordings of one language are laid one behind another with pauses in between, louder and softer, with noise from other
recordings; a window of 1 to 28 s is cut from such a tape. Drawn from a seed and a number, so that a run that was killed
goes on with the windows that it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.measure.recordings import SOUNDS, Recording

RATE = 16_000
LENGTHS_S = ((1.0, 6.0), (6.0, 12.0), (12.0, 28.0))  # of windows,
OFTEN = (0.6, 0.28, 0.12)  # and how often
PAUSES_S = (0.15, 1.5)
GAINS_DB = (-12.0, 6.0)
NOISY, NOISE_SNR_DB = 0.35, (5.0, 25.0)
TRAILING, TRAILING_S = 0.4, (0.1, 1.5)  # how often nobody speaks at the end, and for how long
AT_START = 0.6  # how often a window begins where a recording does, as it does behind a pause
FASTER = (0.88, 1.14)  # every second recording is played so much faster and higher: other voices than there are
HISS = 3e-4  # RMS of what a quiet room sounds like

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """float32 [n] at 16 kHz, and the text that was said before it, if it is known."""

    samples: Samples
    language: str | None
    before: str


class Windows:
    """Draws windows from recordings; those of sets `sounds/…` are the noise."""

    def __init__(self, recordings: Sequence[Recording], seed: int) -> None:
        """Reads all of them. Raises InputError for one that cannot be read, UsageError where nobody speaks."""
        self._seed = seed
        self._noises = [item.samples() for item in recordings if item.set.startswith(SOUNDS)]
        self._spoken: dict[str | None, list[tuple[Samples, str]]] = {}
        for item in recordings:
            if not item.set.startswith(SOUNDS):
                self._spoken.setdefault(item.language, []).append((item.samples(), item.text))
        if not self._spoken:
            raise UsageError(f"--data: every set begins with {SOUNDS}: recordings of people who speak are needed")
        lengths = [sum(len(samples) for samples, _ in found) for found in self._spoken.values()]
        self._languages = list(self._spoken)
        # Every language often enough to be kept, those with more recordings more often.
        self._shares = np.sqrt(lengths) / np.sqrt(lengths).sum()

    def seconds(self) -> dict[str, float]:
        """How much is said in each language; where it is not known, it is English."""
        found: dict[str, float] = {}
        for language, spoken in self._spoken.items():
            said = sum(len(samples) for samples, _ in spoken) / RATE
            found[language or "en"] = found.get(language or "en", 0.0) + round(said, 1)
        return found

    def draw(self, number: int) -> Window:
        """The window of this number."""
        random = np.random.default_rng((self._seed, number))
        language = self._languages[random.choice(len(self._languages), p=self._shares)]
        length = round(random.uniform(*LENGTHS_S[random.choice(len(LENGTHS_S), p=OFTEN)]) * RATE)
        tape, starts, texts = self._tape(random, language, length)
        if random.random() < AT_START:
            start = starts[random.integers(len(starts))]
        else:
            start = int(random.integers(max(1, len(tape) - length)))
        start = min(start, max(0, len(tape) - length))
        before = " ".join(text for at, text in zip(starts, texts, strict=True) if at + RATE < start)
        cut = tape[start : start + length].copy()
        if random.random() < TRAILING:
            silent = min(round(random.uniform(*TRAILING_S) * RATE), len(cut) // 2)
            cut[len(cut) - silent :] = 0
        cut = cut * np.float32(10 ** (random.uniform(*GAINS_DB) / 20))
        cut += random.standard_normal(len(cut), np.float32) * np.float32(HISS * random.random())
        if self._noises and random.random() < NOISY:
            cut += self._noise(random, cut)
        return Window(np.clip(cut, -1, 1), language, before)

    def _tape(
        self, random: np.random.Generator, language: str | None, length: int
    ) -> tuple[Samples, list[int], list[str]]:
        """Recordings one behind another until there is more than `length`; where each starts, and what is said."""
        spoken = self._spoken[language]
        parts: list[Samples] = []
        starts: list[int] = []
        texts: list[str] = []
        total = 0
        while total < length or len(parts) < 2:
            samples, text = spoken[random.integers(len(spoken))]
            if random.random() < 0.5:
                samples = _faster(samples, random.uniform(*FASTER))
            pause = np.zeros(round(random.uniform(*PAUSES_S) * RATE), np.float32)
            starts.append(total)
            texts.append(text)
            parts += [samples, pause]
            total += len(samples) + len(pause)
        return np.concatenate(parts), starts, texts

    def _noise(self, random: np.random.Generator, speech: Samples) -> Samples:
        noise = self._noises[random.integers(len(self._noises))]
        noise = np.resize(np.roll(noise, int(random.integers(len(noise)))), len(speech))
        level, wanted = _rms(noise), _rms(speech) * 10 ** (-random.uniform(*NOISE_SNR_DB) / 20)
        return noise * np.float32(wanted / level) if level else noise


def _faster(samples: Samples, times: float) -> Samples:
    at = np.arange(0, len(samples) - 1, times, dtype=np.float32)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))

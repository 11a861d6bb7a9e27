"""A bell that nobody has: what a person would record of it, for tests of one's own sounds."""

import numpy as np
from numpy.typing import NDArray

RATE = 16_000


def chime(seed: int, *, notes: tuple[float, ...] = (1318.5, 1046.5, 784.0), level: float = 0.2) -> NDArray[np.float32]:
    """Three struck notes in 1.2 s with faint noise around them, each time a little different."""
    random = np.random.default_rng(seed)
    samples = np.zeros(round(2.0 * RATE), np.float32)
    for place, pitch in enumerate(notes):
        time = np.arange(round(0.5 * RATE)) / RATE
        wave = sum(np.sin(2 * np.pi * pitch * k * time) / k**1.5 for k in (1, 2.76, 5.4))
        start = round((0.3 + 0.35 * place) * RATE)
        samples[start : start + len(time)] += (level * wave * np.exp(-6 * time)).astype(np.float32)
    return samples * np.float32(random.uniform(0.4, 1.0)) + random.normal(0, 0.001, len(samples)).astype(np.float32)


def noise(seed: int, seconds: float, level: float = 0.003) -> NDArray[np.float32]:
    """A quiet room."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)

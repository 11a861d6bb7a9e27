"""Noise with the spectrum of average speech, and gains in third octaves."""

import numpy as np

from streamer.monitor.prescription import _SPEECH_70


def speech_noise(rate, seconds, level_db, full_scale_db, seed=0):
    """[n] of that level in dB SPL, where 0 dBFS is `full_scale_db`."""
    count = rate * seconds
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hz = np.array([one for one, _ in _SPEECH_70])
    density = np.array([one for _, one in _SPEECH_70]) - 10 * np.log10(hz)
    at = np.log(np.maximum(np.fft.rfftfreq(count, 1 / rate), 1))
    sound = np.fft.irfft(spectrum * 10 ** (np.interp(at, np.log(hz), density, left=-60, right=-60) / 20), count)
    return sound / np.sqrt(np.mean(sound**2)) * 10 ** ((level_db - full_scale_db) / 20)


def third_octave_gains(given, came, rate, centres_hz):
    """dB at these frequencies."""
    hz = np.fft.rfftfreq(len(given), 1 / rate)
    before, after = (np.abs(np.fft.rfft(one)) ** 2 for one in (given, came))
    bands = [(hz >= centre * 2 ** (-1 / 6)) & (hz < centre * 2 ** (1 / 6)) for centre in centres_hz]
    return np.array([10 * np.log10(after[band].sum() / before[band].sum()) for band in bands])


def through(chain, sound):
    """float32 [2, n] of a whole sound, block by block."""
    size = chain.block
    blocks = [sound[at : at + size] for at in range(0, len(sound) // size * size, size)]
    return np.concatenate([chain.step(block.astype(np.float32)) for block in blocks], axis=1)

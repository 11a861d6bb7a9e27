"""What happens to a sound on its way: other voices, rooms, microphones, telephone lines, noise."""

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis.clips import Audio, Clip, TimedWord

POINTS = 2049  # frequencies, 4 Hz apart, at which gains are computed; between them they are straight lines


def rms(audio: Audio) -> float:
    """Root mean square over the samples, at least 1e-6."""
    return max(float(np.sqrt(np.mean(np.square(audio)))) if len(audio) else 0.0, 1e-6)


def resampled(clip: Clip, factor: float) -> Clip:
    """Played `factor` times as fast: pitch, formants and tempo change together."""
    audio = soxr.resample(clip.audio, SAMPLE_RATE * factor, SAMPLE_RATE, quality="QQ").astype(np.float32)
    return Clip(audio, _scaled(clip.words, 1 / factor, len(audio)), clip.voice)


def stretched(clip: Clip, factor: float) -> Clip:
    """`factor` times as long with the pitch kept (WSOLA: overlapped frames of 40 ms, best match within 8 ms)."""
    frame, reach = 640, 128
    hop = frame // 2
    source = np.pad(clip.audio, (reach, frame + 2 * reach))
    count = max(1, int(len(clip.audio) * factor) // hop)
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    out = np.zeros((count + 1) * hop, np.float32)
    place = reach
    for index in range(count):
        ideal = min(reach + int(index * hop / factor), len(source) - frame - reach)
        if index:
            natural = source[place + hop : place + hop + frame]
            area = source[ideal - reach : ideal + reach + frame]
            if len(natural) == frame and len(area) == frame + 2 * reach:
                ideal += int(np.argmax(np.correlate(area[::2], natural[::2], "valid"))) * 2 - reach
        place = max(0, min(ideal, len(source) - frame))
        out[index * hop : index * hop + frame] += window * source[place : place + frame]
    return Clip(out, _scaled(clip.words, factor, len(out)), clip.voice)


def formants_moved(clip: Clip, factor: float) -> Clip:
    """The spectral envelope (cepstrally smoothed) moved up by `factor`; the pitch stays."""
    size, hop = 512, 128
    frames = 1 + (len(clip.audio) + size) // hop
    source = np.pad(clip.audio, (size, size + hop))
    index = np.arange(frames)[:, None] * hop + np.arange(size)
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    spectrum = fft.rfft(source[index] * window, axis=1)
    cepstrum = fft.irfft(np.log(np.abs(spectrum) + np.float32(1e-4)), axis=1)
    cepstrum[:, 28:-27] = 0
    envelope = fft.rfft(cepstrum, axis=1).real
    bins = np.arange(size // 2 + 1)
    low = np.clip(bins / factor, 0, size // 2)
    floor = low.astype(int)
    share = (low - floor).astype(np.float32)
    moved = envelope[:, floor] * (1 - share) + envelope[:, np.minimum(floor + 1, size // 2)] * share
    wave = fft.irfft(spectrum * np.exp(np.clip(moved - envelope, -3, 3)), axis=1) * window
    out = np.zeros((frames + size // hop, hop), np.float32)
    for part in range(size // hop):
        out[part : part + frames] += wave[:, part * hop : (part + 1) * hop]
    audio = out.reshape(-1)[size : size + len(clip.audio)] / np.float32(1.5)
    return Clip(audio, clip.words, clip.voice)


def _scaled(words: tuple[TimedWord, ...], factor: float, length: int) -> tuple[TimedWord, ...]:
    return tuple(TimedWord(word.text, int(word.start * factor), min(int(word.end * factor), length)) for word in words)


def filtered(audio: Audio, random: np.random.Generator, *, narrow: float) -> Audio:
    """A random microphone: tilt and three broad peaks; with probability `narrow` a telephone's or 8 kHz band too."""
    size = _fast_length(len(audio))
    spectrum = fft.rfft(audio, size)
    frequency = np.linspace(0, SAMPLE_RATE / 2, POINTS)
    octave = np.log2(np.maximum(frequency, 60) / 1000)
    gain_db = random.normal(0, 2.0) * octave
    for _ in range(3):
        gain_db = gain_db + random.normal(0, 4) * np.exp(
            -(((octave - random.uniform(-3, 3)) / random.uniform(0.3, 1.2)) ** 2)
        )
    gain = 10 ** (np.clip(gain_db, -24, 24) / 20)
    if random.random() < narrow:
        top = random.choice(np.array([3400.0, 3800.0, 3950.0, 5500.0]))
        gain = gain / np.sqrt(1 + (frequency / top) ** 40)
    if random.random() < 0.3:
        gain = gain / np.sqrt(1 + (random.uniform(80, 350) / np.maximum(frequency, 1)) ** 6)
    spectrum *= _at_bins(gain, size)
    return np.asarray(fft.irfft(spectrum, size)[: len(audio)], np.float32)


def in_room(audio: Audio, random: np.random.Generator) -> Audio:
    """A random room: direct sound and an exponentially decaying tail of coloured noise (0.1 to 0.7 s)."""
    decay = random.uniform(0.08, 0.6)
    count = int(decay * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    dry = random.standard_normal(count, np.float32) * np.exp(-6.9 * time / decay)
    tail = np.convolve(dry, [1, random.uniform(0, 0.9)], mode="same")
    tail[: int(random.uniform(0.001, 0.012) * SAMPLE_RATE)] = 0
    tail *= 10 ** (-random.uniform(-3, 16) / 20) / np.sqrt(np.square(tail).sum() + 1e-9)
    tail[0] = 1.0
    size = _fast_length(len(audio) + count)
    wet = fft.irfft(fft.rfft(audio, size) * fft.rfft(tail.astype(np.float32), size), size)[: len(audio)]
    return np.asarray(wet, np.float32)


def noise(count: int, random: np.random.Generator) -> Audio:
    """Noise of a random colour (white to brown, or a hump), sometimes breathing, sometimes with mains hum; rms 1."""
    size = min(_fast_length(count), 1 << 17)  # 8 s that join seamlessly
    frequency = np.maximum(np.linspace(0, SAMPLE_RATE / 2, POINTS), 20.0)
    shape = frequency ** (-random.uniform(-0.3, 2.0) / 2)
    if random.random() < 0.3:
        shape = shape * (
            0.1 + np.exp(-((np.log2(frequency / random.uniform(150, 5000)) / random.uniform(0.3, 2)) ** 2))
        )
    spectrum = random.standard_normal((size // 2 + 1, 2), np.float32).view(np.complex64)[:, 0]
    wave = fft.irfft(spectrum * _at_bins(shape, size), size)
    wave = np.tile(wave, -(-count // size))[:count]
    wave /= rms(wave)
    if random.random() < 0.3:
        depth, rate = random.uniform(0.2, 0.9), random.uniform(0.1, 4)
        turns = np.arange(count, dtype=np.float32) * np.float32(rate / SAMPLE_RATE) + np.float32(random.uniform())
        wave *= 1 + np.float32(depth) * np.sin(np.float32(2 * np.pi) * turns)
    if random.random() < 0.2:
        mains = random.choice(np.array([50.0, 60.0])) * np.arange(1, 6)
        time = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE  # whole periods of both
        hum = random.uniform(0.2, 1.5) * np.sin(2 * np.pi * np.outer(time, mains)) @ (random.uniform(0, 1, 5) / 2)
        wave += np.resize(hum.astype(np.float32), count)
    return np.asarray(wave / rms(wave), np.float32)


def _at_bins(gain: NDArray[np.float64], size: int) -> Audio:
    """Gains at `POINTS` frequencies from 0 to the highest, at the bins of an FFT over `size` samples."""
    bins = np.linspace(0, POINTS - 1, size // 2 + 1)
    return np.interp(bins, np.arange(POINTS), gain).astype(np.float32)


def through_line(audio: Audio, random: np.random.Generator) -> Audio:
    """What capture does to it, now and then: clipping, 8 bit mu-law, dropped bits, a constant offset."""
    choice = random.random()
    if choice < 0.05:
        limit = float(np.abs(audio).max()) * random.uniform(0.2, 0.7) + 1e-6
        return np.clip(audio, -limit, limit).astype(np.float32)
    if choice < 0.12:
        peak = max(float(np.abs(audio).max()), 1e-4)
        code = np.sign(audio) * np.log1p(255 * np.abs(audio) / peak) / np.log(256)
        code = np.round(code * 127) / 127
        return np.asarray(np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255 * peak, np.float32)
    if choice < 0.17:
        step = 2.0 ** -float(random.integers(7, 12))
        return np.asarray(np.round(audio / step) * step, np.float32)
    if choice < 0.2:
        return (audio + random.normal(0, 0.01)).astype(np.float32)
    return audio


def _fast_length(count: int) -> int:
    """The next length that the FFT likes: 2^k, 3·2^k or 5·2^k."""
    power = 1 << max(8, (max(count, 1) - 1).bit_length())
    options: NDArray[np.int64] = np.array([power // 8 * 5, power // 4 * 3, power])
    return int(options[options >= count][0])

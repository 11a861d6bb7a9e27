"""Incremental log-mel frames: openai-whisper's `log_mel_spectrogram`, with each frame's energies computed once.

A frame's log10 energies depend on 400 samples only, so they are kept; what depends on the whole window (the clamp to
8 below its maximum, the scale, the reflected samples at its two edges) is applied when a window is asked for.

Frames are computed in blocks of one fixed size on a fixed grid, with zeros where samples have not arrived yet, so that
a frame's bits never depend on how the samples came in. Any one thread may own a `MelFrames`; it is not shared.

A whole recording (`RecordingMel`) is seen as by openai-whisper's `transcribe`: windows of one spectrogram.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

from streamer.audio.fine_spectrum import Spectrum, fine_spectrum
from streamer.events import SAMPLE_RATE

HOP_SAMPLES: int = HOP_LENGTH  # 160: a mel frame every 10 ms
FRAMES_PER_SECOND: int = SAMPLE_RATE // HOP_LENGTH  # 100 frames a second
MIN_WINDOW_SAMPLES: int = N_FFT // 2 + 1  # fewer cannot be reflected at the edges
WINDOW_FRAMES = 3000  # 30 s

_HALF_FFT: int = N_FFT // 2  # samples on either side of a frame's centre
_LEFT_EDGE_FRAMES = 2  # frames at the start of a window that reach over its edge
_BLOCK_FRAMES = 50
_BLOCK_PHASE = 1  # so that a block ends with the last frame that a hop of 0.5 s completes
_BLOCK_SAMPLES = (_BLOCK_FRAMES - 1) * HOP_LENGTH + N_FFT
_MIN_ENERGY = 1e-10
_DYNAMIC_RANGE = 8.0  # log10 below the maximum of a window, or of a whole recording
_PIECE_SAMPLES: int = WINDOW_FRAMES * HOP_LENGTH


class MelFrames:
    """The mel frames of one stream, by absolute sample index (16 kHz); frame f is centred on sample 160 f.

    Bounded by what is not discarded: 64 kB of samples and 32 kB of energies (80 bands) a second.
    """

    def __init__(self, n_mels: int, start_sample: int = 0) -> None:
        """`n_mels` 80 or 128; `start_sample`: absolute index of the first sample that will be appended."""
        self.n_mels = n_mels
        self._filters: Tensor = mel_filters("cpu", n_mels)
        self._hann = torch.hann_window(N_FFT)
        self._samples = np.zeros(SAMPLE_RATE, dtype=np.float32)
        self._start = self._end = start_sample  # absolute range of what `_samples` holds
        self._blocks: dict[int, tuple[int, Tensor]] = {}  # block -> (end of its complete frames, log10 energies)

    @property
    def start_sample(self) -> int:
        """Absolute index of the oldest sample that is kept."""
        return self._start

    @property
    def end_sample(self) -> int:
        """Absolute index one past the newest sample."""
        return self._end

    def copy(self) -> "MelFrames":
        """The same frames for another owner, while a step that hangs may still read these."""
        other = MelFrames(self.n_mels, self._start)
        other._samples, other._end = self._samples.copy(), self._end
        other._blocks = dict(self._blocks)
        return other

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add the next samples, float32 [n], any n; ValueError for any other array."""
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise ValueError(f"samples are {samples.dtype} {list(samples.shape)}: float32 [n] is needed")
        used = self._end - self._start
        needed = used + len(samples)
        if needed > len(self._samples):
            self._reallocate(0, 2 * needed)
        self._samples[used:needed] = samples
        self._end += len(samples)

    def discard_before(self, sample: int) -> None:
        """Forget samples and frames before the absolute index `sample`; no later window may start before it."""
        sample = min(max(sample, self._start), self._end)
        drop = sample - self._start
        if drop == 0:
            return
        kept = self._end - sample
        if len(self._samples) > max(8 * kept, SAMPLE_RATE):
            self._reallocate(drop, max(2 * kept, SAMPLE_RATE))
        else:
            self._samples[:kept] = self._samples[drop : drop + kept]
        self._start = sample
        oldest = _block_of(sample // HOP_LENGTH)
        self._blocks = {block: held for block, held in self._blocks.items() if block >= oldest}

    def window(self, start_sample: int, end_sample: int, total_frames: int | None = None) -> Tensor:
        """The log-mel of the samples [start_sample, end_sample): float32 [n_mels, frames], scaled for the encoder.

        `total_frames` None: frames = samples // 160, equal to openai-whisper's `log_mel_spectrogram` of these samples.
        Else: equal to that of these samples with zeros behind them up to `total_frames` * 160 samples (3000: its
        padded 30 s). `start_sample` must lie on the 160-sample grid, both ends within what is kept, with at least 201
        samples between them. Raises ValueError that says which of these fails.
        """
        samples = self._checked(start_sample, end_sample, total_frames)
        frames = len(samples) // HOP_LENGTH if total_frames is None else total_frames
        padded_samples = len(samples) if total_frames is None else total_frames * HOP_LENGTH
        # Frames [left, right) lie inside the samples; the others up to `sounding` reach over an edge.
        left = min(_LEFT_EDGE_FRAMES, frames)
        right = min(max(_complete_frames(len(samples)), left), frames)
        sounding = min((len(samples) + _HALF_FFT - 1) // HOP_LENGTH + 1, frames)
        edges = [*range(left), *range(right, sounding)]
        energies = torch.empty(self.n_mels, frames)
        energies[:, edges] = self._log10_energies(_edge_frames(samples, padded_samples, edges))
        energies[:, sounding:] = torch.tensor(_MIN_ENERGY).log10()
        self._copy_kept(energies, start_sample // HOP_LENGTH, left, right)
        torch.maximum(energies, energies.max() - _DYNAMIC_RANGE, out=energies)
        return energies.add_(4.0).div_(4.0)

    def fine_spectrum(self, start_sample: int, end_sample: int) -> Spectrum:
        """`streamer.audio.fine_spectrum` of the samples [start_sample, end_sample), of which older ones may be gone."""
        first = max(start_sample - self._start, 0)
        return fine_spectrum(self._samples[first : max(end_sample - self._start, 0)])

    def _checked(self, start_sample: int, end_sample: int, total_frames: int | None) -> NDArray[np.float32]:
        if start_sample % HOP_LENGTH:
            raise ValueError(f"a window starts at sample {start_sample}: a multiple of {HOP_LENGTH} is needed")
        if start_sample < self._start or end_sample > self._end:
            raise ValueError(
                f"samples [{start_sample}, {end_sample}) are not all kept: [{self._start}, {self._end}) are"
            )
        samples = end_sample - start_sample
        if samples < MIN_WINDOW_SAMPLES:
            raise ValueError(f"a window of {samples} samples is too short: at least {MIN_WINDOW_SAMPLES} are needed")
        if total_frames is not None and samples > total_frames * HOP_LENGTH:
            raise ValueError(f"{samples} samples do not fit into {total_frames} frames of {HOP_LENGTH}")
        return self._samples[start_sample - self._start : end_sample - self._start]

    def _copy_kept(self, energies: Tensor, first_frame: int, left: int, right: int) -> None:
        """Copy the frames [left, right) of a window that starts at `first_frame` from the blocks."""
        frame, end = first_frame + left, first_frame + right
        while frame < end:
            block = _block_of(frame)
            origin = block * _BLOCK_FRAMES - _BLOCK_PHASE
            until = min(end, origin + _BLOCK_FRAMES)
            kept = self._block(block, until)
            energies[:, frame - first_frame : until - first_frame] = kept[:, frame - origin : until - origin]
            frame = until

    def _block(self, block: int, until: int) -> Tensor:
        """The log10 energies of a block [n_mels, 50], of which the frames before the absolute frame `until` count."""
        complete, energies = self._blocks.get(block, (until - 1, self._filters))
        if complete < until:
            origin = block * _BLOCK_FRAMES - _BLOCK_PHASE
            begin = origin * HOP_LENGTH - _HALF_FFT
            low, high = max(begin, self._start), min(begin + _BLOCK_SAMPLES, self._end)
            samples = np.zeros(_BLOCK_SAMPLES, dtype=np.float32)
            samples[low - begin : high - begin] = self._samples[low - self._start : high - self._start]
            frames = torch.from_numpy(samples).unfold(0, N_FFT, HOP_LENGTH)
            energies = self._log10_energies(frames)
            self._blocks[block] = (_complete_frames(self._end), energies)
        return energies

    def _log10_energies(self, frames: Tensor) -> Tensor:
        """Windowed frames of samples [frames, 400] to log10 mel energies [n_mels, frames]."""
        magnitudes = torch.fft.rfft(frames * self._hann).abs() ** 2
        return torch.clamp(self._filters @ magnitudes.T, min=_MIN_ENERGY).log10()

    def _reallocate(self, drop: int, capacity: int) -> None:
        used = self._end - self._start
        samples = np.zeros(capacity, dtype=np.float32)
        samples[: used - drop] = self._samples[drop:used]
        self._samples = samples


def _complete_frames(samples: int) -> int:
    """How many frames, from frame 0 on, see only samples before the index `samples`."""
    frames: int = (samples - _HALF_FFT) // HOP_LENGTH + 1
    return frames


def _block_of(frame: int) -> int:
    return (frame + _BLOCK_PHASE) // _BLOCK_FRAMES


def _edge_frames(samples: NDArray[np.float32], padded_samples: int, frames: list[int]) -> Tensor:
    """The samples under some frames of a window [len(frames), 400]: zeros behind them, reflected at both ends."""
    centres = np.array(frames, dtype=np.int64) * HOP_LENGTH
    position = np.abs(centres[:, None] + np.arange(-_HALF_FFT, _HALF_FFT))
    position = np.where(position < padded_samples, position, 2 * (padded_samples - 1) - position)
    real = position < len(samples)
    return torch.from_numpy(np.where(real, samples[np.where(real, position, 0)], np.float32(0)))


class RecordingMel:
    """The windows of a whole recording's spectrogram. `frames`: those of 10 ms that lie over audio. One thread owns it.

    Unlike the windows of a live stream, whose floor lies 8 below their own loudest frame, these have the floor of the
    whole recording, and what they lack to 30 s is 0.0, not the mel of silence. Equal to
    `log_mel_spectrogram(samples, padding=480_000)`, cut and padded (openai-whisper 20250625, MIT). Energies are
    computed as the samples come, 30 s at a time, and kept: 115 MB an hour with 80 bands.
    """

    def __init__(self, blocks: Iterable[NDArray[np.float32]], n_mels: int) -> None:
        """`blocks`: all samples in order, float32 [n] each; what is not finite counts as silence."""
        self._filters: Tensor = mel_filters("cpu", n_mels)
        self._hann = torch.hann_window(N_FFT)
        pieces: list[Tensor] = []
        waiting, held, samples = [np.zeros(_HALF_FFT, np.float32)], _HALF_FFT, 0
        for block in blocks:
            waiting.append(block if np.isfinite(block).all() else np.nan_to_num(block, posinf=0.0, neginf=0.0))
            held, samples = held + len(block), samples + len(block)
            if held >= _PIECE_SAMPLES + N_FFT:
                rest = self._mirrored(np.concatenate(waiting), first=not pieces)
                frames = (len(rest) - N_FFT) // HOP_LENGTH + 1
                pieces.append(self._log_energies(rest[: (frames - 1) * HOP_LENGTH + N_FFT]))
                waiting = [rest[frames * HOP_LENGTH :]]
                held = len(waiting[0])
        rest = np.pad(np.concatenate(waiting), (0, N_FFT))  # so far behind the end a frame still hears it
        pieces.append(self._log_energies(self._mirrored(rest, first=not pieces)))
        self._energies = torch.cat(pieces, dim=1)
        self._floor = float(self._energies.max()) - _DYNAMIC_RANGE
        self.frames: int = samples // HOP_LENGTH

    def window(self, start: int, end: int) -> Tensor:
        """The frames [start, end), at most 3000 of those there are, and 0.0 behind them: float32 [n_mels, 3000]."""
        return functional.pad(self._scaled(self._energies[:, start:end]), (0, WINDOW_FRAMES - (end - start)))

    def opening(self) -> Tensor:
        """The first 30 s with silence behind them, as openai-whisper looks at them for the language: as `window`."""
        found = self._energies[:, :WINDOW_FRAMES]
        silence = torch.tensor(_MIN_ENERGY).log10().item()
        return self._scaled(functional.pad(found, (0, WINDOW_FRAMES - found.shape[1]), value=silence))

    def _scaled(self, energies: Tensor) -> Tensor:
        return (energies.clamp(min=self._floor) + 4.0) / 4.0

    def _log_energies(self, samples: NDArray[np.float32]) -> Tensor:
        """log10 mel energies [n_mels, frames] of every 400 samples, 160 apart."""
        found = torch.stft(
            torch.from_numpy(samples), N_FFT, HOP_LENGTH, window=self._hann, center=False, return_complex=True
        )
        return torch.clamp(self._filters @ (found.abs() ** 2), min=_MIN_ENERGY).log10()

    def _mirrored(self, samples: NDArray[np.float32], *, first: bool) -> NDArray[np.float32]:
        """The samples; at the beginning, the first half transform is what follows it, reflected."""
        if first:
            samples[:_HALF_FFT] = samples[_HALF_FFT + 1 : N_FFT + 1][::-1]
        return samples

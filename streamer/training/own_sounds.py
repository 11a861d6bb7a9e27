"""Learning a sound of one's own from a few clips of it, in a minute on a CPU; the encoder stays as it is.

    clip ─► moment ─► scenes (other rooms, levels, talk over it) ─► encoder, pitches ─► vectors of its steps ┐
                                                        vectors of the hour of other sounds that comes along ┴► layer

The threshold is placed by cross-validation: above what a layer that was taught half of the other sounds makes of the
rest, and at a share of what a layer that was taught the other clips makes of one that was left out. People are told how
often such clips are recognised, and what is taken for the sound in one half of the others with the threshold that the
other half places.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamer.audio.fine_spectrum import fine_spectrum
from streamer.audio.mel import FRAMES_PER_SECOND, MelFrames
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Severity
from streamer.model.own_sounds import Background, OwnSound, Vectors, run_means
from streamer.model.whisper import MIN_FRAMES, Model
from streamer.training.moments import WINDOW_S, Audio, Scene, moment_of, scenes

SCENES = 10  # of each clip
SCALE = 8.0  # unit vectors are made so long before the fit
RIDGE = 0.3  # on the weights, beside WEIGHT for all examples of each side
WEIGHT = 1000.0
HARD, EASY = 1200, 1200  # of the other vectors a fit sees: the nearest, and some of the rest
NEWTON_STEPS = 12
CONFIRMING_STEPS = 3  # most steps (0.4 s) that are judged together: half of what a clip lasts
OUTLIERS = 2  # windows among the other sounds that may be the very same sound
MARGIN = 1.0  # of the threshold above the next, in logits
LEAST_THRESHOLD = 1.5
SHARE = 0.35  # of the logit that a left-out clip reaches in half of its scenes: the threshold is no lower than this,
BELOW, WORST = 4.0, 0.05  # or than so much below what it reaches in all but this share of them, if that is less
ALIKE = 0.5  # the least share of a left-out clip's scenes in which the others recognise it

Encode = Callable[[Audio], Vectors]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A fitted layer: `weight` [k]."""

    weight: Vectors
    bias: float

    def logits(self, vectors: Vectors) -> Vectors:
        """One for each step, [..., steps], of vectors [..., steps, k]."""
        found: Vectors = vectors @ self.weight + np.float32(self.bias)
        return found

    def best(self, windows: Vectors, run: int) -> Vectors:
        """The best mean logit over a run of so many steps, [windows], of windows [windows, steps, k]."""
        found: Vectors = run_means(self.logits(windows), run).max(-1)
        return found


@dataclass(frozen=True, slots=True)
class _Clip:
    """One clip in its scenes: vectors [scenes, steps, k], and in which steps it sounds [scenes, steps]."""

    vectors: Vectors
    sounds: NDArray[np.bool_]


def encoder_of(model: Model) -> Encode:
    """Taps [layers, steps, d] of a window of audio, as the live engine with `context: fit` makes them."""

    def encode(samples: Audio) -> Vectors:
        frames = MelFrames(model.dims.n_mels)
        frames.append(samples)
        real = len(samples) // (SAMPLE_RATE // FRAMES_PER_SECOND)
        least = round(model.min_context_s * FRAMES_PER_SECOND) if model.variable_context else MIN_FRAMES
        wanted = max(real + model.margin_frames, least)
        total = min(-(-wanted // MIN_FRAMES) * MIN_FRAMES, 2 * model.dims.n_audio_ctx)
        mel = frames.window(0, len(samples), total)
        found = model.encode_windows(mel[None], real_frames=[real], tag_spans_s=[WINDOW_S], window_frames=[total])
        taps: Tensor | None = found.taps[0]
        assert taps is not None
        vectors: Vectors = taps.float().cpu().numpy()
        return vectors

    return encode


def learn(
    name: str,
    severity: Severity,
    clips: Sequence[tuple[str, Audio]],
    encode: Encode,
    background: Background,
    tell: Tell = lambda line: None,
) -> OwnSound:
    """The sound of clips (label, samples). Raises InputError where one is silent, or unlike the others."""
    random = np.random.default_rng(len(clips))
    taught = []
    for place, (label, samples) in enumerate(clips):
        moment = moment_of(samples, label)
        tell(f"clip {place + 1} of {len(clips)}: {label}, {len(moment.samples) / SAMPLE_RATE:.1f} s of sound")
        taught.append(_in_scenes(scenes(moment, SCENES, random), encode, background))
        if not taught[-1].sounds.any():
            raise InputError(f"{label}: sounds too briefly at a time to be recognised again")
    own = [clip.vectors[clip.sounds] for clip in taught]
    run = int(np.clip(round(float(np.mean([len(clip) for clip in own])) / SCENES / 4), 1, CONFIRMING_STEPS))
    others = background.other_vectors()
    layer = _fit(np.concatenate(own), others)
    tails = [_fit(np.concatenate(own), others[1 - part :: 2]).best(others[part::2], run) for part in (0, 1)]
    without = [_fit(np.concatenate(own[:place] + own[place + 1 :]), others) for place in range(len(own))]
    above = max(_above(np.concatenate(tails), OUTLIERS), LEAST_THRESHOLD)
    left_out = [left.logits(clip) for left, clip in zip(without, own, strict=True)]
    _refuse_unlike([float(np.mean(logits >= above)) for logits in left_out], [label for label, _ in clips])
    reached = np.concatenate(
        [left.best(clip.vectors, run)[clip.sounds.any(-1)] for left, clip in zip(without, taught, strict=True)]
    )
    usual, worst = float(np.median(reached)), float(np.quantile(reached, WORST))
    least = max(min(SHARE * usual, worst - BELOW), LEAST_THRESHOLD)
    threshold = max(above, least)
    halves = [(max(_above(tail, OUTLIERS // 2), least), other) for tail, other in (tails, tails[::-1])]
    return OwnSound(
        name,
        severity,
        background.encoder,
        background.model,
        len(clips),
        layer.weight,
        layer.bias,
        threshold,
        run,
        false_alarms=sum(int((other >= placed).sum()) for placed, other in halves),
        false_hours=background.hours,
        recall=float(np.mean([np.mean(logits >= threshold) for logits in left_out])),
    )


def _in_scenes(made: Iterable[Scene], encode: Encode, background: Background) -> _Clip:
    vectors, sounds = [], []
    for scene in made:
        found = background.vectors(encode(scene.samples), fine_spectrum(scene.samples))
        steps = min(len(found), len(scene.sounds))
        vectors.append(found[-steps:])
        sounds.append(scene.sounds[-steps:])
    return _Clip(np.stack(vectors), np.stack(sounds))


def _above(logits: Vectors, outliers: int) -> float:
    """Above the best logits of all windows of other sounds but so many, which may be the very same sound."""
    return float(np.sort(logits)[-1 - outliers]) + MARGIN


def _refuse_unlike(shares: Sequence[float], names: Sequence[str]) -> None:
    """InputError where what the others taught recognises too small a share of some clips; it names them, if few."""
    unlike = [name for share, name in sorted(zip(shares, names, strict=True)) if share < ALIKE]
    if len(unlike) > max(1, len(names) / 2):
        raise InputError("the clips are not alike: give three to ten of the same sound, each with nothing else as loud")
    if len(unlike) == 1:
        raise InputError(f"{unlike[0]}: is unlike the other clips: leave it out, or give one of the same sound")
    if unlike:
        rest = " and ".join(unlike[1:])
        raise InputError(
            f"{unlike[0]}: is unlike the other clips, and so is {rest}: leave them out, or give others of this sound"
        )


def _fit(own: Vectors, windows: Vectors) -> _Layer:
    """The layer that tells vectors [n, k] from those of windows of other sounds [windows, steps, k].

    Logistic regression with a ridge, both sides of equal weight, by Newton's method (Bishop 2006, 4.3.3).
    """
    others = windows.reshape(-1, windows.shape[-1])
    nearness = np.argsort(-(others @ own.mean(0)))
    rest = nearness[HARD:]
    chosen = np.concatenate([nearness[:HARD], rest[:: max(1, len(rest) // EASY)]])
    rows = np.concatenate([own, others[chosen]]) * np.float32(SCALE)
    rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
    truth = np.arange(len(rows)) < len(own)
    weight = np.where(truth, WEIGHT / len(own), WEIGHT / len(chosen)).astype(np.float32)
    ridge = np.full(rows.shape[1], RIDGE, np.float32)
    ridge[-1] = 1e-3
    found = np.zeros(rows.shape[1], np.float32)
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        slope = rows.T @ (weight * (probability - truth)) + ridge * found
        curve = (rows * (weight * probability * (1 - probability))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        found = found - step
        if np.abs(step).max() < 1e-3:
            break
    return _Layer((found[:-1] * SCALE).astype(np.float32), float(found[-1]))


def scene_windows(samples: Audio) -> Iterator[Audio]:
    """A recording in windows of 10 s, what is left over and digital silence left out."""
    size = round(WINDOW_S * SAMPLE_RATE)
    for start in range(0, len(samples) - size + 1, size):
        window = samples[start : start + size]
        if np.abs(window).max() > 1e-4:
            yield window

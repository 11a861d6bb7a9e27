"""Learning a sound of one's own from a few clips of it, in a minute on a CPU; the encoder stays as it is.

    clip ─► moment ─► scenes (other rooms, levels, talk over it) ─► encoder ─► vectors of its steps ┐
                                               vectors of the hour of other sounds that comes along ┴► logistic layer

The threshold is placed by cross-validation over the other sounds: a layer that was taught half of them is tried on the
rest. People are told how often clips are recognised that were left out, and what is taken for the sound in one half of
the others with the threshold that the other half places.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from streamer.audio.mel import FRAMES_PER_SECOND, MelFrames
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Severity
from streamer.model.own_sounds import Background, OwnSound, Vectors, run_means, unpack
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
ALIKE = 0.5  # the least share of a left-out clip's scenes in which the others recognise it

Encode = Callable[[Audio], Vectors]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A fitted layer."""

    weight: Vectors
    bias: float


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
    vectors = []
    for place, (label, samples) in enumerate(clips):
        moment = moment_of(samples, label)
        tell(f"clip {place + 1} of {len(clips)}: {label}, {len(moment.samples) / SAMPLE_RATE:.1f} s of sound")
        sounding = [_sounding(scene, encode, background) for scene in scenes(moment, SCENES, random)]
        vectors.append(np.concatenate(sounding))
        if len(vectors[-1]) == 0:
            raise InputError(f"{label}: sounds too briefly at a time to be recognised again")
    per_scene = float(np.mean([len(clip) for clip in vectors])) / SCENES
    run = int(np.clip(round(per_scene / 4), 1, CONFIRMING_STEPS))
    others = unpack(background.others)
    layer = _fit(np.concatenate(vectors), others.reshape(-1, others.shape[-1]))
    tails = []
    for part in (slice(0, None, 2), slice(1, None, 2)):
        taught_on = np.delete(others, np.arange(len(others))[part], axis=0)
        half = _fit(np.concatenate(vectors), taught_on.reshape(-1, others.shape[-1]))
        tails.append(run_means(others[part] @ half.weight + np.float32(half.bias), run).max(-1))
    threshold = _threshold(np.concatenate(tails), OUTLIERS)
    halves = [(_threshold(tail, OUTLIERS // 2), other) for tail, other in (tails, tails[::-1])]
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
        recall=_left_out(vectors, others, threshold, [label for label, _ in clips]),
    )


def _threshold(logits: Vectors, outliers: int) -> float:
    """Above the best logits of all windows of other sounds but so many, which may be the very same sound."""
    return max(float(np.sort(logits)[-1 - outliers]) + MARGIN, LEAST_THRESHOLD)


def _sounding(scene: Scene, encode: Encode, background: Background) -> Vectors:
    """Vectors [n, k] of the steps of a scene in which it sounds."""
    vectors = background.vectors(encode(scene.samples))
    steps = min(len(vectors), len(scene.sounds))
    return vectors[-steps:][scene.sounds[-steps:]]


def _left_out(clips: Sequence[Vectors], others: Vectors, threshold: float, names: Sequence[str]) -> float:
    """How much of each clip the others recognise, on the average. InputError where one is not like them."""
    flat = others.reshape(-1, others.shape[-1])
    shares = []
    for place, clip in enumerate(clips):
        rest = np.concatenate([other for number, other in enumerate(clips) if number != place])
        layer = _fit(rest, flat)
        shares.append(float(np.mean(clip @ layer.weight + layer.bias >= threshold)))
    unlike = [place for place, share in enumerate(shares) if share < ALIKE]
    if len(unlike) > 1:
        raise InputError("the clips are not alike: give three to ten of the same sound, each with nothing else as loud")
    if unlike:
        raise InputError(f"{names[unlike[0]]}: is unlike the other clips: leave it out, or give one of the same sound")
    return float(np.mean(shares))


def _fit(own: Vectors, others: Vectors) -> _Layer:
    """Logistic regression with a ridge, both sides of equal weight, by Newton's method (Bishop 2006, 4.3.3)."""
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

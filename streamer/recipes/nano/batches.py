"""Batches of composed windows, made by worker processes; batch N depends on the seed and N alone.

A batch holds windows of one length. `padding` says how they get to the model: as they are, padded with silence to 30 s
before the mel (openai-whisper's `pad_or_trim` of audio) or with zeros after it (its `transcribe`).
"""

import multiprocessing as mp
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from multiprocessing.queues import Queue
from queue import Full

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.bank import Bank
from streamer.recipes.nano.compose import CLASSES, Recipe, Window, compose
from streamer.recipes.nano.vocabulary import FRAME, IGNORED, Faults, Lesson, Vocabulary, lesson

TAP = SAMPLE_RATE * 2 // 5  # samples of one tap
GRID_OF_TAP = 4  # steps of the 0.1 s activity grid in one tap
SPANS = (2, 3, 5, 12, 25)  # taps that are judged together: 1 (either way), 2, 5 and 10 s
POSITIONS = 1500  # encoder frames of 30 s
AHEAD = 3  # batches that may wait; a worker that is further ahead blocks


class Padding(Enum):
    """How a window gets to 30 s, if at all."""

    NONE = "none"
    AUDIO = "audio"
    MEL = "mel"


@dataclass(frozen=True, slots=True)
class Span:
    """A judgement to train: `steps` taps from `first` [B]; `labels` and `sure` float32 [B, 527]."""

    steps: int
    first: NDArray[np.int64]
    labels: NDArray[np.float32]
    sure: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's windows.

    audio [B, n]; `first` [B]: the encoder position of each window's first frame; tokens, targets [B, T]; heard, told
    [B, T, 2] frames; `words` for the CTC; `spoken` [B, frames]: the number of the word that each encoder frame lies in,
    0 for none.
    """

    step: int
    padding: Padding
    audio: NDArray[np.float32]
    first: NDArray[np.int64]
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    heard: NDArray[np.int64]
    told: NDArray[np.int64]
    words: tuple[tuple[str, ...], ...]
    spoken: NDArray[np.int64]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """How often windows have each of the plan's lengths, are padded, have timestamps; and what is in them.

    `late`: the share of unpadded windows that stand anywhere in the 30 s, with the positions and timestamps of that
    place: a short window teaches the model what it would else learn from long ones alone.
    """

    shares: tuple[float, ...]
    padded: float
    timestamps: float
    late: float
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """What batches look like. `audio_s` of audio a step, in windows of `lengths_s`.

    The first `short_steps` have easy windows of 2 to 3 s; until `long_steps` they grow to real ones of 2 to 30 s. Then
    they are as in `mix`, from step `last_from` on as in `last`.
    """

    seed: int
    audio_s: float
    lengths_s: tuple[float, ...]
    short_steps: int
    long_steps: int
    mix: Mix
    last_from: int
    last: Mix
    easy: Recipe
    faults: Faults

    def mix_at(self, step: int) -> Mix:
        """The mix that is in force at a step."""
        return self.last if step >= self.last_from else self.mix


def make_batch(bank: Bank, vocabulary: Vocabulary, plan: Plan, step: int, part: int = 0) -> Batch:
    """Part `part` of batch number `step`; all parts have the same shape."""
    padding, seconds = _shape(plan, step, np.random.default_rng([plan.seed, step]))
    random = np.random.default_rng([plan.seed, step, part])
    count = int(seconds * 50) * (SAMPLE_RATE // 50)
    size = max(2, round(plan.audio_s / (30.0 if padding is not Padding.NONE else seconds)))
    recipe = _recipe(plan, step)
    windows = [compose(bank, count, random, recipe) for _ in range(size)]
    mix = plan.mix_at(step)
    share = 0.6 if padding is not Padding.NONE else mix.timestamps
    late = mix.late * _grown(plan, step) if padding is Padding.NONE else 0.0
    room = POSITIONS - count // FRAME
    first = np.array([int(random.integers(0, room + 1)) if random.random() < late else 0 for _ in windows], np.int64)
    lessons = [
        lesson(
            vocabulary,
            window.turns,
            first=int(place),
            timestamps=random.random() < share,
            open_end=window.cut and seconds >= 29.9,
            random=random,
            faults=plan.faults,
        )
        for window, place in zip(windows, first, strict=True)
    ]
    tokens, targets, heard, told = collate(lessons, vocabulary)
    words = tuple(tuple(word.text for turn in window.turns for word in turn) for window in windows)
    audio = np.stack([window.audio for window in windows])
    spoken, spans = _spoken(windows, vocabulary), _spans(windows, random)
    return Batch(step, padding, audio, first, tokens, targets, heard, told, words, spoken, spans)


def _grown(plan: Plan, step: int) -> float:
    """How far the growth from easy to real windows has come: 0 to 1."""
    return float(np.clip((step - plan.short_steps) / max(1, plan.long_steps - plan.short_steps), 0, 1))


def _recipe(plan: Plan, step: int) -> Recipe:
    grown = _grown(plan, step)
    easy, real = asdict(plan.easy), asdict(plan.mix_at(step).recipe)
    return Recipe(**{name: (1 - grown) * easy[name] + grown * real[name] for name in real})


def _shape(plan: Plan, step: int, random: np.random.Generator) -> tuple[Padding, float]:
    """How this step's windows are padded, and their seconds."""
    if step < plan.short_steps:
        return Padding.NONE, float(random.choice(np.array([2.0, 2.5, 3.0])))
    grown = _grown(plan, step)
    if grown >= 0.6 and random.random() < plan.mix_at(step).padded:
        seconds = 30.0 if random.random() < 0.35 else float(random.uniform(2, 30))
        return (Padding.AUDIO if random.random() < 0.4 else Padding.MEL), seconds
    lengths, shares = np.array(plan.lengths_s), np.array(plan.mix_at(step).shares)
    shares = np.where(lengths <= 3 * 10**grown + 1e-6, shares, 0.0)
    seconds = float(random.choice(lengths, p=shares / shares.sum()))
    return Padding.NONE, min(30.0, round(seconds * random.uniform(0.85, 1.15), 2)) if seconds < 30 else 30.0


def collate(lessons: list[Lesson], vocabulary: Vocabulary) -> tuple[NDArray[np.int64], ...]:
    """Lessons as arrays, padded at the end: inputs, targets [B, T], heard, told [B, T, 2]."""
    longest = max(len(item.inputs) for item in lessons)
    inputs = np.full((len(lessons), longest), vocabulary.eot, np.int64)
    targets = np.full((len(lessons), longest), IGNORED, np.int64)
    heard, told = np.zeros((2, len(lessons), longest, 2), np.int64)
    for row, item in enumerate(lessons):
        used = len(item.inputs)
        inputs[row, :used], targets[row, :used] = item.inputs, item.targets
        heard[row, :used], told[row, :used] = item.heard, item.told
    return inputs, targets, heard, told


def _spoken(windows: list[Window], vocabulary: Vocabulary) -> NDArray[np.int64]:
    number = {word: index + 1 for index, word in enumerate(vocabulary.words)}
    spoken = np.zeros((len(windows), len(windows[0].audio) // FRAME), np.int64)
    for row, window in enumerate(windows):
        for turn in window.turns:
            for word in turn:
                spoken[row, word.start // FRAME : -(-word.end // FRAME)] = number[word.text]
    return spoken


def _spans(windows: list[Window], random: np.random.Generator) -> tuple[Span, ...]:
    """Three judgements: a short one, a longer one that ends where the window ends, and the whole window."""
    taps = len(windows[0].audio) // TAP
    fitting = [steps for steps in SPANS if steps <= taps]
    short = fitting[int(random.integers(0, min(3, len(fitting))))]
    longer = fitting[int(random.integers(0, len(fitting)))]
    free = random.integers(0, taps - short + 1, len(windows))
    ends = np.full(len(windows), taps - longer)
    whole = np.zeros(len(windows), np.int64)
    choices = ((short, free), (longer, ends), (min(taps, 25), whole))
    return tuple(span(windows, steps, first.astype(np.int64)) for steps, first in choices)


def span(windows: list[Window], steps: int, first: NDArray[np.int64]) -> Span:
    """Labels of the classes heard in `steps` taps from `first` [B]; what is heard for an instant is left out."""
    labels, sure = np.zeros((2, len(windows), CLASSES), np.float32)
    for row, (window, start) in enumerate(zip(windows, first, strict=True)):
        part = window.activity[start * GRID_OF_TAP : (start + steps) * GRID_OF_TAP].sum(axis=0)
        whole = window.activity.sum(axis=0)
        enough = np.minimum(3, np.maximum(whole * 0.5, 1))
        labels[row] = part >= enough
        sure[row] = (part == 0) | (part >= enough)
    return Span(steps, first, labels, sure)


def _work(queue: "Queue[Batch]", bank: Bank, vocabulary: Vocabulary, plan: Plan, part: int, steps: range) -> None:
    parent = os.getppid()
    for step in steps:
        batch = make_batch(bank, vocabulary, plan, step, part)
        while True:
            try:
                queue.put(batch, timeout=5)
                break
            except Full:
                if os.getppid() != parent:  # the training was killed: nobody reads what waits in the pipe
                    queue.cancel_join_thread()
                    return


def stream(
    bank: Bank, vocabulary: Vocabulary, plan: Plan, *, first: int, last: int, workers: int = 1, part: int = 0
) -> Iterator[Batch]:
    """Batches `first` to `last` - 1 in order, composed by worker processes that end with this iterator."""
    context = mp.get_context("fork")
    queues: list[Queue[Batch]] = [context.Queue(AHEAD) for _ in range(workers)]
    processes = [
        context.Process(
            target=_work,
            args=(queue, bank, vocabulary, plan, part, range(first + index, last, workers)),
            daemon=True,
        )
        for index, queue in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        for step in range(first, last):
            yield queues[(step - first) % workers].get()
    finally:
        for process in processes:
            process.terminate()
            process.join()

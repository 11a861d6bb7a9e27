"""Scores on composed windows of the validation part of the train split: what settings may be chosen by."""

from dataclasses import dataclass

import numpy as np
import torch
import whisper

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.bank import Bank
from streamer.recipes.nano.compose import Recipe, Window, compose
from streamer.recipes.nano.hearing import encode, write
from streamer.recipes.nano.judge import word_errors
from streamer.recipes.nano.network import Nano, full_state
from streamer.recipes.nano.vocabulary import Vocabulary

RECIPES = {
    "quiet": Recipe(speech=1.0, alarm=0.0, sound=0.0, noisy=0.0),
    "as trained": Recipe(speech=1.0),
    "no speech": Recipe(speech=0.0, alarm=0.3, sound=0.7),
}


@dataclass(frozen=True, slots=True)
class Validation:
    """Word error rates (for `no speech`: words invented a minute) by recipe and window length in seconds."""

    scores: dict[str, dict[str, float]]


def shipped_form(model: Nano, vocabulary: Vocabulary) -> whisper.Whisper:
    """The model as its checkpoint will be loaded: openai-whisper's class, weights rounded to float16."""
    shipped = whisper.model.Whisper(model.dims)
    shipped.load_state_dict({key: value.float() for key, value in full_state(model, vocabulary).items()})
    return shipped.eval()


def validate(model: whisper.Whisper, bank: Bank, *, count: int = 24, seed: int = 77) -> Validation:
    """Greedy text of `count` windows for each recipe and length (3, 8 and 20 s)."""
    scores: dict[str, dict[str, float]] = {}
    for name, recipe in RECIPES.items():
        random = np.random.default_rng(seed)
        for seconds in (3, 8, 20):
            windows = [compose(bank, seconds * SAMPLE_RATE, random, recipe) for _ in range(count)]
            scores.setdefault(name, {})[f"{seconds} s"] = _score(model, windows, seconds)
    return Validation(scores)


def _score(model: whisper.Whisper, windows: list[Window], seconds: int) -> float:
    with torch.inference_mode():
        heard = write(model, encode(model, [window.audio for window in windows])[0])
    wrong = total = invented = 0.0
    for window, found in zip(windows, heard, strict=True):
        truth = [word.text for turn in window.turns for word in turn]
        errors = word_errors(truth, found.words)
        if truth:
            wrong += errors["wer"] * len(truth)
            total += len(truth)
        else:
            invented += errors["invented"]
    return round(wrong / total, 4) if total else round(invented / (len(windows) * seconds / 60), 3)

"""A speaker whose words are known, and an engine that hears exactly them: real costs and real policies, random weights.

The speech is the bundled demo's words, strung together at the rate of lively talk. Whatever the weights, the scripted
engine's decoder writes the words that were over before the window ended, with their true times.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.audio.files import demo_path, read_audio
from streamer.bench.peers import Samples
from streamer.bench.teacher import Teacher
from streamer.events import SAMPLE_RATE
from streamer.model.decoding.search import Decoded
from streamer.model.engine import Context, Engine
from streamer.model.whisper import Model
from streamer.plans import DecodeTask, Hypothesis, StepRequest
from streamer.settings.config import GuardSettings, Settings, SpeechSettings

if TYPE_CHECKING:
    from streamer.model.engine import _Window

GAP_S, PAUSE_S, WORDS_A_SENTENCE = 0.06, 1.2, 10
HEARD_AFTER_S = 0.06  # a word is recognised this long after its end


@dataclass(frozen=True, slots=True)
class Spoken:
    """Speech and when each of its words starts and ends, in samples; float32 [n]."""

    samples: Samples
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def lively_speech(seconds: float) -> Spoken:
    """That much talk: about three words a second, a pause after every ten."""
    path = demo_path()
    audio = read_audio(path)
    truth = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))["words"]
    clips = [audio[round(word["start"] * SAMPLE_RATE) : round(word["end"] * SAMPLE_RATE)] for word in truth]
    parts = [np.zeros(SAMPLE_RATE // 2, np.float32)]
    starts: list[int] = []
    ends: list[int] = []
    position = len(parts[0])
    while position < seconds * SAMPLE_RATE:
        clip = clips[len(starts) % len(clips)]
        starts.append(position)
        ends.append(position + len(clip))
        rest = PAUSE_S if len(starts) % WORDS_A_SENTENCE == 0 else GAP_S
        parts += [clip, np.zeros(round(rest * SAMPLE_RATE), np.float32)]
        position = ends[-1] + len(parts[-1])
    speech = np.concatenate(parts)
    hiss = np.random.default_rng(0).normal(0.0, 0.0005, len(speech)).astype(np.float32)
    return Spoken(speech + hiss, tuple(starts), tuple(ends))


def settings() -> Settings:
    """The defaults, English, the hop fixed; no guards: they would withhold what random weights are unsure of."""
    off = GuardSettings(**{name: False for name, field in GuardSettings.model_fields.items() if field.default is True})
    return fixed_hop(Settings(speech=SpeechSettings(language="en"), guards=off))


def fixed_hop(settings: Settings) -> Settings:
    """The same settings with a hop that never grows: a machine that cannot keep up is to show in the latency."""
    return settings.model_copy(
        update={"window": settings.window.model_copy(update={"hop_max_s": settings.window.hop_s})}
    )


class ScriptedEngine(Engine):
    """An engine that pays for encoding, tags and every token, and hears `spoken`. All streams must play it from 0."""

    def __init__(self, model: Model, spoken: Spoken, *, context: Context = "auto") -> None:
        super().__init__(model, context=context)
        self.search: Teacher = Teacher(model)
        self._spoken = spoken
        self.tokens = self.search.text(len(spoken.ends))
        self._places = {token: place for place, token in enumerate(self.tokens)}
        tokenizer = model.tokenizer("en" if model.is_multilingual else None)
        self.places_by_word = {tokenizer.decode([token]).strip(): place for place, token in enumerate(self.tokens)}

    def _decode(self, batch: "Sequence[_Window]") -> None:
        self.search.lessons = [self._lesson(window.request) for window in batch]
        super()._decode(batch)

    def _lesson(self, request: StepRequest) -> tuple[int, ...]:
        task, spoken = request.decode, self._spoken
        assert task is not None
        latest = request.end_sample - round(HEARD_AFTER_S * SAMPLE_RATE)
        if task.prefix:
            first = self._places[task.prefix[-1]] + 1
        else:
            first = next(
                (i for i, start in enumerate(spoken.starts) if start >= request.start_sample), len(spoken.ends)
            )
        return tuple(
            token for token, end in zip(self.tokens[first:], spoken.ends[first:], strict=True) if end <= latest
        )

    def _hypothesis(self, request: StepRequest, task: DecodeTask, decoded: Decoded) -> Hypothesis:
        hypothesis = super()._hypothesis(request, task, decoded)
        words = []
        for word in hypothesis.words:
            place = self._places[word.tokens[-1]]
            start, end = self._spoken.starts[place], self._spoken.ends[place]
            words.append(replace(word, start_sample=start, end_sample=end, attended_sample=(start + end) // 2))
        return replace(hypothesis, words=tuple(words), no_speech_probability=0.0)

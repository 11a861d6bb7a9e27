"""Random weights of the official sizes, and words that they write: real costs need no training and no download.

The speech is the bundled demo's words, strung together at the rate of lively talk. Whatever the weights, a `Teacher`
writes given tokens, for random weights write nonsense of any length; a `ScriptedEngine` writes the words that were over
before the window ended, with their true times.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper

from streamer.audio.files import demo_path, read_audio
from streamer.bench.peers import Samples
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE
from streamer.model import catalog
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.engine import Context, Engine
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model
from streamer.plans import DecodeTask, Hypothesis, StepRequest
from streamer.settings.config import GuardSettings, Settings, SpeechSettings

if TYPE_CHECKING:
    from streamer.model.decoding.search import _Row, _Verdict
    from streamer.model.engine import _Window


MULTILINGUAL = 51_865
# encoder layers, width, attention heads, decoder layers, mel bands, vocabulary
SIZES = {
    "tiny": (4, 384, 6, 4, 80, MULTILINGUAL),
    "base": (6, 512, 8, 6, 80, MULTILINGUAL),
    "small": (12, 768, 12, 12, 80, MULTILINGUAL),
    "medium": (24, 1024, 16, 24, 80, MULTILINGUAL),
    "large-v2": (32, 1280, 20, 32, 80, MULTILINGUAL),
    "large-v3": (32, 1280, 20, 32, 128, MULTILINGUAL + 1),
    "large-v3-turbo": (32, 1280, 20, 4, 128, MULTILINGUAL + 1),
}


LIKELY = -0.1  # log-probability that a given token is said to have
GAP_S, PAUSE_S, WORDS_A_SENTENCE = 0.06, 1.2, 10
HEARD_AFTER_S = 0.06  # a word is recognised this long after its end


def random_whisper(size: str, seed: int = 0) -> Whisper:
    """openai-whisper's float32 module of an official size, weights drawn, alignment heads the official ones.

    Raises UsageError for a size that there is not.
    """
    if size not in SIZES:
        raise UsageError(f"size {size!r} is not official: one of {', '.join(SIZES)} is needed")
    layers, width, heads, text_layers, mels, vocabulary = SIZES[size]
    torch.manual_seed(seed)
    module = Whisper(ModelDimensions(mels, 1500, width, heads, layers, vocabulary, 448, width, heads, text_layers))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "embedding" in name:
                parameter.normal_(0.0, 0.02)
    module.set_alignment_heads(catalog.alignment_heads(size))
    return module.eval()


def random_head(size: str, seed: int = 0) -> TaggingHead:
    """A TL-Tr head of that width, weights drawn; it hears nothing, so that no sounds and alerts begin."""
    torch.manual_seed(seed)
    module = HeadModule(HeadShape(HeadKind.TL_TR, SIZES[size][1])).eval()
    classifier = module.mlp_layer[1]
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.constant_(classifier.bias, -6.0)
    return TaggingHead("random TL-Tr", module)


def random_model(module: Whisper, size: str, *, device: torch.device, dtype: torch.dtype, head: bool = True) -> Model:
    """Streamer's model of a copy of `module`'s weights, with a random TL-Tr head."""
    return Model(
        copy.deepcopy(module),
        name=f"random {size}",
        head=random_head(size) if head else None,
        device=device,
        dtype=dtype,
    )


class Teacher(GreedySearch):
    """Greedy search that writes given tokens; without any, whole English words, and never the end of the text.

    `lessons`: for each window of the next `decode`, the tokens to write; the end of text follows where `max_new_tokens`
    leaves room for it.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.words = self._single_token_words(model)
        self.lessons: list[tuple[int, ...]] = []

    def text(self, tokens: int) -> tuple[int, ...]:
        """That many tokens, each a word of its own, none twice."""
        return self.words[:tokens]

    def decode(self, windows: Sequence[AudioWindow], tasks: Sequence[DecodeTask]) -> list[Decoded]:
        """As `GreedySearch.decode`, writing the lessons."""
        if not self.lessons:
            self.lessons = [self.words[len(task.prefix) :][: task.max_new_tokens] for task in tasks]
        try:
            return super().decode(windows, tasks)
        finally:
            self.lessons = []

    def _accept(self, row: "_Row", verdicts: "list[_Verdict]") -> None:
        lesson, written = self.lessons[row.index], len(row.tokens)
        given = [
            replace(
                verdict,
                token=lesson[written + count] if written + count < len(lesson) else self._plain.eot,
                logprob=LIKELY,
                probability=0.9,
            )
            for count, verdict in enumerate(verdicts)
        ]
        super()._accept(row, given)

    @staticmethod
    def _single_token_words(model: Model) -> tuple[int, ...]:
        tokenizer = model.tokenizer("en" if model.is_multilingual else None)
        found = []
        for token in range(1000, 20_000):
            text = tokenizer.decode([token])
            if text[:1] == " " and len(text) > 3 and text[1:].isascii() and text[1:].isalpha() and text.islower():
                found.append(token)
        return tuple(found)


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

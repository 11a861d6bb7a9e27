"""`streamer bench quality`: word errors, invented words, tags and latency on scenes with exact ground truth.

A scene is `NAME.flac` with `NAME.json` beside it: {"words": [{word, start, end}], "events": [{label, start, end}]}.
The peer is openai-whisper's own `transcribe`, offline, temperature 0, on the same weights.
"""

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.audio.files import read_audio
from streamer.config import Settings
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Event, Tags, Transcript, Word
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream

SPEECH_TOP = 3


@dataclass(slots=True)
class SceneScore:
    """What one scene gave. Latencies in seconds of audio: commit, and first partial, minus the word's true end."""

    name: str
    seconds: float
    reference: list[str]
    heard: list[str]
    offline: list[str]
    passes: int
    hops: int
    tag_seconds: int
    spoken_seconds: int
    speech_seen: int
    commit_latency_s: list[float] = field(default_factory=list)
    partial_latency_s: list[float] = field(default_factory=list)
    withdrawn: int = 0

    def as_row(self) -> dict[str, Any]:
        """The scene as one row of the table."""
        return {
            "scene": self.name,
            "words": len(self.reference),
            "wer": word_error_rate(self.reference, self.heard),
            "offline_wer": word_error_rate(self.reference, self.offline),
            "invented_per_minute": None if self.reference else len(self.heard) / self.seconds * 60,
            "offline_invented_per_minute": None if self.reference else len(self.offline) / self.seconds * 60,
            "passes": self.passes,
            "hops": self.hops,
            "tag_seconds": self.tag_seconds,
            "speech_top3": self.speech_seen / self.spoken_seconds if self.spoken_seconds else None,
            "commit_p50_s": percentile(self.commit_latency_s, 50),
            "commit_p95_s": percentile(self.commit_latency_s, 95),
            "partial_p50_s": percentile(self.partial_latency_s, 50),
            "erasure": self.withdrawn / max(1, len(self.heard)),
        }


def word_error_rate(reference: Sequence[str], heard: Sequence[str]) -> float | None:
    """Word error rate by jiwer; None without reference words."""
    import jiwer

    return float(jiwer.wer(" ".join(reference), " ".join(heard))) if reference else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile, None of nothing."""
    return float(np.percentile(values, share)) if values else None


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def run_scene(model: Model, settings: Settings, path: Path, *, offline: bool = True) -> tuple[SceneScore, list[Event]]:
    """Stream one scene through the engine as fast as it goes and score its events."""
    try:
        truth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path.with_suffix('.json')}: must hold the scene's words and events") from None
    audio = read_audio(str(path))
    before = model.encoder_passes
    stream = Stream(model, settings)
    events = stream.push(audio) + stream.finish()
    passes = model.encoder_passes - before
    finals = [event for event in events if isinstance(event, Transcript) and event.final]
    spoken, seen = speech_seconds(truth["words"], events)
    score = SceneScore(
        name=path.stem,
        seconds=len(audio) / SAMPLE_RATE,
        reference=[word["word"] for word in truth["words"]],
        heard=[word for event in finals for word in plain_words(event.text)],
        offline=offline_words(model, audio) if offline else [],
        passes=passes,
        hops=-(-len(audio) // round(settings.window.hop_s * SAMPLE_RATE)),
        tag_seconds=sum(isinstance(event, Tags) for event in events),
        spoken_seconds=spoken,
        speech_seen=seen,
    )
    latencies(score, truth["words"], events)
    return score, events


def offline_words(model: Model, audio: NDArray[np.float32]) -> list[str]:
    """What openai-whisper's `transcribe` writes on the same weights."""
    import whisper

    found = whisper.transcribe(
        whisper_module(model), audio, temperature=0.0, language="en", fp16=False, condition_on_previous_text=False
    )
    return plain_words(found["text"])


_float_modules: dict[int, Any] = {}


def whisper_module(model: Model) -> Any:
    """openai-whisper's own float32 module with this model's weights; its code does not take bfloat16."""
    from whisper.model import Whisper

    if id(model) not in _float_modules:
        module = Whisper(model.dims)
        module.load_state_dict({key: value.float() for key, value in model.module.state_dict().items()})
        module.alignment_heads = model.module.alignment_heads
        _float_modules[id(model)] = module.eval()
    return _float_modules[id(model)]


def speech_seconds(words: Sequence[dict[str, Any]], events: Sequence[Event]) -> tuple[int, int]:
    """How many seconds hold at least half a second of words, and in how many of them Speech is among the top three."""
    spoken = seen = 0
    for event in events:
        if not isinstance(event, Tags) or event.end - 1 < 0:
            continue
        said = sum(max(0.0, min(word["end"], event.end) - max(word["start"], event.end - 1)) for word in words)
        if said >= 0.5:
            spoken += 1
            seen += any(tag.label == "Speech" for tag in event.tags[:SPEECH_TOP])
    return spoken, seen


def latencies(score: SceneScore, words: Sequence[dict[str, Any]], events: Sequence[Event]) -> None:
    """Match committed words to the truth by order and time; note commit and first-partial latency, and erasure."""
    committed: list[tuple[Word, float]] = []
    partials: list[tuple[list[str], float]] = []
    counts: dict[int, int] = {}
    tail: list[str] = []
    for event in events:
        if not isinstance(event, Transcript):
            continue
        known = counts.get(event.segment, 0)
        fresh = event.words[known:]
        committed += [(word, event.audio_t) for word in fresh]
        counts[event.segment] = len(event.words)
        now = [*(plain for word in fresh for plain in plain_words(word.word)), *plain_words(event.partial)]
        kept = 0
        while kept < min(len(tail), len(now)) and tail[kept] == now[kept]:
            kept += 1
        score.withdrawn += len(tail) - kept
        tail = plain_words(event.partial)
        partials.append((now, event.audio_t))
    for truth in words:
        match = next(
            (
                (word, at)
                for word, at in committed
                if plain_words(word.word) == [truth["word"]] and abs(word.end - truth["end"]) < 0.5
            ),
            None,
        )
        if match is None:
            continue
        score.commit_latency_s.append(match[1] - truth["end"])
        first = next(
            (at for shown, at in partials if at >= truth["start"] and at <= match[1] and truth["word"] in shown),
            match[1],
        )
        score.partial_latency_s.append(first - truth["end"])


def summary(scores: Sequence[SceneScore]) -> dict[str, Any]:
    """The figures of all scenes together."""
    spoken = [score for score in scores if score.reference]
    quiet = [score for score in scores if not score.reference]
    commits = [value for score in spoken for value in score.commit_latency_s]
    partials = [value for score in spoken for value in score.partial_latency_s]
    minutes = sum(score.seconds for score in quiet) / 60
    reference = [word for score in spoken for word in score.reference]
    return {
        "wer": word_error_rate(reference, [word for score in spoken for word in score.heard]),
        "offline_wer": word_error_rate(reference, [word for score in spoken for word in score.offline]),
        "invented_per_minute": sum(len(score.heard) for score in quiet) / minutes if minutes else None,
        "offline_invented_per_minute": sum(len(score.offline) for score in quiet) / minutes if minutes else None,
        "commit_p50_s": percentile(commits, 50),
        "commit_p95_s": percentile(commits, 95),
        "partial_p50_s": percentile(partials, 50),
        "partial_p95_s": percentile(partials, 95),
        "erasure": sum(score.withdrawn for score in spoken) / max(1, sum(len(score.heard) for score in spoken)),
        "speech_top3": sum(s.speech_seen for s in spoken) / max(1, sum(s.spoken_seconds for s in spoken)),
        "passes_per_hop": statistics.mean(score.passes / score.hops for score in scores) if scores else None,
    }


def main(model: Model, settings: Settings, scenes: Sequence[Path], *, offline: bool = True) -> dict[str, Any]:
    """Score all scenes; one row each and a summary."""
    scores = [run_scene(model, settings, path, offline=offline)[0] for path in scenes]
    return {"model": model.name, "scenes": [score.as_row() for score in scores], "summary": summary(scores)}

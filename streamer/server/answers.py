"""From the events of a whole recording to what OpenAI's audio API answers: json, text, srt, vtt, verbose_json (pure).

Sounds, alerts and what nobody understood come along under `streamer`, a field that other servers do not have.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamer.events import Alert, Event, Sound, Transcript
from streamer.output.captions import Format, layout_of

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages that write none between words, as Whisper

Json = dict[str, Any]


def finals(events: Iterable[Event]) -> list[Transcript]:
    """The passages that have text, in order."""
    return [event for event in events if isinstance(event, Transcript) and event.final and event.text]


def joint(language: str) -> str:
    """What stands between two passages."""
    return "" if language in WITHOUT_SPACES else " "


def joined(passages: Sequence[Transcript]) -> str:
    """The text of several passages."""
    return "".join((joint(one.language) if number else "") + one.text for number, one in enumerate(passages))


def captions(events: Iterable[Event], kind: Format) -> str:
    """The recording as SRT or WebVTT, as `streamer transcribe` writes it: with sounds, in brackets."""
    layout = layout_of(kind)
    return layout.header + "".join(layout.step(event) for event in events) + layout.finish()


def brief(events: Sequence[Event]) -> Json:
    """`json`."""
    return {"text": joined(finals(events)), "streamer": extension(events)}


def verbose(events: Sequence[Event], task: str, names: Mapping[str, str], granularities: frozenset[str]) -> Json:
    """`verbose_json`. `names`: of languages, by code.

    `avg_logprob` is the mean of the words' logarithmic probabilities; which tokens they were, and at which temperature
    they were found, is not told: [] and 0.
    """
    passages, words = finals(events), "word" in granularities
    language = "en" if task == "translate" else passages[0].language if passages else ""
    duration = max((event.audio_t for event in events), default=0.0)
    answer: Json = {"task": task, "language": names.get(language, language), "duration": duration}
    answer["text"] = joined(passages)
    if words:
        answer["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end} for one in passages for word in one.words
        ]
    if "segment" in granularities or not words:
        answer["segments"] = [_segment(number, one) for number, one in enumerate(passages)]
    return answer | {"usage": {"type": "duration", "seconds": duration}, "streamer": extension(events)}


def extension(events: Iterable[Event]) -> Json:
    """`streamer`: `sounds` (`label`, `start`, `end`, `score`), `alerts` (`rule`, `severity`, `start`, `end`, `score`,
    `labels`) and `unclear` (`start`, `end`: somebody spoke, and nothing was sure enough to be shown).
    """
    sounds: dict[int, Json] = {}
    alerts: dict[int, Json] = {}
    unclear: list[Json] = []
    for event in events:
        match event:
            case Sound():
                told = {"label": event.label, "start": event.start, "end": event.end, "score": event.score}
                sounds[event.id] = told
            case Alert():
                told = {"rule": event.rule, "severity": event.severity, "start": event.start, "end": event.end}
                alerts[event.id] = told | {"score": event.score, "labels": list(event.labels)}
            case Transcript(final=True):
                unclear += [{"start": span.start, "end": span.end} for span in event.unclear]
    return {"sounds": list(sounds.values()), "alerts": list(alerts.values()), "unclear": unclear}


def _segment(number: int, passage: Transcript) -> Json:
    text = passage.text.encode()
    logs = [math.log(max(word.probability, 1e-10)) for word in passage.words]
    return {
        "id": number,
        "seek": 0,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": round(1 - passage.speech_probability, 4),
    }

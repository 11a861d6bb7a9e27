"""`streamer bench speech`: streaming against openai-whisper offline, on recordings, with the same weights.

Every recording is read by openai-whisper's `transcribe` (offline), streamed as fast as it goes with each variant of the
settings, and, where asked for, by whisper_streaming's LocalAgreement loop over faster-whisper in 8 bits. Moments are in
seconds of audio, which do not depend on the machine, from the true end of each word.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamer.bench.clock import run_streams
from streamer.bench.offline import Offline
from streamer.bench.peers import AGREEMENT_LOOP, FasterTranscriber, PeerAbsentError, Samples, captions_of
from streamer.bench.scripted import fixed_hop
from streamer.bench.speech_scores import (
    Captions,
    Heard,
    Reference,
    by_set,
    figures,
    judge_captions,
    judge_text,
    read_captions,
)
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.measure import machine
from streamer.measure.recordings import Recording, in_a_quiet_room
from streamer.measure.report import Report, Table
from streamer.measure.word_errors import normaliser
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import GuardSettings, Settings

OFFLINE = "openai-whisper, offline"
STREAM = "streamer"

Say = Callable[[str], None]


LATE = ("commit p50", "commit p95", "first p50", "first p95")
ALL = ("listener", "WER %", "over offline", "substituted", "lost", "invented", "as written %", *LATE, "erasure")
REST = (
    "listener",
    "recordings",
    "s",
    "words",
    "timed words",
    "retractions",
    "unseen",
    "segments",
    "finals",
    "processor s/s",
)
SET = ("set", "listener", "words", "WER %", "over offline", "lost", "invented", "as written %", *LATE, "unseen")
QUIET = ("set", "listener", "recordings", "minutes", "words invented", "a minute")
REAL = ("listener", *LATE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `variants`: settings by the name they are reported under.

    `source`: the model as `load_model` takes it, for the offline readings; `times`: the model whose offline word
    timestamps say where words end (None: the same). `paced_s`: of each recording, how much is also played in real
    time. `plain`: compare lower-case words, not numbers as whisper's normaliser writes them. `kept`: the folder of the
    offline readings (None: in the user's cache).
    """

    variants: Mapping[str, Settings]
    source: str
    times: str | None = None
    peers: bool = False
    paced_s: float = 0.0
    plain: bool = False
    kept: Path | None = None


def measure(model: Model, recordings: Sequence[Recording], plan: Plan, say: Say = lambda line: None) -> dict[str, Any]:
    """All listeners on all recordings. Raises UsageError for languages that a model does not know."""
    _check_languages(recordings, model.is_multilingual, f"--model {model.name}")
    facts = machine.facts(torch.get_num_threads())
    offline = Offline.of(plan.source, plan.kept)
    timer = offline if plan.times in (None, plan.source) else Offline.of(str(plan.times), plan.kept)
    _check_languages(recordings, timer.module.is_multilingual, f"--times {plan.times}")
    heard: list[Heard] = []
    with ExitStack() as stack:
        peer, absent = _peer(plan, offline, model, stack)
        Engine(model).warm_up()
        for number, recording in enumerate(recordings, 1):
            samples = recording.samples()
            reference = _reference(recording, samples, timer, plain=plan.plain)
            if not reference.text:
                samples = in_a_quiet_room(samples)
            read = offline.read(samples, recording.language)
            found = [judge_text(OFFLINE, reference, read.text, read.processor_s)]
            for name, settings in plan.variants.items():
                chosen = _in_language(settings, recording.language)
                found.append(_streamed(name, model, chosen, reference, samples, plan.paced_s))
            if peer is not None:
                found.append(_looped(peer, plan, reference, samples, recording.language))
            heard += found
            say(f"speech: {number} of {len(recordings)}, {reference.recording}: {_in_short(found)}")
    return {
        "bench": "speech",
        "machine": facts,
        "model": model.name,
        "head": model.head.name if model.head else None,
        "dtype": model.precision,
        "words_timed_by": timer.name,
        "paced_s": plan.paced_s,
        "absent": absent,
        **summary(heard),
        "load_after": machine.load(),
    }


def summary(heard: Sequence[Heard]) -> dict[str, Any]:
    """Figures by listener, in all and by set, and each recording's text and word errors by listener."""
    offline = {each.recording: each for each in heard if each.listener == OFFLINE}
    listeners: dict[str, list[Heard]] = {}
    recordings: dict[str, dict[str, Any]] = {}
    for each in heard:
        listeners.setdefault(each.listener, []).append(each)
        row = recordings.setdefault(each.recording, {"set": each.set, "seconds": round(each.seconds, 2), "read": {}})
        row["read"][each.listener] = {"wer": each.errors.rate, "text": each.written}
    return {
        "listeners": {
            name: {
                "all": figures(group, offline),
                "sets": {part: figures(some, offline) for part, some in by_set(group).items()},
            }
            for name, group in listeners.items()
        },
        "recordings": recordings,
    }


def guard_variants(settings: Settings) -> dict[str, Settings]:
    """What each guard costs and saves: all as they are, none, each alone, and all but each."""
    names = [name for name, given in GuardSettings.model_fields.items() if given.annotation is bool]

    def only(on: Sequence[str]) -> Settings:
        switches = {name: name in on for name in names}
        return settings.model_copy(update={"guards": settings.guards.model_copy(update=switches)})

    return {
        STREAM: settings,
        "no guards": only(()),
        **{f"only {name}": only((name,)) for name in names},
        **{f"without {name}": only([other for other in names if other != name]) for name in names},
    }


def _check_languages(recordings: Sequence[Recording], multilingual: bool, option: str) -> None:
    other = next((r for r in recordings if r.language not in (None, "en")), None)
    if not multilingual and other is not None:
        raise UsageError(f"{option}: knows English only, and the set {other.set} is in {other.language}: choose --sets")


def _reference(recording: Recording, samples: Samples, timer: Offline, *, plain: bool) -> Reference:
    words = recording.words
    if recording.text and not words:
        words = timer.read(samples, recording.language, words=True).words
    return Reference(
        recording=recording.name,
        set=recording.set,
        seconds=len(samples) / SAMPLE_RATE,
        text=recording.text,
        words=words,
        normal=normaliser(recording.language, plain=plain),
    )


def _in_language(settings: Settings, language: str | None) -> Settings:
    """The manifest's language, where it gives one, before that of the settings."""
    if language is None:
        return settings
    return settings.model_copy(update={"speech": settings.speech.model_copy(update={"language": language})})


def _streamed(
    name: str, model: Model, settings: Settings, reference: Reference, samples: Samples, paced_s: float
) -> Heard:
    stream = Stream(model, settings)
    before = time.process_time()
    events = stream.push(samples) + stream.finish()
    took = time.process_time() - before
    real = None
    if paced_s > 0 and reference.words:
        part = samples[: round(paced_s * SAMPLE_RATE)]
        engine = Engine(model, context=settings.model.context)
        engine.warm_up()
        timed = run_streams(engine, fixed_hop(settings), [part])[0].events
        played = [word for word in reference.words if word.end_s <= len(part) / SAMPLE_RATE]
        real = (read_captions(timed, reference.normal), played)
    return judge_captions(name, reference, _in_audio(events, reference), took, real)


def _looped(peer: FasterTranscriber, plan: Plan, reference: Reference, samples: Samples, language: str | None) -> Heard:
    hop_s = next(iter(plan.variants.values())).window.hop_s
    before = time.process_time()
    events = captions_of(peer.in_language(language), samples, hop_s)
    took = time.process_time() - before
    return judge_captions(AGREEMENT_LOOP, reference, _in_audio(events, reference), took)


def _in_audio(events: Sequence[Event], reference: Reference) -> Captions:
    return read_captions([(event, event.audio_t) for event in events], reference.normal)


def _peer(plan: Plan, offline: Offline, model: Model, stack: ExitStack) -> tuple[FasterTranscriber | None, str | None]:
    """The streaming peer on the same weights, or why there is none."""
    if not plan.peers:
        return None, "not asked for (--peers)"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    threads = torch.get_num_threads()
    try:
        return FasterTranscriber(offline.module, folder, threads, prompts=model.previous_text), None
    except PeerAbsentError as error:
        return None, str(error)


def _in_short(found: Sequence[Heard]) -> str:
    def one(each: Heard) -> str:
        rate = each.errors.rate
        return f"{each.listener} " + (f"{each.errors.invented} invented" if rate is None else f"{100 * rate:.1f} %")

    return "; ".join(map(one, found))


def report(result: Mapping[str, Any]) -> Report:
    """The report of what `speech.measure` found; `Report.brief` is its first table."""
    listeners: Mapping[str, Any] = result["listeners"]
    spoken = [name for name, found in listeners.items() if found["all"]["words"]]
    tables = []
    if spoken:
        every = {name: listeners[name]["all"] for name in spoken}
        first = every[spoken[0]]
        caption = f"{first['recordings']} recordings with speech, {first['seconds']:.0f} s, {first['words']} words"
        tables += [
            Table(caption, ALL, [_all_row(name, row) for name, row in every.items()]),
            Table("The same, counts and cost", REST, [_rest_row(name, row) for name, row in every.items()]),
        ]
        if result["paced_s"]:
            rows = [[name, *_late(row, "real_")] for name, row in every.items() if row["real_commit_p50_s"] is not None]
            tables.append(Table(f"Played live, {result['paced_s']:g} s of each: seconds by the clock", REAL, rows))
        tables.append(Table("Set by set", SET, _set_rows(listeners)))
    quiet = _quiet_rows(listeners)
    if quiet:
        tables.append(Table("Words written where nobody speaks", QUIET, quiet))
    return Report(
        name="speech",
        title=f"Recordings: `{result['model']}`",
        about=_about(result),
        result=result,
        tables=tables,
        draw=(lambda figure: _draw(figure, listeners)) if spoken else None,
    )


def _about(result: Mapping[str, Any]) -> str:
    absent = f" Left out: the streaming peer, {result['absent']}." if result["absent"] else ""
    return (
        f"Streamed with head {result['head'] or 'none'} in {result['dtype']}, against openai-whisper's `transcribe` of "
        "the whole recording on the same weights in float32. Errors on texts made comparable by whisper's normalisers; "
        "`as written`: with case and punctuation. Latencies in seconds of audio from the end of each word that was "
        f"heard right (times by `{result['words_timed_by']}`, offline, or the scene's own). Erasure: words withdrawn "
        "from the captions for each word said. Unseen: recordings that offline reads with less than half of the words "
        f"wrong and of which nothing was committed.{absent}"
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _points(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:+.1f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _late(row: Mapping[str, Any], clock: str = "") -> list[str | None]:
    return [_seconds(row[f"{clock}{what}_p{share}_s"]) for what in ("commit", "first") for share in (50, 95)]


def _over(name: str, row: Mapping[str, Any]) -> str | None:
    return None if name == OFFLINE else _points(row["over_offline"])


def _all_row(name: str, row: Mapping[str, Any]) -> list[object]:
    counts = [row["substituted"], row["lost"], row["invented"]]
    erasure = None if name == OFFLINE else _seconds(row["erasure"])
    return [
        name,
        _percent(row["wer"]),
        _over(name, row),
        *counts,
        _percent(row["wer_as_written"]),
        *_late(row),
        erasure,
    ]


def _rest_row(name: str, row: Mapping[str, Any]) -> list[object]:
    sizes = [row["recordings"], row["seconds"], row["words"]]
    stream = ["timed_words", "retractions", "unseen", "segments", "finals"]
    return [
        name,
        *sizes,
        *(None if name == OFFLINE else row[key] for key in stream),
        _seconds(row["processor_s_per_s"]),
    ]


def _set_rows(listeners: Mapping[str, Any]) -> list[list[object]]:
    names = {part: None for found in listeners.values() for part, row in found["sets"].items() if row["words"]}
    rows: list[list[object]] = []
    for part in names:
        for name, found in listeners.items():
            row = found["sets"][part]
            rates = [
                _percent(row["wer"]),
                _over(name, row),
                row["lost"],
                row["invented"],
                _percent(row["wer_as_written"]),
            ]
            unseen = None if name == OFFLINE else row["unseen"]
            rows.append([part, name, row["words"], *rates, *_late(row), unseen])
    return rows


def _quiet_rows(listeners: Mapping[str, Any]) -> list[list[object]]:
    """All quiet recordings, then the sets on which something was written."""
    every = {name: found["all"] for name, found in listeners.items() if found["all"]["quiet_recordings"]}
    rows = [_quiet_row("all", name, row) for name, row in every.items()]
    parts = {part: None for name in every for part, row in listeners[name]["sets"].items() if row["invented_in_quiet"]}
    rows += [_quiet_row(part, name, listeners[name]["sets"][part]) for part in parts for name in every]
    return rows


def _quiet_row(part: str, name: str, row: Mapping[str, Any]) -> list[object]:
    minutes = f"{row['quiet_seconds'] / 60:.1f}"
    return [
        part,
        name,
        row["quiet_recordings"],
        minutes,
        row["invented_in_quiet"],
        _seconds(row["invented_per_minute"]),
    ]


def _draw(figure: Any, listeners: Mapping[str, Any]) -> None:
    parts = list({part: None for found in listeners.values() for part, row in found["sets"].items() if row["words"]})
    errors, late = figure.subplots(1, 2, width_ratios=(3, 2))
    width = 0.8 / len(listeners)
    for index, (name, found) in enumerate(listeners.items()):
        places = [place + index * width for place in range(len(parts))]
        errors.bar(places, [100 * (found["sets"][part]["wer"] or 0) for part in parts], width, label=name)
    errors.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(parts))], parts, rotation=30, ha="right", fontsize=7
    )
    errors.set(ylabel="word error rate, %")
    errors.legend(fontsize=7)
    live = {name: found["all"] for name, found in listeners.items() if found["all"]["commit_p50_s"] is not None}
    _draw_late(late, live)


def _draw_late(axes: Any, live: Mapping[str, Mapping[str, Any]]) -> None:
    keys = [f"{what}_p{share}_s" for what in ("commit", "first") for share in (50, 95)]
    width = 0.8 / max(1, len(live))
    for index, (name, row) in enumerate(live.items()):
        axes.bar([place + index * width for place in range(len(keys))], [row[key] for key in keys], width, label=name)
    middles: Sequence[float] = [place + 0.4 - width / 2 for place in range(len(keys))]
    axes.set_xticks(middles, LATE, rotation=30, ha="right", fontsize=7)
    axes.set(ylabel="seconds after the word's end")
    if live:
        axes.legend(fontsize=7)

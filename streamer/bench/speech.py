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

from streamer.audio.block import AudioBlock
from streamer.bench.conversion import PeerAbsentError
from streamer.bench.peers import (
    AGREEMENT_LOOP,
    FasterTranscriber,
    Offline,
    Samples,
    captions_of,
)
from streamer.bench.speech_scores import (
    Captions,
    Heard,
    Reference,
    by_set,
    figures,
    judge,
    read_captions,
)
from streamer.bench.throughput import fixed_hop, run_streams
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, Event, Transcript
from streamer.measure.recordings import Recording, in_a_quiet_room
from streamer.measure.report import Report, Table
from streamer.measure.word_errors import normaliser
from streamer.model.engine import Engine
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model
from streamer.runtime.offline import OfflineEngine
from streamer.runtime.recording import Recording as Transcription
from streamer.runtime.stream import Stream
from streamer.settings.config import GuardSettings, Settings

OFFLINE = "openai-whisper, offline"
STREAM = "streamer"
WHOLE = "streamer, whole file"

Say = Callable[[str], None]


LATE = ("commit_p50_s", "commit_p95_s", "first_p50_s", "first_p95_s")
WRONG = ("wer", "over_offline", "substituted", "lost", "invented", "wer_as_written")
COUNTS = ("timed_words", "retractions", "unseen", "segments", "finals")  # of captions: no figures of whole readings
ALL = ("listener", *WRONG, *LATE, "erasure")
REST = ("listener", "recordings", "seconds", "words", *COUNTS, "processor_s_per_s")
SET = ("set", "listener", "words", "wer", "over_offline", "lost", "invented", "wer_as_written", *LATE, "unseen")
QUIET = ("set", "listener", "quiet_recordings", "quiet_seconds", "invented_in_quiet", "invented_per_minute")
REAL = ("listener", *(f"real_{key}" for key in LATE))
HEADS = {
    "wer": "WER %",
    "over_offline": "over offline",
    "wer_as_written": "as written %",
    **{f"{clock}{key}": key[:-2].replace("_", " ") for key in LATE for clock in ("", "real_")},
    "seconds": "s",
    "timed_words": "timed words",
    "processor_s_per_s": "processor s/s",
    "quiet_recordings": "recordings",
    "quiet_seconds": "minutes",
    "invented_in_quiet": "words invented",
    "invented_per_minute": "a minute",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `variants`: settings by the name they are reported under.

    `source`: the model as `load_model` takes it, for the offline readings; `times`: the model whose offline word
    timestamps say where words end (None: the same). `whole`: loaded to read whole recordings as `streamer transcribe`
    does, too. `paced_s`: of each recording, how much is also played in real time. `plain`: compare lower-case words,
    not numbers as whisper's normaliser writes them. `kept`: the folder of the offline readings (None: the cache's).
    """

    variants: Mapping[str, Settings]
    source: str
    times: str | None = None
    peers: bool = False
    whole: Model | None = None
    paced_s: float = 0.0
    plain: bool = False
    kept: Path | None = None


def measure(model: Model, recordings: Sequence[Recording], plan: Plan, say: Say = lambda line: None) -> dict[str, Any]:
    """All listeners on all recordings. Raises UsageError for languages that a model does not know."""
    _check_languages(recordings, model.is_multilingual, f"--model {model.name}")
    if plan.whole and not plan.whole.previous_text:
        raise UsageError(f"--whole: {model.name} was not trained to read whole files: transcribe streams them")
    facts = machine_facts(torch.get_num_threads())
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
            found = [judge(OFFLINE, reference, read.text, read.processor_s)]
            for name, settings in plan.variants.items():
                chosen = _in_language(settings, recording.language)
                found.append(_streamed(name, model, chosen, reference, samples, plan.paced_s))
            if plan.whole:
                found.append(
                    _read_whole(plan.whole, _in_language(_first(plan), recording.language), reference, samples)
                )
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
        "load_after": load(),
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
                "all": _figures(name, group, offline),
                "sets": {part: _figures(name, some, offline) for part, some in by_set(group).items()},
            }
            for name, group in listeners.items()
        },
        "recordings": recordings,
    }


def _figures(name: str, heard: Sequence[Heard], offline: Mapping[str, Heard]) -> dict[str, Any]:
    """One listener's figures; None what a reading of the whole recording has not."""
    found = figures(heard, offline)
    if name in (OFFLINE, WHOLE):
        found |= dict.fromkeys((*COUNTS, "erasure"))
    return found | {"over_offline": None} if name == OFFLINE else found


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
        timed = run_streams(engine, fixed_hop(settings), [part])[0]
        played = [word for word in reference.words if word.end_s <= len(part) / SAMPLE_RATE]
        real = (read_captions(timed, reference.normal), played)
    return judge(name, reference, _in_audio(events, reference), took, real)


def _first(plan: Plan) -> Settings:
    return next(iter(plan.variants.values()))


def _read_whole(model: Model, settings: Settings, reference: Reference, samples: Samples) -> Heard:
    """As `streamer transcribe`: with look-ahead, 30 s at once, the text only."""
    before = time.process_time()
    engine = OfflineEngine(model)
    transcription = Transcription(model, settings, iter([AudioBlock(samples)]), hears=False)
    events: list[Event] = []
    while (request := transcription.request()) is not None:
        (result,) = engine.step([request])
        events += transcription.take(result)
    events += transcription.finish()
    took = time.process_time() - before
    return judge(WHOLE, reference, " ".join(event.text for event in events if isinstance(event, Transcript)), took)


def _looped(peer: FasterTranscriber, plan: Plan, reference: Reference, samples: Samples, language: str | None) -> Heard:
    before = time.process_time()
    events = captions_of(peer.in_language(language), samples, _first(plan).window.hop_s)
    took = time.process_time() - before
    return judge(AGREEMENT_LOOP, reference, _in_audio(events, reference), took)


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
    every = {name: found["all"] for name, found in listeners.items()}
    spoken = [(name, row) for name, row in every.items() if row["words"]]
    quiet = [("all", name, row) for name, row in every.items() if row["quiet_recordings"]]
    sets = dict.fromkeys(part for found in listeners.values() for part in found["sets"])
    by_part = [(part, name, found["sets"][part]) for part in sets for name, found in listeners.items()]
    wrote = {part for part, _, row in by_part if row["invented_in_quiet"]}
    tables = []
    if spoken:
        first = spoken[0][1]
        caption = f"{first['recordings']} recordings with speech, {first['seconds']:.0f} s, {first['words']} words"
        tables += [_table(caption, ALL, spoken), _table("The same, counts and cost", REST, spoken)]
        if result["paced_s"]:
            rows = [(name, row) for name, row in spoken if row["real_commit_p50_s"] is not None]
            tables.append(_table(f"Played live, {result['paced_s']:g} s of each: seconds by the clock", REAL, rows))
        tables.append(_table("Set by set", SET, [row for row in by_part if row[2]["words"]]))
    if quiet:
        rows_of_sets = [row for row in by_part if row[0] in wrote]
        tables.append(_table("Words written where nobody speaks", QUIET, [*quiet, *rows_of_sets]))
    return Report(
        name="speech",
        title=f"Recordings: `{result['model']}`",
        about=_about(result),
        result=result,
        tables=tables,
        draw=(lambda figure: _draw(figure, listeners)) if spoken else None,
    )


def _table(caption: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Table:
    """Rows of names and then figures; the columns are keys of the figures behind as many names."""
    names = len(rows[0]) - 1 if rows else 1
    heads = [*columns[:names], *(HEADS.get(key, key) for key in columns[names:])]
    return Table(caption, heads, [[*row[:-1], *(_cell(key, row[-1][key]) for key in columns[names:])] for row in rows])


def _cell(key: str, value: float | None) -> object:
    if value is None:
        return None
    if key in ("wer", "wer_as_written"):
        return f"{100 * value:.1f}"
    if key == "over_offline":
        return f"{100 * value:+.1f}"
    if key == "quiet_seconds":
        return f"{value / 60:.1f}"
    return f"{value:.2f}" if isinstance(value, float) and key != "seconds" else value


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


def _draw(figure: Any, listeners: Mapping[str, Any]) -> None:
    parts = list({part: None for found in listeners.values() for part, row in found["sets"].items() if row["words"]})
    errors, late = figure.subplots(1, 2, width_ratios=(3, 2))
    width = 0.8 / len(listeners)
    for index, (name, found) in enumerate(listeners.items()):
        rates = [100 * (found["sets"][part]["wer"] or 0) for part in parts]
        errors.bar([place + index * width for place in range(len(parts))], rates, width, label=name)
        seconds = [found["all"][key] or 0 for key in LATE]
        late.bar([place + index * width for place in range(len(LATE))], seconds, width)
    for axes, names in ((errors, parts), (late, [HEADS[key] for key in LATE])):
        axes.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names, rotation=30, ha="right")
    errors.set(ylabel="word error rate, %")
    late.set(ylabel="seconds after the word's end")
    errors.legend(fontsize=7)

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

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.bench import agreement_loop, captions
from streamer.bench.paced import run_streams
from streamer.bench.peers import PeerAbsentError
from streamer.bench.script import fixed_hop
from streamer.bench.speech_scores import Heard, Reference, by_set, figures, judge_captions, judge_text
from streamer.bench.whisper_offline import Offline
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.measure import machine
from streamer.measure.recordings import Recording, in_a_quiet_room
from streamer.measure.word_errors import normaliser
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import GuardSettings, Settings

OFFLINE = "openai-whisper, offline"
STREAM = "streamer"

Say = Callable[[str], None]
Samples = NDArray[np.float32]


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
        timed = run_streams(engine, fixed_hop(settings), part, 1)[0].events
        played = [word for word in reference.words if word.end_s <= len(part) / SAMPLE_RATE]
        real = (captions.read(timed, reference.normal), played)
    return judge_captions(name, reference, _in_audio(events, reference), took, real)


def _looped(
    peer: agreement_loop.FasterTranscriber, plan: Plan, reference: Reference, samples: Samples, language: str | None
) -> Heard:
    hop_s = next(iter(plan.variants.values())).window.hop_s
    before = time.process_time()
    events = agreement_loop.captions_of(peer.in_language(language), samples, hop_s)
    took = time.process_time() - before
    return judge_captions(agreement_loop.NAME, reference, _in_audio(events, reference), took)


def _in_audio(events: Sequence[Event], reference: Reference) -> captions.Captions:
    return captions.read([(event, event.audio_t) for event in events], reference.normal)


def _peer(
    plan: Plan, offline: Offline, model: Model, stack: ExitStack
) -> tuple[agreement_loop.FasterTranscriber | None, str | None]:
    """The streaming peer on the same weights, or why there is none."""
    if not plan.peers:
        return None, "not asked for (--peers)"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    threads = torch.get_num_threads()
    try:
        return agreement_loop.FasterTranscriber(offline.module, folder, threads, prompts=model.previous_text), None
    except PeerAbsentError as error:
        return None, str(error)


def _in_short(found: Sequence[Heard]) -> str:
    def one(each: Heard) -> str:
        rate = each.errors.rate
        return f"{each.listener} " + (f"{each.errors.invented} invented" if rate is None else f"{100 * rate:.1f} %")

    return "; ".join(map(one, found))

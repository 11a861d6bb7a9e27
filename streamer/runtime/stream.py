"""The whole engine without threads, devices or clocks: samples in, events out.

`Stream` is what the live program, `--speed 0`, `streamer transcribe` and other people's programs run. Its two halves
are the `Listener` (audio → plans) and the `Hearing` (plans + model → events); the live program runs them on two
threads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.audio.block import AudioBlock, Source
from streamer.audio.conditioning import Conditioner
from streamer.audio.mel import MelFrames
from streamer.errors import InputError, StreamerError, UsageError
from streamer.events import FRAME_SAMPLES, SAMPLE_RATE, AlertSource, Event, State
from streamer.events.plans import AudioLost, Beat, Hop, Noticed, Plan, StateChanged, StepRequest, StepResult
from streamer.model.engine import Engine, StepEngine
from streamer.model.outline import ModelOutline
from streamer.model.own_sounds import OwnLayer
from streamer.model.whisper import Model, check_languages, language_codes
from streamer.policy.prompt import TextModel
from streamer.runtime.session import HeadFacts, Session
from streamer.runtime.told import Told
from streamer.settings.config import Settings
from streamer.sound.events import TRAINED_SPANS_S
from streamer.vad.planner import Planner
from streamer.vad.voice import VoiceDetector

Emit = Callable[[Sequence[Event]], None]

MEL_KEPT_SAMPLES = 31 * SAMPLE_RATE  # the longest window and its edges
LOST_PIECE = 50 * FRAME_SAMPLES  # zeros that are planned at once: a loss may be as long as a night


class Listener:
    """One stream's conditioner, voice detector and planner: audio in, plans out (pure; one thread owns it).

    Whatever the chunks, samples are conditioned, judged and planned in frames of 20 ms, so the plans are the same.
    `told`: the state of the source that people know already.
    """

    def __init__(self, settings: Settings, told: State = "listening", start_sample: int = 0) -> None:
        """`start_sample`: where the audio begins, a multiple of 320."""
        self._settings = settings
        self._told = (told, "")
        self._conditioner = Conditioner(start_sample)
        self._detector = VoiceDetector(settings.vad)
        self._planner = Planner(settings, start_sample)
        self._rest = np.zeros(0, np.float32)
        self._framed = start_sample  # samples that went through the planner
        self._lost: list[AudioLost] = []  # announced once the frames that hold them are planned

    def again(self, start_sample: int) -> "Listener":
        """One in place of this one, which failed; people know the state of the source already."""
        other = Listener(self._settings, start_sample=start_sample)
        other._told = self._told
        return other

    @property
    def position(self) -> int:
        """End of the audio taken so far."""
        return self._framed + len(self._rest)

    @property
    def level_db(self) -> float | None:
        """Level of the last hop, None before the first."""
        return self._planner.level_db

    def hear(self, block: AudioBlock) -> Iterator[Plan]:
        """Take a block of a source; what is due by now, in order: what is new of the source, then its audio."""
        for state, detail in block.news(self._told):
            yield self.state(state, detail)
        self._told = (block.state, block.trouble)
        yield from self.lost(block.lost_samples, block.reason)
        yield from self.step(block.samples)

    def step(self, samples: NDArray[np.float32]) -> list[Plan]:
        """Take float32 [n], 16 kHz mono, any n; what is due by now, in order."""
        samples = np.concatenate([self._rest, np.asarray(samples, dtype=np.float32)])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        plans: list[Plan] = []
        for frame in samples[:whole].reshape(-1, FRAME_SAMPLES):
            plans += self._frame(frame)
        return plans

    def lost(self, count: int, reason: str) -> Iterator[Plan]:
        """`count` samples went missing: zeros take their place and a gap is announced with the exact samples."""
        start = self.position
        if count:
            self._lost.append(AudioLost(start + count, start, start + count, reason))
        for at in range(0, count, LOST_PIECE):
            for plan in self.step(np.zeros(min(count - at, LOST_PIECE), np.float32)):
                if isinstance(plan, Hop) and plan.end_sample - plan.new_samples >= start:
                    plan = replace(plan, lost=True)
                yield plan

    def state(self, state: State, detail: str) -> StateChanged:
        """The plan that passes on a change of the source's state, in its place among the others."""
        return StateChanged(self._framed, state, detail)

    def finish(self) -> list[Plan]:
        """The input ended: the rest of the audio, then the end of an open segment."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        plans: list[Plan] = []
        if len(rest):
            frame = np.zeros(FRAME_SAMPLES, np.float32)
            frame[: len(rest)] = rest
            conditioned, reports = self._conditioner.step(frame)
            self._framed += len(rest)
            plans += [Noticed(self._framed, report) for report in reports]
            rest = conditioned[: len(rest)]
        plans += [Noticed(self._framed, report) for report in self._conditioner.finish()]
        plans += self._announced()
        return plans + list(self._planner.finish(rest))

    def _frame(self, frame: NDArray[np.float32]) -> list[Plan]:
        conditioned, reports = self._conditioner.step(frame)
        self._framed += FRAME_SAMPLES
        plans: list[Plan] = [Noticed(self._framed, report) for report in reports]
        plans += self._announced()
        return plans + list(self._planner.step(conditioned, self._detector.step(conditioned)))

    def _announced(self) -> list[Plan]:
        due = [replace(lost, end_sample=self._framed) for lost in self._lost if lost.lost_to <= self._framed]
        self._lost = [lost for lost in self._lost if lost.lost_to > self._framed]
        return list(due)


class Hearing:
    """One stream's mel frames and session, beside a model that many streams share. One thread owns it."""

    def __init__(
        self,
        model: Model | ModelOutline,
        settings: Settings,
        name: str = "s1",
        local_time: Callable[[], float] | None = None,
        *,
        begun: int = 0,
        source: AlertSource = "live",
    ) -> None:
        """Raises UsageError for a language that the model does not know."""
        where = "speech.language"
        languages = language_codes(settings.speech.languages, where)
        check_languages(languages, model, where)
        self._model, self._settings, self._local_time = model, settings, local_time
        settings = settings.with_languages(languages)
        self.mel = MelFrames(model.dims.n_mels)
        text, head = text_model(model), head_facts(model)
        self.session = Session(settings, text, head, name=name, local_time=local_time, begun=begun, source=source)

    def again(self, told: Told, at_sample: int) -> "Hearing":
        """One in place of this one, whose session failed: it hears what comes behind this sample."""
        other = Hearing(self._model, self._settings, self.session.name, self._local_time, source=self.session.source)
        other.mel = MelFrames(self._model.dims.n_mels, at_sample)
        other.session.go_on(self.session, told, at_sample)
        return other

    def take_up(self, told: Told, at_sample: int) -> None:
        """Before anything else: go on where a session of another process ended, with its audio from this sample on."""
        self.mel = MelFrames(self._model.dims.n_mels, at_sample)
        self.session.go_on(None, told, at_sample)

    def begin(self, plan: Plan, *, text: bool = True, judge: bool = True) -> StepRequest | None:
        """Take the plan's audio; what the model has to do for it, if anything."""
        if isinstance(plan, Hop):
            self.mel.append(plan.samples)
            self.mel.discard_before(max(0, plan.end_sample - MEL_KEPT_SAMPLES))
        return self.session.begin(plan, text=text, judge=judge)

    def complete(self, plan: Plan, result: StepResult | None) -> list[Event]:
        """The plan's events."""
        return self.session.complete(plan, result)

    def pass_over(self, plan: Plan) -> list[Event]:
        """The plan's events where there is time for hardly anything: nothing is made of its audio.

        Without the mel frames, which a step may still be reading.
        """
        if isinstance(plan, Hop | Beat):
            self.session.skip(plan)
            return []
        return self.session.complete(plan, None)


class Stream:
    """Captions, tags, sounds and alerts of one stream of audio; the same events for any chunking.

    `settings` None: the defaults. `source`: what its alerts say that they come from. `own`: sounds of one's own, judged
    where there is a head or a rule for one of them. `engine`: what runs the steps where not the `model` itself does (a
    cluster). Not for several threads at once. `DESIGN`: one encoder pass per hop at most.
    """

    def __init__(
        self,
        model: Model | ModelOutline,
        settings: Settings | None = None,
        *,
        name: str = "s1",
        source: AlertSource = "live",
        own: OwnLayer | None = None,
        engine: StepEngine | None = None,
    ) -> None:
        settings = settings or Settings()
        if engine is None:
            if isinstance(model, ModelOutline):
                raise UsageError(f"engine: the model {model.name} has no weights here: an engine that has is needed")
            engine = Engine(model, context=settings.model.context, own=own)
        self._engine = engine
        self._listener = Listener(settings)
        self._hearing = Hearing(model, settings, name, source=source)
        self._state: State = "starting"

    @property
    def engine(self) -> Engine:
        """What runs the steps; its counters are for benches. UsageError where that is somewhere else."""
        if not isinstance(self._engine, Engine):
            raise UsageError("engine: the steps of this stream run elsewhere")
        return self._engine

    @property
    def session(self) -> Session:
        """The session, for acknowledging alerts and flushing text."""
        return self._hearing.session

    @property
    def position(self) -> int:
        """End of the audio taken so far, in samples; what was lost counts."""
        return self._listener.position

    def push(self, samples: ArrayLike) -> list[Event]:
        """Take samples, float32 [n] in -1..1, 16 kHz mono, any n; the events that are due by now.

        Raises InputError for arrays of another shape or kind, and after `finish`.
        """
        return self._begun() + self._carry_out(self._listener.step(_mono(samples)))

    def hear(self, block: AudioBlock) -> list[Event]:
        """Take a block of a source, and what is known about its way here; the events that are due by now."""
        return self._begun() + self._carry_out(self._listener.hear(block))

    def lost(self, count: int, reason: str) -> list[Event]:
        """`count` samples were lost before the next ones: a `gap` says so and the clock goes on."""
        return self._begun() + self._carry_out(self._listener.lost(count, reason))

    def status(self, state: State, detail: str) -> list[Event]:
        """The source's state changed."""
        return self._begun() + self._carry_out([self._listener.state(state, detail)])

    def finish(self) -> list[Event]:
        """The audio is over: the last words, the ends of sounds and alerts, `status` `stopped`. Once."""
        events = self._begun() + self._carry_out(self._listener.finish())
        self._state = "stopped"
        return events + self._hearing.session.finish()

    def _begun(self) -> list[Event]:
        if self._state == "stopped":
            raise InputError("this Stream is finished: make a new one for more audio")
        if self._state == "listening":
            return []
        self._state = "listening"
        return self._hearing.session.status("listening")

    def _carry_out(self, plans: Iterable[Plan]) -> list[Event]:
        events: list[Event] = []
        for plan in plans:
            request = self._hearing.begin(plan)
            result = self._engine.step([(self._hearing.mel, request)])[0] if request else None
            events += self._hearing.complete(plan, result)
        return events


def hear_at_once(
    sources: Sequence[Source], streams: Sequence[Stream], emit: Emit, asked_to_end: Callable[[], bool]
) -> Mapping[str, Exception]:
    """Speed 0: hear files as fast as they go, in the thread that calls; what failed, by the session's name.

    They go side by side in audio time, the one that is furthest behind first, and nothing is dropped. No two share a
    step of the model, so the events of each are those that it has alone, in the same order in every run. A source that
    fails or ends leaves the others alone. `asked_to_end`: the last words are committed, then all is over.
    """
    waiting = {stream: iter(source.blocks()) for source, stream in zip(sources, streams, strict=True)}
    failures: dict[str, Exception] = {}
    while waiting and not asked_to_end():
        stream = min(waiting, key=lambda one: one.position)
        try:
            block = next(waiting[stream], None)
            if block is not None:
                emit(stream.hear(block))
                continue
        except StreamerError as error:
            failures[stream.session.name] = error
            emit(stream.status("degraded", str(error)))
        del waiting[stream]
        emit(stream.finish())
    for stream in waiting:
        emit(stream.finish())
    return failures


def text_model(model: Model | ModelOutline) -> TextModel:
    """What the text session needs to know of the model."""
    tokenizer = model.tokenizer("en" if model.is_multilingual else None)
    return TextModel(
        encode=lambda text: tuple(tokenizer.encode(text)),
        fixed_language=None if model.is_multilingual else "en",
        carries_prompt=model.previous_text,
        context_s=model.context_s,
        text_context=model.dims.n_text_ctx,
        name=f"the model {model.name}",
    )


def head_facts(model: Model | ModelOutline) -> HeadFacts | None:
    """What the session needs to know of the model's head; None without one."""
    if model.head is None:
        return None
    described = model.head.description
    thresholds = None if described.thresholds is None else np.array(described.thresholds, np.float32)
    trained = None if described.trained_classes is None else frozenset(described.trained_classes)
    return HeadFacts(thresholds, described.trained_spans_s or TRAINED_SPANS_S, trained, described.rules)


def _mono(samples: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(samples)
    if array.ndim != 1 or array.dtype.kind not in "f":
        raise InputError(f"samples: must be a float32 array of one dimension, is {array.dtype} {list(array.shape)}")
    return array.astype(np.float32, copy=False)

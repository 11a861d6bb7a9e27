"""The whole engine without threads, devices or clocks: samples in, events out.

`Stream` is what the live program, `--speed 0`, `streamer transcribe` and other people's programs run. Its two halves
are the listener (samples → plans) and the `Hearing` (plans + model → events); the live program runs them on two
threads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamer.audio.block import AudioBlock, Source
from streamer.audio.mel import MelFrames
from streamer.errors import InputError, StreamerError
from streamer.events import SAMPLE_RATE, AlertSource, Event, State
from streamer.model.engine import Engine
from streamer.model.whisper import Model, check_languages, language_codes
from streamer.plans import Hop, Plan, StepRequest, StepResult
from streamer.policy.prompt import TextModel
from streamer.runtime.listener import Listener
from streamer.runtime.session import HeadFacts, Session
from streamer.settings.config import Settings
from streamer.sound.judgement import TRAINED_SPANS_S

Emit = Callable[[Sequence[Event]], None]

MEL_KEPT_SAMPLES = 31 * SAMPLE_RATE  # the longest window and its edges


class Hearing:
    """One stream's mel frames and session, beside a model that many streams share. One thread owns it."""

    def __init__(
        self,
        model: Model,
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
        settings = settings.with_languages(languages)
        self.mel = MelFrames(model.dims.n_mels)
        text, head = text_model(model), head_facts(model)
        self.session = Session(settings, text, head, name=name, local_time=local_time, begun=begun, source=source)

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
        """The plan's events without the model, and without the mel frames, which a step may still be reading."""
        self.session.begin(plan, text=False, judge=False)
        return self.session.complete(plan, None)


class Stream:
    """Captions, tags, sounds and alerts of one stream of audio; the same events for any chunking.

    `settings` None: the defaults. `source`: what its alerts say that they come from. Not for several threads at once.
    `DESIGN`: one encoder pass per hop at most.
    """

    def __init__(
        self, model: Model, settings: Settings | None = None, *, name: str = "s1", source: AlertSource = "live"
    ) -> None:
        settings = settings or Settings()
        self._engine = Engine(model, context=settings.model.context)
        self._listener = Listener(settings)
        self._hearing = Hearing(model, settings, name, source=source)
        self._state: State = "starting"

    @property
    def engine(self) -> Engine:
        """What runs the steps; its counters are for benches."""
        return self._engine

    @property
    def session(self) -> Session:
        """The session, for acknowledging alerts and flushing text."""
        return self._hearing.session

    def push(self, samples: ArrayLike) -> list[Event]:
        """Take samples, float32 [n] in -1..1, 16 kHz mono, any n; the events that are due by now.

        Raises InputError for arrays of another shape or kind, and after `finish`.
        """
        return self._begun() + self._carry_out(self._listener.step(_mono(samples)))

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

    def _carry_out(self, plans: Sequence[Plan]) -> list[Event]:
        events: list[Event] = []
        for plan in plans:
            request = self._hearing.begin(plan)
            result = self._engine.step([(self._hearing.mel, request)])[0] if request else None
            events += self._hearing.complete(plan, result)
        return events


@dataclass(slots=True)
class _Reader:
    """One source on its way: how far it was heard, in samples."""

    stream: Stream
    blocks: Iterator[AudioBlock]
    position: int = 0
    state: State = "listening"


def hear_at_once(
    sources: Sequence[Source], streams: Sequence[Stream], emit: Emit, asked_to_end: Callable[[], bool]
) -> Mapping[str, Exception]:
    """Speed 0: hear files as fast as they go, in the thread that calls; what failed, by the session's name.

    They go side by side in audio time, the one that is furthest behind first, and nothing is dropped. No two share a
    step of the model, so the events of each are those that it has alone, in the same order in every run. A source that
    fails or ends leaves the others alone. `asked_to_end`: the last words are committed, then all is over.
    """
    readers = [_Reader(stream, iter(source.blocks())) for source, stream in zip(sources, streams, strict=True)]
    failures: dict[str, Exception] = {}
    while readers and not asked_to_end():
        reader = min(readers, key=lambda one: one.position)
        try:
            if _step(reader, emit):
                continue
        except StreamerError as error:
            failures[reader.stream.session.name] = error
            emit(reader.stream.status("degraded", str(error)))
        readers.remove(reader)
        emit(reader.stream.finish())
    for reader in readers:
        emit(reader.stream.finish())
    return failures


def _step(reader: _Reader, emit: Emit) -> bool:
    """Hear one block; False at the end."""
    block = next(reader.blocks, None)
    if block is None:
        return False
    for events in heard(reader.stream, block, reader.state):
        emit(events)
    reader.state = block.state
    reader.position += block.lost_samples + len(block.samples)
    return True


def heard(stream: Stream, block: AudioBlock, before: State) -> Iterator[list[Event]]:
    """The events of a block, of what is known about its way here too; `before`: the state of the source so far."""
    if block.lost_samples:
        yield stream.lost(block.lost_samples, block.reason)
    for state, detail in block.news(before):
        yield stream.status(state, detail)
    yield stream.push(block.samples)


def text_model(model: Model) -> TextModel:
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


def head_facts(model: Model) -> HeadFacts | None:
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

"""Sounds of one's own in the running program: listened for from the start, and learned from what just sounded.

    server's loop ── take(Learn) ──► queue ── learner thread ── one window at a time ──► worker thread (owns the model)
    capture threads ── TappedSource ──► ClipRing (45 s)  ▲──────── the layer, files, rules, a status ───────────┘

The learner thread owns the files and the clips at hand. Full-queue rule: a client is told to try later. A window of a
clip waits while its session's worker is more than LAG_S behind: captions and alerts come first.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.alerts.recorder import ClipRing, TappedSource, write_wav
from streamer.audio.block import Source
from streamer.errors import InputError, StreamerError, UsageError
from streamer.events import SAMPLE_RATE, Severity
from streamer.model.engine import Engine
from streamer.model.own_sounds import (
    CLIPS_NEEDED,
    Background,
    OwnLayer,
    OwnSound,
    OwnSoundFiles,
    bundled_background,
    fitting,
)
from streamer.model.whisper import Model
from streamer.runtime.session import Session
from streamer.runtime.worker import Lane
from streamer.server import messages
from streamer.server.messages import Learn, MessageError
from streamer.settings.own_sounds import SEVERITY, OwnSoundSettings, own_rule

log = logging.getLogger(__name__)

LIMIT_WAITING = 8  # moments
LAG_S = 1.0
LOOK_S = 0.2
BEFORE_S, AFTER_S = 0.5, 0.3  # around a moment: events' times are estimates
Audio = NDArray[np.float32]
Encode = Callable[[Audio], NDArray[np.float32]]


class Teacher(Protocol):
    """What learns (`streamer.training.own_sounds`), which this room does not import."""

    def encoder_of(self, model: Model) -> Encode:
        """What makes taps of a window of audio."""
        ...

    def learn(
        self,
        known: OwnSound | None,
        name: str,
        severity: Severity,
        clips: Sequence[tuple[str, Audio]],
        encode: Encode,
        background: Background,
    ) -> OwnSound:
        """The sound with these clips added. Raises InputError."""
        ...


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a client pointed at."""

    session: str
    name: str
    samples: Audio


class OwnSounds:
    """All of one run. `teacher` None: nothing is learned while it runs. `lanes`: the live ones, by session."""

    def __init__(
        self, settings: OwnSoundSettings, teacher: Teacher | None, lanes: Callable[[], Mapping[str, Lane]]
    ) -> None:
        self._settings, self._teacher, self._lanes = settings, teacher, lanes
        self._files = OwnSoundFiles(settings.place())
        self._rings: dict[str, ClipRing] = {}
        self._background: Background | None = None
        self._engine: Engine | None = None
        self._encode: Encode | None = None
        self._waiting: deque[_Moment] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def load(self, engine: Engine) -> None:
        """Have the engine listen for what was learned with its model; a line for each sound that was not."""
        known = self._files.read() if self._settings.enabled else ()
        if not known and self._teacher is None:
            return
        self._engine = engine
        try:
            self._background = bundled_background(engine.model)
        except UsageError as error:
            if any(sound.learned for sound in known):
                log.warning("streamer: own sounds are not listened for: %s", error)
            return
        layer, others = fitting(self._background, known)
        for line in others:
            log.warning("streamer: %s", line)
        engine.own = layer if layer.sounds else None
        if self._teacher is not None:
            self._encode = self._teacher.encoder_of(engine.model)
            self._thread.start()

    def tell(self, session: Session, engine: Engine) -> None:
        """Have a session ask for what the engine listens for."""
        engine.own = self._engine.own if self._engine else None
        session.listen_for(_names(engine.own))

    def tap(self, session: str, source: Source) -> Source:
        """The source, with its last seconds kept where sounds can be learned."""
        if self._teacher is None:
            return source
        for name in [name for name, ring in self._rings.items() if ring.ended]:
            del self._rings[name]
        ring = self._rings[session] = ClipRing()
        return TappedSource(source, ring)

    @property
    def learn(self) -> Callable[[Learn], dict[str, Any]] | None:
        """Takes what a client points at, without waiting; None: nothing is learned here."""
        return None if self._teacher is None else self._take

    def stop(self) -> None:
        """End the learner after the window at hand; moments that wait are lost."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def _take(self, asked: Learn) -> dict[str, Any]:
        if self._encode is None:
            why = "comes with Streamer for nano and tiny.en" if self._engine else "needs a model, being loaded"
            raise MessageError(f"learn: not with this model (yet): what learning takes {why}")
        live = {name: ring for name, ring in self._rings.items() if not ring.ended}
        session = asked.session or (next(iter(live)) if len(live) == 1 else None)
        if session not in live:
            raise MessageError(f"session: say in which one it sounded; live are: {', '.join(live) or 'none'}")
        ring = live[session]
        end = ring.end if asked.start_s is None else round((asked.end_s + AFTER_S) * SAMPLE_RATE)
        begin = end - round(asked.end_s * SAMPLE_RATE) if asked.start_s is None else asked.start_s - BEFORE_S
        start = begin if asked.start_s is None else round(begin * SAMPLE_RATE)
        samples = ring.cut(max(0, int(start)), end)
        if len(samples) < messages.MIN_MOMENT_S * SAMPLE_RATE:
            raise MessageError("start: that sound is not kept any more: the last 45 s are")
        with self._changed:
            if len(self._waiting) >= LIMIT_WAITING:
                raise MessageError("learn: too much at once; try again in a minute")
            self._waiting.append(_Moment(session, asked.name, samples))
            waiting = sum(moment.name == asked.name for moment in self._waiting)
            self._changed.notify_all()
        known = self._files.find(asked.name)
        same = known is not None and self._background is not None and known.encoder == self._background.encoder
        return messages.learned(
            session, asked.name, (len(known.clips) if known and same else 0) + waiting, CLIPS_NEEDED
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                moment = self._waiting.popleft()
            try:
                said = self._learned(moment)
            except StreamerError as error:
                said = f"{moment.name} is not learned: {error}"
            except Exception as error:  # the top of the thread: what was known stays in force
                log.exception("learning %s failed", moment.name)
                said = f"{moment.name} is not learned: {error}"
            lane = self._lanes().get(moment.session)
            if lane is not None:
                lane.ask(lambda session, said=said: session.note(said))  # type: ignore[misc]

    def _learned(self, moment: _Moment) -> str:
        """Learn from one more moment; what people are told."""
        assert self._teacher is not None
        assert self._background is not None
        known = self._files.find(moment.name)
        severity = known.severity if known else SEVERITY
        clips = [("the sound just now", moment.samples)]
        sound = self._teacher.learn(
            known,
            moment.name,
            severity,
            clips,
            lambda samples: self._encoded(moment.session, samples),
            self._background,
        )
        self._files.write(sound)
        if self._settings.keep_clips:
            write_wav(self._files.clips(sound.name) / f"{time.time():.0f}.wav", moment.samples)
        if not sound.learned:
            return f"{sound.name}: {len(sound.clips)} of {CLIPS_NEEDED} moments that are needed"
        self._listen_for(sound)
        return f"{sound.name} is learned from {len(sound.clips)} moments and listened for from now on"

    def _encoded(self, session: str, samples: Audio) -> NDArray[np.float32]:
        """Taps of a window, made by the worker's thread once it is not behind. InputError: the session is over."""
        done, found = threading.Event(), list[NDArray[np.float32] | Exception]()

        def action(_: Session) -> list[Any]:
            assert self._encode is not None
            try:
                found.append(self._encode(samples))
            except (StreamerError, RuntimeError) as error:
                found.append(error)
            done.set()
            return []

        lane = self._lanes().get(session)
        while lane is not None and lane.lag_s > LAG_S and not self._stopping.wait(LOOK_S):
            pass
        if self._stopping.is_set() or lane is None or not lane.ask(action):
            raise InputError("the session is over")
        while not done.wait(LOOK_S):
            if self._stopping.is_set() or lane.done.is_set():
                raise InputError("the session is over")
        if isinstance(found[0], Exception):
            raise InputError(f"the model failed on it: {found[0]}")
        return found[0]

    def _listen_for(self, sound: OwnSound) -> None:
        """Replace the layer between two steps, and tell every session."""
        background, engine = self._background, self._engine
        assert background is not None
        assert engine is not None
        others = tuple(known for known in (engine.own.sounds if engine.own else ()) if known.name != sound.name)
        layer = OwnLayer(background, (*others, sound))
        rule = own_rule(sound.name, sound.severity)

        def action(session: Session) -> list[Any]:
            engine.own = layer
            session.listen_for(_names(layer), [rule])
            return []

        for lane in self._lanes().values():
            lane.ask(action)


def _names(layer: OwnLayer | None) -> tuple[str, ...]:
    return tuple(sound.name for sound in layer.sounds) if layer else ()

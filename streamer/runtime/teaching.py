"""Sounds of one's own that people teach from the pages: "that was my doorbell".

    server's loop ─ `ask` cuts seconds out of the stream's ring ─► thread `teach-clips` writes or deletes WAV files
                                                                         │ three or more of one sound
    worker's thread ◄─ encodes scenes (lent), takes the new layer ── thread `teach-learn` learns, one sound at a time

The rings are in memory; nothing is kept of what nobody pressed a button for. Full-queue rule: beyond WAITING presses,
or sounds to be learned, a press is refused. What learns stands in a room below this one and is handed in (`Lessons`).
"""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from streamer.alerts.own_clips import OwnClips
from streamer.alerts.recorder import ClipRing
from streamer.audio.files import read_audio
from streamer.errors import EngineError, StreamerError, UsageError
from streamer.events import SAMPLE_RATE, Severity
from streamer.model.own_sounds import (
    CLIPS_NEEDED,
    Background,
    OwnLayer,
    OwnSound,
    OwnSoundFiles,
    Vectors,
    bundled_background,
)
from streamer.model.whisper import Model
from streamer.runtime.lane import Lane
from streamer.runtime.session import Session
from streamer.runtime.worker import Worker
from streamer.server.actions import Reply
from streamer.server.messages import MessageError, Taught, Teach
from streamer.settings.config import Settings
from streamer.settings.own_sounds import SEVERITY, own_rule
from streamer.settings.rules import MAX_RULES, AlertRule

log = logging.getLogger(__name__)

CLIP_SAMPLES = 6 * SAMPLE_RATE  # as much of a clip as learning looks at
BEFORE_SAMPLES = SAMPLE_RATE  # of them before the moment at which a sound began
LEAST_SAMPLES = SAMPLE_RATE  # with less in memory nothing is kept
WAITING = 16
NICENESS = 10  # of the thread that learns, above that of the others

Audio = NDArray[np.float32]
Encode = Callable[[Audio], Vectors]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What learns a sound. `check` raises InputError where a clip (samples, label) is silent; `encoder_of` and `learn`
    are those of `streamer.training.own_sounds`.
    """

    check: Callable[[Audio, str], object]
    encoder_of: Callable[[Model], Encode]
    learn: Callable[[str, Severity, Sequence[tuple[str, Audio]], Encode, Background], OwnSound]


@dataclass(frozen=True, slots=True)
class _Press:
    """What somebody pressed, and the sound that goes with it (None: a clip is taken back)."""

    message: Teach
    samples: Audio | None
    reply: Reply


@dataclass(frozen=True, slots=True)
class _Pupil:
    """The model that listens, who owns it, and what learning starts from."""

    model: Model
    worker: Worker
    background: Background


class Teaching:
    """Keeps clips, learns from them beside the live streams, and has the sound listened for at once.

    `own`: what the engine listens for, also a spare one. `lessons` None: nothing is taught.
    """

    def __init__(self, settings: Settings, lessons: Lessons | None = None) -> None:
        self.own: OwnLayer | None = None
        self.lessons = lessons
        self._files = OwnSoundFiles(settings.own_sounds.place())
        self._clips = OwnClips(self._files.folder)
        self._ids = [rule.id for rule in settings.all_rules()]
        self._rules: list[AlertRule] = []  # of sounds that were learned in this run
        self._lender: tuple[Model, Worker] | None = None  # while sounds can be taught
        self._pupil: _Pupil | None = None  # the thread `teach-clips` makes it for the first press
        self._ready = threading.Condition()
        self._presses: deque[_Press] = deque()
        self._due: dict[str, tuple[str, Reply]] = {}  # sounds to be learned, by their name in small letters

    def begin(self, model: Model, worker: Worker) -> None:
        """From now on sounds can be taught."""
        self._lender = model, worker
        if self.lessons is not None:
            for name, work in (("teach-clips", self._keep_clips), ("teach-learn", self._learn_sounds)):
                threading.Thread(target=work, args=(self.lessons,), name=name, daemon=True).start()

    def end(self) -> None:
        """No more are; what is being learned ends with the worker."""
        with self._ready:
            self._lender = None
            self._ready.notify_all()

    def ring(self, start_sample: int = 0) -> ClipRing | None:
        """Where a new stream's blocks are to go, which begins at this sample; None: nothing is taught."""
        return None if self.lessons is None else ClipRing(start_sample=start_sample)

    def meet(self, lane: Lane) -> None:
        """A stream that opened just now listens for what was learned in this run, too."""
        for rule in list(self._rules):
            lane.ask(partial(Session.listen_for, rule=rule))

    def ask(self, message: Teach, ring: ClipRing | None, reply: Reply) -> None:
        """Keep or take back a clip; `reply` is told how far the sound is, from other threads. Never waits.

        Raises MessageError: too early, too late, or too many at once.
        """
        if self._lender is None:
            raise MessageError("teach: the model is still being loaded; ask again when the state is listening")
        samples = None if message.undo else cut(ring, message.start, message.ago)
        with self._ready:
            if len(self._presses) >= WAITING:
                raise MessageError("teach: others teach too; try again in a moment")
            self._presses.append(_Press(message, samples, reply))
            self._ready.notify_all()

    # ---- thread `teach-clips`

    def _keep_clips(self, lessons: Lessons) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._presses or self._lender is None)
                if not self._presses:
                    return
                press = self._presses.popleft()
            try:
                self._carry_out(press, lessons)
            except StreamerError as error:
                press.reply(f"teach: {error}")
            except Exception as error:  # the top of a press
                log.error("teach: %s: %s", type(error).__name__, error, exc_info=log.isEnabledFor(logging.DEBUG))
                press.reply(f"teach: it failed ({type(error).__name__}: {error})".partition("\n")[0])

    def _carry_out(self, press: _Press, lessons: Lessons) -> None:
        background, message = self._known_pupil().background, press.message
        if press.samples is None:
            self._clips.take_back(message.name, message.clip)
        else:
            lessons.check(press.samples, "this clip")
            self._clips.add(message.name, press.samples)
        known = self._known(message.name, background)
        clips, before = len(self._clips.paths(message.name)), 0 if known is None else known.clips
        # What was learned from more clips than are here is better: it stays until there are as many.
        needed = max(CLIPS_NEEDED, before - message.undo)
        with self._ready:
            learning = clips >= needed and len(self._due) < WAITING
        press.reply(Taught(message.name, clips, needed, learned=known is not None, learning=learning))
        if learning:
            with self._ready:
                self._due[message.name.casefold()] = (message.name, press.reply)
                self._ready.notify_all()

    def _known_pupil(self) -> _Pupil:
        """UsageError: own sounds cannot be learned with this model; EngineError: the program ends."""
        if self._pupil is None:
            if self._lender is None:
                raise EngineError("the program ends")
            model, worker = self._lender
            try:
                self._pupil = _Pupil(model, worker, worker.lend(partial(bundled_background, model)))
            except UsageError as error:
                raise UsageError(str(error).removeprefix("--model: ")) from None
        return self._pupil

    def _known(self, name: str, background: Background) -> OwnSound | None:
        """What was learned of a sound with this encoder."""
        known = self._files.find(name)
        return known if known is not None and known.encoder == background.encoder else None

    # ---- thread `teach-learn`

    def _learn_sounds(self, lessons: Lessons) -> None:
        _give_way()
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._due or self._lender is None)
                if self._lender is None:
                    return
                name, reply = self._due.pop(next(iter(self._due)))
            try:
                self._learn(name, reply, lessons)
            except Exception as error:  # the top of a lesson
                if self._lender is None:
                    return  # the program ends
                log.error("teach: %s: %s: %s", name, type(error).__name__, error)
                log.debug("", exc_info=error)
                self._say_trouble(name, reply, f"{type(error).__name__}: {error}".partition("\n")[0])

    def _learn(self, name: str, reply: Reply, lessons: Lessons) -> None:
        pupil = self._pupil
        assert pupil is not None
        paths = self._clips.paths(name)
        clips = [(f"clip {n} of {len(paths)}", read_audio(str(path))) for n, path in enumerate(paths, start=1)]
        known = self._files.find(name)
        encode = lessons.encoder_of(pupil.model)

        def lent(samples: Audio) -> Vectors:
            return pupil.worker.lend(partial(encode, samples))

        named, severity = (name, SEVERITY) if known is None else (known.name, known.severity)
        try:
            sound = lessons.learn(named, severity, clips, lent, pupil.background)
        except EngineError:
            raise
        except StreamerError as error:
            unlike = next((n for n, (label, _) in enumerate(clips, 1) if str(error).startswith(f"{label}:")), None)
            self._say_trouble(name, reply, str(error), unlike)
            return
        if self._clips.paths(name) != paths:
            return  # somebody changed the clips meanwhile: that press decided whether it is learned again
        self._files.write(sound)
        self._listen(pupil, sound)
        log.warning("own sounds: %r was learned from %d clips and is listened for from now on", sound.name, len(clips))
        reply(Taught(name, len(clips), len(clips), learned=True, recall=round(sound.recall, 2)))

    def _listen(self, pupil: _Pupil, sound: OwnSound) -> None:
        """The engine gets the layer between two steps, every session the rule between two plans."""
        mine = tuple(one for one in self._files.read() if one.encoder == pupil.background.encoder)
        self.own = OwnLayer(pupil.background, mine)
        pupil.worker.listen_for(self.own)
        rule = next((rule for rule in self._rules if rule.own == sound.name), None)
        if rule is None and len(self._ids) < MAX_RULES:
            rule = own_rule(sound.name, sound.severity, self._ids)
            self._rules.append(rule)
            self._ids.append(rule.id)
        if rule is not None:
            for lane in pupil.worker.lanes():
                lane.ask(partial(Session.listen_for, rule=rule))

    def _say_trouble(self, name: str, reply: Reply, trouble: str, unlike: int | None = None) -> None:
        pupil, clips = self._pupil, len(self._clips.paths(name))
        known = pupil is not None and self._known(name, pupil.background) is not None
        reply(Taught(name, clips, CLIPS_NEEDED, learned=known, trouble=trouble, unlike=unlike))


def _give_way() -> None:
    """Captions come first: what this thread computes gets what the others leave. Only Linux has that for threads."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(19, os.getpriority(os.PRIO_PROCESS, me) + NICENESS))


def cut(ring: ClipRing | None, start_s: float | None, ago_s: float) -> Audio:
    """The seconds around a moment, float32 [n], as `Teach` says. MessageError where they are not in memory."""
    if start_s is None:
        end = 0 if ring is None else ring.end - round(ago_s * SAMPLE_RATE)
    else:
        end = round(start_s * SAMPLE_RATE) - BEFORE_SAMPLES + CLIP_SAMPLES
    samples = np.zeros(0, np.float32) if ring is None else ring.cut(max(0, end - CLIP_SAMPLES), max(0, end))
    if len(samples) < LEAST_SAMPLES:
        raise MessageError("teach: the sound of that moment is not in memory: only the last 45 s are")
    return samples

"""Which language is spoken: detected first, then held, changed only on repeated strong evidence (pure).

At the beginning of an utterance its first windows are decoded in the language that is detected. While somebody goes on
speaking, windows are decoded in the language in force and asked which one is spoken: each until one was very sure of it
(half a second says little), then now and then, and each again where guards withhold what was written. What insists on
another one changes the language from the next segment on.

Where the settings or a client name the languages that come into question, no other is ever in force.
"""

import logging
from dataclasses import dataclass
from enum import Enum, auto

from streamer.events import SAMPLE_RATE

SURE = 0.5  # probability that settles the first language
VERY_SURE = 0.8  # probability that counts against the language in force
SURE_AMONG_FEW = 0.9  # for both, where few come into question: one of them always looks probable beside the others
TIMES = 3  # so many windows in a row change it
OPENING_TIMES = 2  # and so many at the beginning of an utterance, when little of the language before is in the window
WITHHELD_TIMES = 2  # so many windows in a row whose words were all withheld make the next one ask
ASK_SAMPLES = 5 * SAMPLE_RATE  # so often somebody who goes on speaking is heard for another language
DOUBT_SAMPLES = 2 * SAMPLE_RATE  # and so often where one was heard the last time

log = logging.getLogger(__name__)


class _State(Enum):
    """FIXED: by the settings, the model or a client.

    UNKNOWN: no window was sure, every one is detected; OPENING: one is known, and a new utterance is detected anew;
    TRIED: windows are decoded in the language in force, and all are asked until one is very sure of it; HELD: one was,
    and they are asked now and then.
    """

    FIXED = auto()
    UNKNOWN = auto()
    OPENING = auto()
    TRIED = auto()
    HELD = auto()


@dataclass(frozen=True, slots=True)
class _Rival:
    """Another language that so many windows in a row were very sure of; none at first."""

    language: str = ""
    times: int = 0

    def count(self, language: str) -> "_Rival":
        return _Rival(language, self.times + 1 if language == self.language else 1)


class LanguageHold:
    """The language of one stream, among those that come into question (empty: any); a single one is never changed."""

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = allowed
        self._state = _State.FIXED if len(allowed) == 1 else _State.UNKNOWN
        self._language = allowed[0] if len(allowed) == 1 else ""
        self._rival = _Rival()
        self._asked_at = 0  # end of the last window that was asked
        self._withheld = 0  # windows in a row whose words were all withheld

    @property
    def allowed(self) -> tuple[str, ...]:
        """The languages that come into question; empty: any."""
        return self._allowed

    @property
    def current(self) -> str:
        """The language in force, empty as long as none is known."""
        return self._language

    @property
    def forced(self) -> str | None:
        """What the decoder is told; None: detect it on this window."""
        return self._language if self._state is _State.FIXED or self._in_force else None

    def utterance(self) -> None:
        """A new utterance begins: its first windows are detected anew."""
        self._withheld = 0
        self._enter(_State.OPENING if self._in_force else self._state, self._language)

    def prepare(self, end_sample: int) -> bool:
        """The window that ends here is about to be decoded: whether it is asked too which language is spoken.

        It is not where that is detected anyway; this counts as asking.
        """
        if self._state is _State.FIXED:
            return False
        if self._state is _State.HELD:
            every = DOUBT_SAMPLES if self._rival.times else ASK_SAMPLES
            if end_sample - self._asked_at < every:
                return False
        self._asked_at = end_sample
        return self._in_force

    def insists(self, language: str, probability: float) -> bool:
        """Take what a window that was asked said. True: it is time for `change`."""
        if not self._in_force or self._barred(language):
            return False
        if language == self._language or probability < self._very_sure:
            self._rival = _Rival()
            if language == self._language:
                self._enter(self._trust(probability), language)
            return False
        self._rival = self._rival.count(language)
        return self._rival.times >= TIMES

    def withheld(self, everything: bool) -> None:
        """Take whether the guards withheld all that a window said: twice in a row, and the next ones are asked."""
        self._withheld = self._withheld + 1 if everything else 0
        if self._withheld >= WITHHELD_TIMES and self._state is _State.HELD:
            self._enter(_State.TRIED, self._language)

    def ends_with(self, allowed: tuple[str, ...]) -> bool:
        """Whether a language is in force that is none of these."""
        return bool(self._language and allowed) and self._language not in allowed

    def restrict(self, allowed: tuple[str, ...]) -> None:
        """From now on only these come into question (empty: any).

        Where the one in force may stay, windows are asked all the same: somebody thought that it is wrong.
        """
        self._allowed = allowed
        if len(allowed) == 1:
            self._enter(_State.FIXED, allowed[0])
        elif not self._language or self._barred(self._language):
            self._enter(_State.UNKNOWN, "")
        elif self._state is _State.FIXED or self._in_force:
            self._enter(_State.TRIED, self._language)

    def change(self) -> None:
        """From here on the language is the one that insisted."""
        if self._in_force:
            self._enter(_State.HELD, self._rival.language or self._language)

    def step(self, language: str, probability: float) -> bool:
        """Take what a window was decoded in. False: the text is in a language that is not in force and must not be
        used.
        """
        if self._state is not _State.FIXED and self._barred(language):
            return False
        match self._state:
            case _State.UNKNOWN:
                sure = SURE_AMONG_FEW if self._allowed else SURE
                self._enter(_State.UNKNOWN if probability < sure else self._trust(probability), language)
            case _State.OPENING if language == self._language:
                self._enter(self._trust(probability), language)
            case _State.OPENING:
                return self._doubted(language, probability)
        return True

    def _doubted(self, language: str, probability: float) -> bool:
        """An utterance begins in another language than the one that is known; whether it is the one in force now."""
        if probability < self._very_sure:
            self._enter(_State.TRIED, self._language)  # the next window is decoded in it
            return False
        self._rival = self._rival.count(language)
        if self._rival.times < OPENING_TIMES:
            return False
        self._enter(_State.HELD, language)
        return True

    @property
    def _in_force(self) -> bool:
        """Whether windows are decoded in a language that was detected."""
        return self._state in (_State.TRIED, _State.HELD)

    def _trust(self, probability: float) -> _State:
        """How a language is in force that a window was so sure of."""
        return _State.HELD if self._state is _State.HELD or probability >= self._very_sure else _State.TRIED

    @property
    def _very_sure(self) -> float:
        return SURE_AMONG_FEW if self._allowed else VERY_SURE

    def _barred(self, language: str) -> bool:
        return bool(self._allowed) and language not in self._allowed

    def _enter(self, state: _State, language: str) -> None:
        """The one place where state and language change; who was heard against the language before is forgotten."""
        if (state, language) != (self._state, self._language):
            log.debug("language: %s %s -> %s %s", self._state.name, self._language, state.name, language)
        self._state, self._language, self._rival = state, language, _Rival()

"""Which language is spoken: detected first, then held, changed only on repeated strong evidence (pure).

At the beginning of an utterance its first windows are decoded in the language that is detected. While somebody goes on
speaking, windows are decoded in the language in force and asked now and then which one is spoken: what insists on
another one changes the language from the next segment on.
"""

from streamer.events import SAMPLE_RATE

SURE = 0.5  # probability that settles the first language
VERY_SURE = 0.8  # probability that counts against the language in force
TIMES = 3  # so many windows in a row change it
ASK_SAMPLES = 5 * SAMPLE_RATE  # so often somebody who goes on speaking is heard for another language
DOUBT_SAMPLES = 2 * SAMPLE_RATE  # and so often where one was heard the last time


class LanguageHold:
    """The language of one stream; `fixed` (from the settings, or the model's only one) is never changed."""

    def __init__(self, fixed: str | None) -> None:
        self._fixed = fixed
        self._held: str | None = None
        self._unsure = ""
        self._rival: str | None = None
        self._times = 0
        self._detecting = True
        self._asked_at = 0  # end of the last window whose language was asked for

    @property
    def current(self) -> str:
        """The language in force, empty as long as none is known."""
        return self._fixed or self._held or self._unsure

    @property
    def forced(self) -> str | None:
        """What the decoder is told; None: detect it on this window."""
        if self._fixed:
            return self._fixed
        return None if self._detecting else self._held

    def utterance(self) -> None:
        """A new utterance begins: its first windows are detected anew."""
        self._detecting = True
        self._rival, self._times = None, 0

    def ask(self, end_sample: int) -> bool:
        """Whether the window that ends here is to say which language is spoken, beside the one that is forced.

        Each call is for a window that is decoded.
        """
        every = DOUBT_SAMPLES if self._rival else ASK_SAMPLES
        if self._fixed or not (self._detecting or end_sample - self._asked_at >= every):
            return False
        self._asked_at = end_sample
        return self.forced is not None

    def insists(self, language: str, probability: float) -> bool:
        """Take what a window that was asked said. True: it is time for `change`."""
        if self._fixed or self._detecting:
            return False
        if language == self._held or probability < VERY_SURE:
            self._rival, self._times = None, 0
            return False
        self._count(language)
        return self._times >= TIMES

    def change(self) -> None:
        """From here on the language is the one that insisted."""
        self._held, self._rival, self._times = self._rival or self._held, None, 0

    def step(self, language: str, probability: float) -> bool:
        """Take what a window was decoded in. False: the text is in a language that is not in force and must not be
        used.
        """
        if self._fixed or not self._detecting:
            return True
        if self._held is None:
            if probability < SURE:
                self._unsure = language
                return True
            self._held, self._detecting = language, False
            return True
        if language == self._held:
            self._detecting, self._rival = False, None
            return True
        if probability < VERY_SURE:
            self._detecting, self._rival = (
                False,
                None,
            )  # not enough to change anything: the next window is decoded in the held language
            return False
        self._count(language)
        if self._times < TIMES:
            return False
        self.change()
        self._detecting = False
        return True

    def _count(self, language: str) -> None:
        self._times = self._times + 1 if language == self._rival else 1
        self._rival = language

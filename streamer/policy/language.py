"""Which language is spoken: detected first, then held, changed only on repeated strong evidence (pure)."""

SURE = 0.5  # probability that settles the first language
VERY_SURE = 0.8  # probability that counts against the language in force
TIMES = 3  # so many windows in a row change it


class LanguageHold:
    """The language of one stream; `fixed` (from the settings, or the model's only one) is never changed."""

    def __init__(self, fixed: str | None) -> None:
        self._fixed = fixed
        self._held: str | None = None
        self._unsure = ""
        self._rival: str | None = None
        self._times = 0
        self._detecting = True

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
            self._detecting = False
            return True
        if probability < VERY_SURE:
            self._detecting = False  # not enough to change anything: the next window is decoded in the held language
            return False
        self._times = self._times + 1 if language == self._rival else 1
        self._rival = language
        if self._times < TIMES:
            return False
        self._held, self._detecting = language, False
        return True

"""A decoder whose words are given: it pays for every token, but what it writes is settled beforehand.

Random weights write nonsense of any length; costs must be those of ordinary speech.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.whisper import Model
from streamer.plans import DecodeTask

if TYPE_CHECKING:
    from streamer.model.decoding.search import _Row, _Verdict

LIKELY = -0.1  # log-probability that a given token is said to have


class Teacher(GreedySearch):
    """Greedy search that writes given tokens; without any, whole English words, and never the end of the text.

    `lessons`: for each window of the next `decode`, the tokens to write; the end of text follows where `max_new_tokens`
    leaves room for it.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.words = self._single_token_words(model)
        self.lessons: list[tuple[int, ...]] = []

    def text(self, tokens: int) -> tuple[int, ...]:
        """That many tokens, each a word of its own, none twice."""
        return self.words[:tokens]

    def decode(self, windows: Sequence[AudioWindow], tasks: Sequence[DecodeTask]) -> list[Decoded]:
        """As `GreedySearch.decode`, writing the lessons."""
        if not self.lessons:
            self.lessons = [self.words[len(task.prefix) :][: task.max_new_tokens] for task in tasks]
        try:
            return super().decode(windows, tasks)
        finally:
            self.lessons = []

    def _accept(self, row: "_Row", verdicts: "list[_Verdict]") -> None:
        lesson, written = self.lessons[row.index], len(row.tokens)
        given = [
            replace(
                verdict,
                token=lesson[written + count] if written + count < len(lesson) else self._plain.eot,
                logprob=LIKELY,
                probability=0.9,
            )
            for count, verdict in enumerate(verdicts)
        ]
        super()._accept(row, given)

    @staticmethod
    def _single_token_words(model: Model) -> tuple[int, ...]:
        tokenizer = model.tokenizer("en" if model.is_multilingual else None)
        found = []
        for token in range(1000, 20_000):
            text = tokenizer.decode([token])
            if text[:1] == " " and len(text) > 3 and text[1:].isascii() and text[1:].isalpha() and text.islower():
                found.append(token)
        return tuple(found)

"""Word errors between what was said and what was written: counts by jiwer on texts made comparable. Pure.

Three ways to make texts comparable: whisper's own normalisers (numbers, spellings and contractions of English alike),
as published word error rates are; plain lower-case words, for spoken digits, which whisper's normaliser joins into one
number; and as written, with case and punctuation.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamer.measure.report import evaluation_library

Normal = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Counts over some texts. `words`: of the reference; `substituted`, `lost` and `invented` against it."""

    words: int = 0
    substituted: int = 0
    lost: int = 0
    invented: int = 0

    @property
    def rate(self) -> float | None:
        """The word error rate; None without reference words."""
        return (self.substituted + self.lost + self.invented) / self.words if self.words else None

    def __add__(self, other: "WordErrors") -> "WordErrors":
        """The counts of both."""
        return WordErrors(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def total(errors: Iterable[WordErrors]) -> WordErrors:
    """The counts of all."""
    return sum(errors, WordErrors())


def word_errors(reference: str, written: str) -> WordErrors:
    """Counts for two texts of words between spaces. Raises UsageError without jiwer (extra `eval`)."""
    if not reference:
        return WordErrors(invented=len(written.split()))
    if not written:
        return WordErrors(words=len(reference.split()), lost=len(reference.split()))
    found = evaluation_library("jiwer").process_words(reference, written)
    return WordErrors(len(reference.split()), found.substitutions, found.deletions, found.insertions)


@functools.cache
def normaliser(language: str | None, *, plain: bool = False) -> Normal:
    """How texts in a language (a code such as `en`; None: not known) are made comparable.

    English, and what is not known, by whisper's EnglishTextNormalizer, others by its BasicTextNormalizer; `plain`:
    lower-case words without punctuation.
    """
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    if plain:
        return plain_text
    normal = EnglishTextNormalizer() if language in (None, "en") else BasicTextNormalizer()
    return lambda text: " ".join(normal(text).split())


def plain_text(text: str) -> str:
    """Lower-case words without punctuation."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def as_written(text: str) -> str:
    """With case and punctuation; only the spaces are made alike."""
    return " ".join(text.split())

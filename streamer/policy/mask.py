"""The profanity mask: words of a list become their first letter and asterisks, in what people read (pure).

It works on events, where they leave the session: policies, guards and phrase rules see what was really said. Committed
text must only grow, so each word's letters are decided when it is committed, from the text up to its end: where a word
of the list comes in two pieces, the first of which was shown already, the second is all asterisks.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace

from streamer.events import Alert, Event, Transcript, Word

HIDDEN = "*"
UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


class Mask:
    """Masks whole words, whatever their case. `spoken_rules`: ids of the alert rules whose labels are what was said."""

    def __init__(self, words: Iterable[str], spoken_rules: Iterable[str] = ()) -> None:
        forms = {form for word in words for form in (word, unicodedata.normalize("NFD", word))}
        anywhere = [word for word in forms if _unspaced(word)]
        spaced = forms.difference(anywhere)
        self._whole, self._anywhere = _any_of(spaced), _any_of(anywhere)
        self._spoken_rules = frozenset(spoken_rules)

    def event(self, event: Event) -> Event:
        """The event as people get it."""
        if self._whole is None and self._anywhere is None:
            return event
        if isinstance(event, Transcript):
            text, words = self._committed(event.text, event.words)
            return replace(event, text=text, words=words, partial=self.text(event.partial))
        if isinstance(event, Alert):
            said = event.rule in self._spoken_rules
            labels = tuple(self.text(label) for label in event.labels) if said else event.labels
            return replace(event, text=self.text(event.text), labels=labels)
        return event

    def text(self, text: str) -> str:
        """The text, as long as it was, with the words of the list masked."""
        return self._piece(text, 0)

    def _committed(self, text: str, words: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
        """Committed text and its words: each word masked as if the text ended with it."""
        shown, masked, done = "", [], 0
        for word in words:
            start = text.find(word.word, done)
            if start < 0:  # words always lie in the text in order; should they ever not, nothing may slip through
                return self.text(text), tuple(replace(word, word=self.text(word.word)) for word in words)
            end = start + len(word.word)
            begun = max(text.rfind(" ", 0, start) + 1, 0)  # where a word that goes on here may have begun
            piece = self._piece(text[begun:end], start - begun)
            shown += text[done:start] + piece
            masked.append(replace(word, word=piece))
            done = end
        return shown + text[done:], tuple(masked)

    def _piece(self, text: str, start: int) -> str:
        """`text[start:]`, masked, given all of `text` up to here."""
        letters = list(text)
        for first, end in self._spans(text):
            letters[first + 1 : end] = HIDDEN * (end - first - 1)
        return "".join(letters[start:])

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where words of the list stand in the text."""
        if self._anywhere is not None:
            yield from (match.span() for match in self._anywhere.finditer(text))
        position = 0
        while self._whole is not None and (match := self._whole.search(text, position)):
            first = match.start()
            longest = match if not _in_word(text[first - 1 : first]) else None
            while longest is not None and _in_word(text[longest.end() : longest.end() + 1]):
                longest = self._whole.match(text, first, longest.end() - 1)  # a shorter word of the list, perhaps
            if longest is not None:
                yield longest.span()
            position = first + 1


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """An expression for any of the words, the longest first; None without words."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    if not longest_first:
        return None
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _in_word(character: str) -> bool:
    """Whether this is a letter, a digit or a mark on one, so that a word goes on here."""
    return bool(character) and unicodedata.category(character)[0] in "LNM"


def _unspaced(word: str) -> bool:
    """Whether the word is written in a script without spaces between words; it is then masked wherever it stands."""
    return all(unicodedata.name(character, "").startswith(UNSPACED) for character in word)

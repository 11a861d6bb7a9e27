"""Where sentences begin and end, by how the decoder writes their words (pure)."""

from collections.abc import Sequence

from streamer.events.plans import HypothesisWord
from streamer.policy.policies import Words
from streamer.policy.prompt import TextModel

ENDS = (".", "!", "?", "。", "！", "？", "｡", "．", "؟", "۔", "।")


def begins_sentence(word: HypothesisWord) -> bool:
    """Whether the word behind a pause is written as the first of a sentence."""
    return word.text.strip()[:1].isupper() and word.text.split("'")[0].strip() != "I"


def ends_sentence(word: HypothesisWord) -> bool:
    """Whether a mark behind the word says that the sentence is over."""
    return word.text.endswith(ENDS)


def full_stop(words: Sequence[HypothesisWord], model: TextModel) -> Words:
    """A full stop for a segment that ends without a mark, in a digit or a letter of an alphabet that has cases.

    Whisper writes one before silence, but seldom behind a last word that is committed already. Without it the next
    segment, which has this one as its prompt, goes on in lower case.
    """
    last = words[-1].text[-1:] if words else ""
    if not model.carries_prompt or not (last.isdigit() or last.swapcase() != last):
        return ()
    place = words[-1].end_sample
    stop, tokens = ".", model.encode(".")
    return (HypothesisWord(stop, tokens, place, place, words[-1].probability, place, stop, len(tokens)),)

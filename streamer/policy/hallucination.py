"""Guards against invented text (pure). Each looks at one hypothesis, keeps a part of it and says why.

Whisper writes text where nobody speaks, repeats itself in loops and re-writes what is committed already. Every cut is
counted per guard and explained in the debug log; each guard can be switched off in `guards`.
"""

import logging
from collections import Counter
from dataclasses import dataclass

from streamer.events import SAMPLE_RATE
from streamer.events.plans import Hypothesis, HypothesisWord
from streamer.policy.policies import Words, bare
from streamer.settings.config import GuardSettings

log = logging.getLogger(__name__)

BACK_SAMPLES = SAMPLE_RATE // 2  # attention that falls back further has lost its place
CROWD, CROWD_SAMPLES = 4, SAMPLE_RATE // 5  # nobody says four more words within 0.2 s
MANY_WORDS = 8  # what is invented where nobody speaks is shorter: so many need not be as likely to be believed
AGAIN_SAMPLES = 7 * SAMPLE_RATE // 50  # nobody says a word again in 0.14 s: the decoder reads it again


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known about the window beside the hypothesis.

    `end_sample`: end of the window; `speech_score`: the newest Speech score of the head, None without a head; `last`:
    the last committed word, None where the window cannot hold one.
    """

    end_sample: int
    speech_score: float | None
    last: HypothesisWord | None = None


class Guards:
    """All guards of one stream, and how often each has cut (`suppressed`).

    `lost`: so many hypotheses in a row lost their place in the audio. `believed`: a window of the utterance was likely.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self.suppressed: Counter[str] = Counter()
        self.lost = 0
        self.believed = not settings.doubt

    def utterance(self) -> None:
        """A new utterance begins, of which nothing is believed yet."""
        self.believed = not self._settings.doubt

    def keep(self, hypothesis: Hypothesis, around: Surroundings) -> Words:
        """The words of the hypothesis that no guard objects to."""
        words = tuple(word for word in hypothesis.words if word.text.strip())
        if not words:
            return ()
        reason = self._objection(hypothesis, around)
        if reason:
            self.lost += reason == "compression"
            return self._cut(words, 0, reason, around.end_sample)
        limits = self._settings
        least = limits.likely_logprob if len(words) < MANY_WORDS else limits.mean_logprob
        self.believed |= hypothesis.mean_logprob >= least
        if self._settings.loops:
            count = len(words)
            words = self._cut(words, _lost_at(words), "loop", around.end_sample)
            self.lost = self.lost + 1 if len(words) < count else 0
        if self._settings.past:
            words = self._behind(words, around)
        return words

    def _objection(self, hypothesis: Hypothesis, around: Surroundings) -> str:
        limits = self._settings
        if limits.silence and self._silent(hypothesis):
            return "silence"
        if limits.loops and hypothesis.compression_ratio > limits.compression_ratio:
            return "compression"
        if limits.speech_tag and around.speech_score is not None and around.speech_score < limits.speech_score:
            return "speech_tag"
        return ""

    def believe(self, words: Words, at_sample: int) -> Words:
        """What of the last words of an utterance may be committed: all of them, or none where all of it is in doubt."""
        return words if self.believed else self._cut(words, 0, "doubt", at_sample)

    def spoken(self, hypothesis: Hypothesis, speech_score: float | None) -> bool:
        """Whether the window holds speech, whatever was made of it: a language that is heard in noise is none."""
        limits = self._settings
        return hypothesis.no_speech_probability <= limits.no_speech_probability and (
            speech_score is None or speech_score >= limits.speech_score
        )

    def _silent(self, hypothesis: Hypothesis) -> bool:
        """openai-whisper's rule: the model thinks that nobody speaks, and does not believe its words."""
        limits = self._settings
        unsure = hypothesis.mean_logprob < limits.mean_logprob
        return unsure and hypothesis.no_speech_probability > limits.no_speech_probability

    def _behind(self, words: Words, around: Surroundings) -> Words:
        """Without the words whose audio is committed, or is that of the same word just before."""
        last = around.last
        kept: list[HypothesisWord] = []
        for word in words:
            if word.is_mark:  # belongs to the word before
                kept += [word] if kept or word is words[0] else []
                continue
            committed = not kept and last is not None and word.attended_sample < last.attended_sample
            if committed or (last is not None and _adds_nothing(word, last)):
                continue
            kept.append(word)
            last = word
        if len(kept) < len(words):
            self._withhold(tuple(word for word in words if word not in kept), "past", around.end_sample)
        return tuple(kept)

    def _cut(self, words: Words, count: int, reason: str, at_sample: int) -> Words:
        if count < len(words):
            self._withhold(words[count:], reason, at_sample)
        return words[:count]

    def _withhold(self, words: Words, reason: str, at_sample: int) -> None:
        self.suppressed[reason] += 1
        log.debug("guard %s withholds words: %d, at sample %d", reason, len(words), at_sample)  # not what was said


def _adds_nothing(word: HypothesisWord, last: HypothesisWord) -> bool:
    """Whether a word is the one before it, read again: neither what was attended nor its end lies far enough behind."""
    if bare(word.text) != bare(last.text):
        return False
    return min(word.attended_sample - last.attended_sample, word.end_sample - last.end_sample) < AGAIN_SAMPLES


def _lost_at(words: Words) -> int:
    """Index of the word at which the decoder lost its place in the audio; the number of words where it did not.

    A decoder that repeats itself, or goes on behind the end, attends what it has read before or does not move on.
    Whoever repeats a word says it later.
    """
    places = [index for index, word in enumerate(words) if not word.is_mark]
    attended = [words[index].attended_sample for index in places]
    for count, place in enumerate(places):
        if attended[count] < max(attended[: count + 1]) - BACK_SAMPLES:
            return place
        if count >= CROWD and attended[count] - attended[count - CROWD] < CROWD_SAMPLES:
            return places[count - CROWD + 1]
    return len(words)

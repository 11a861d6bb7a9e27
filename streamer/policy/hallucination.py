"""Guards against invented text (pure). Each looks at one hypothesis, keeps a part of it and says why.

Whisper writes text where nobody speaks, repeats itself in loops and re-writes what is committed already. Every cut is
counted per guard and explained in the debug log; each guard can be switched off in `guards`.
"""

import logging
import math
from collections import Counter
from dataclasses import dataclass

from streamer.config import GuardSettings
from streamer.events import SAMPLE_RATE
from streamer.policy.agreement import bare
from streamer.policy.decision import Words
from streamer.policy.voiced import VoicedTrack
from streamer.steps import Hypothesis, HypothesisWord

log = logging.getLogger(__name__)

LOOP_REPEATS = 4  # an n-gram this often in a row is a loop
LOOP_LONGEST = 6  # words in an n-gram
LOOP_LEAST_WORDS = 6  # "no no no no" is something that people say
TRUST_SWING = 0.1  # a window so much below what an utterance earned is doubted whatever came before
PLAIN_SPEECH = 0.9  # Speech score x speech probability: a calibrated head and the decoder agree that somebody speaks
UNSURE_REPEATS = 2  # the same word more often in a row has to be surer than
REPEATED_PROBABILITY = 0.75
VOICE_MARGIN_SAMPLES = SAMPLE_RATE // 5  # word times are good to about 0.2 s
AGAIN_SAMPLES = 7 * SAMPLE_RATE // 50  # nobody says a word again in 0.14 s: the decoder reads it again


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known about the window beside the hypothesis.

    `committed_end`: end of the last committed word; `end_sample`: end of the window; `voiced`: whether the gate heard
    any voice in a range of samples; `speech_score`: the newest Speech score of the head, None without a head; `last`:
    the last committed word, None where the window cannot hold one; `repeats`: how often it was committed in a row.
    """

    committed_end: int
    end_sample: int
    voiced: VoicedTrack
    speech_score: float | None
    last: HypothesisWord | None = None
    repeats: int = 0


class Guards:
    """All guards of one stream, and how often each has cut (`suppressed`).

    `calibrated`: the head's scores are probabilities (its file has a calibration), so that 0.9 means nine in ten.
    `looped`: the last hypothesis repeated itself, so that the decoder must not go on from what it wrote before.
    """

    def __init__(self, settings: GuardSettings, *, calibrated: bool = False) -> None:
        self._settings = settings
        self._calibrated = calibrated
        self._earned = False  # one window of this utterance left no doubt
        self._belief: float | None = None  # running mean of the trust in this utterance's hypotheses
        self.suppressed: Counter[str] = Counter()
        self.looped = False

    def utterance(self) -> None:
        """A new utterance begins: what was believed of the last one does not count."""
        self._belief = None
        self._earned = False

    def keep(self, hypothesis: Hypothesis, around: Surroundings) -> Words:
        """The words of the hypothesis that no guard objects to."""
        self.looped = False
        words = tuple(word for word in hypothesis.words if word.text.strip())
        if not words:
            return ()
        reason = self._objection(hypothesis, around)
        if reason:
            self.looped = reason == "compression"
            return self._cut(words, 0, reason, around.end_sample)
        if self._settings.loops:
            count = len(words)
            words = self._cut(words, _loop_start(words), "loop", around.end_sample)
            self.looped = len(words) < count
        if self._settings.past:
            words = self._behind(words, around)
        if self._settings.loops:
            words = self._cut(words, _unsure_repeat(words, around), "repeat", around.end_sample)
        if self._settings.budget:
            words = self._cut(words, self._affordable(words, around), "budget", around.end_sample)
        if self._settings.voice:
            words = self._cut(words, _unvoiced_start(words, around), "unvoiced", around.end_sample)
        return words

    def _objection(self, hypothesis: Hypothesis, around: Surroundings) -> str:
        limits = self._settings
        if limits.silence and self._silent(hypothesis):
            return "silence"
        if limits.confidence and hypothesis.mean_logprob < limits.mean_logprob:
            return "confidence"
        if limits.loops and hypothesis.compression_ratio > limits.compression_ratio:
            return "compression"
        if limits.speech_tag and around.speech_score is not None and around.speech_score < limits.speech_score:
            return "speech_tag"
        if limits.doubt and self._doubted(hypothesis, around):
            return "doubt"
        return ""

    def spoken(self, hypothesis: Hypothesis, speech_score: float | None) -> bool:
        """Whether the window holds speech, whatever was made of it: a language that is heard in noise is none."""
        limits = self._settings
        return hypothesis.no_speech_probability <= limits.no_speech_probability and (
            speech_score is None or speech_score >= limits.speech_score
        )

    def _doubted(self, hypothesis: Hypothesis, around: Surroundings) -> bool:
        """All evidence together: that speech sounds, that the decoder sees speech, and that it believes its words.

        One window may be lucky: an utterance is believed on the mean of its windows, the newest counting half. Where
        one of them was believed and somebody plainly goes on speaking, unsure words are misheard rather than invented:
        whether they may be shown is for `confidence` alone to say.
        """
        heard, decoded = around.speech_score, 1 - hypothesis.no_speech_probability
        # A head that is not calibrated stays below 1 on plain speech: more likely than not is as good as sure.
        speech = 1.0 if heard is None else min(1.0, 2 * heard)
        trust = speech * decoded * math.exp(hypothesis.mean_logprob)
        self._belief = trust if self._belief is None else (self._belief + trust) / 2
        if self._calibrated and heard is not None and heard * decoded >= PLAIN_SPEECH:
            self._earned = self._earned or trust >= self._settings.trust
            if self._earned:
                return False
        return min(self._belief, trust + TRUST_SWING) < self._settings.trust

    def _silent(self, hypothesis: Hypothesis) -> bool:
        """The model itself thinks that nobody speaks, or thinks so more than it believes its words."""
        believed = math.exp(hypothesis.mean_logprob)
        return hypothesis.no_speech_probability > min(self._settings.no_speech_probability, believed)

    def confirm(self, words: Words, at_sample: int) -> Words:
        """What of words that only one hypothesis holds may be committed at the end of the utterance."""
        if not self._settings.confidence:
            return words
        least = self._settings.unconfirmed_probability
        count = next((index for index, word in enumerate(words) if word.probability < least), len(words))
        return self._cut(words, count, "unconfirmed", at_sample)

    def _behind(self, words: Words, around: Surroundings) -> Words:
        """Without the words whose audio is committed, or is that of the same word just before."""
        last = around.last
        kept: list[HypothesisWord] = []
        for word in words:
            committed = not kept and last is not None and word.attended_sample < last.attended_sample
            if committed or (last is not None and _adds_nothing(word, last)):
                continue
            kept.append(word)
            last = word
        if len(kept) < len(words):
            self._withhold(tuple(word for word in words if word not in kept), "past", around.end_sample)
        return tuple(kept)

    def _affordable(self, words: Words, around: Surroundings) -> int:
        seconds = max(0, around.end_sample - around.committed_end) / SAMPLE_RATE
        budget = token_budget(seconds, self._settings.tokens_per_second)
        count = 0
        for count, word in enumerate(words):
            budget -= len(word.tokens)
            if budget < 0:
                return count
        return len(words)

    def _cut(self, words: Words, count: int, reason: str, at_sample: int) -> Words:
        if count < len(words):
            self._withhold(words[count:], reason, at_sample)
        return words[:count]

    def _withhold(self, words: Words, reason: str, at_sample: int) -> None:
        self.suppressed[reason] += 1
        text = "".join(word.text for word in words)
        log.debug("guard %s withholds %r at sample %d", reason, text, at_sample)


def token_budget(seconds: float, tokens_per_second: float) -> int:
    """How many tokens so many seconds of new audio may hold, with room for a fast start."""
    return int(seconds * tokens_per_second) + 8


def _adds_nothing(word: HypothesisWord, last: HypothesisWord) -> bool:
    """Whether a word is the one before it, read again: neither what was attended nor its end lies far enough behind."""
    if bare(word.text) != bare(last.text):
        return False
    return min(word.attended_sample - last.attended_sample, word.end_sample - last.end_sample) < AGAIN_SAMPLES


def _loop_start(words: Words) -> int:
    """Index of the word from which on the words only repeat an n-gram; the number of words when none does."""
    texts = [bare(word.text) for word in words]
    for length in range(1, LOOP_LONGEST + 1):
        for start in range(len(texts) - length * LOOP_REPEATS + 1):
            gram = texts[start : start + length]
            repeats = 1
            while texts[start + repeats * length : start + (repeats + 1) * length] == gram:
                repeats += 1
            if repeats >= LOOP_REPEATS and repeats * length >= LOOP_LEAST_WORDS:
                return start + length
    return len(texts)


def _unsure_repeat(words: Words, around: Surroundings) -> int:
    """Index of the first word that says the one before once more and is not sure; the number of words if none does.

    Models that hear speech in a sound say one word again and again, window by window; people who do mean it.
    """
    before, run = ("", 0) if around.last is None else (bare(around.last.text), around.repeats)
    for index, word in enumerate(words):
        text = bare(word.text)
        before, run = text, run + 1 if text == before else 1
        if run > UNSURE_REPEATS and word.probability < REPEATED_PROBABILITY:
            return index
    return len(words)


def _unvoiced_start(words: Words, around: Surroundings) -> int:
    """Index behind the last word in whose time the gate heard any voice."""
    for count in range(len(words), 0, -1):
        word = words[count - 1]
        if around.voiced.any(word.start_sample - VOICE_MARGIN_SAMPLES, word.end_sample + VOICE_MARGIN_SAMPLES):
            return count
    return 0

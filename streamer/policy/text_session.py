"""The text of one stream: segments, windows, forced prefixes, commits (pure, integer samples).

    open ──► prepare(hop) ──► [worker] ──► step(hypothesis) ──► … ──► close ──► (open …) or end

Promises, whatever the policy, the guards and the faults: committed words are never changed or taken back; word times
are monotone and lie inside their segment; a window never exceeds 30 s and begins at a word's boundary, so that the
committed words in it are exactly the decoder's forced prefix; audio that nobody could agree on is given up after 15 s.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.events.plans import DecodeTask, Hop, Hypothesis, HypothesisWord, SegmentClosed, SegmentOpened
from streamer.policy.hallucination import Guards, Surroundings
from streamer.policy.language import LanguageHold
from streamer.policy.policies import AlignAtt, LocalAgreement, Policy, Words, likely, spoken, without_last_mark
from streamer.policy.prompt import PREVIOUS_TOKENS, Prompt, TextModel
from streamer.policy.sentences import begins_sentence, ends_sentence, full_stop
from streamer.policy.voiced import VoicedTrack, placed
from streamer.settings.config import Settings

log = logging.getLogger(__name__)

GRID_SAMPLES = 160  # windows start on the grid of the mel frames
LEAST_SAMPLES = 2 * SAMPLE_RATE  # a window is so long at least, where there is a pause to reach back into
TAGS_SAMPLES = 10 * SAMPLE_RATE  # where no text is due, the longest span that is judged decides
WINDOW_MAX_SAMPLES = 30 * SAMPLE_RATE
PAUSE_SAMPLES = SAMPLE_RATE // 5  # so long without voice is a good place for a window to begin
PAUSE_SEARCH_SAMPLES = 3 * SAMPLE_RATE // 2  # and is worth so much more audio
UNCOMMITTED_MAX_SAMPLES = 15 * SAMPLE_RATE  # audio that waits longer for an agreement is committed or given up
UNCOMMITTED_KEEP_SAMPLES = 5 * SAMPLE_RATE  # of which the newest stays open
FAST_START_TOKENS = 8  # that a window may add beyond `guards.tokens_per_second`
SENTENCE_SAMPLES = 6 * SAMPLE_RATE  # a segment of this length ends with its sentence
UNCLEAR_SAMPLES = 4 * SAMPLE_RATE // 5  # so much voice without a word behind it was speech that nobody could read
MUTE_SAMPLES = SAMPLE_RATE  # so much voice and not a word: the decoder has lost its place
ASTRAY = 0.5  # behind a pause a first word of less probability: the decoder makes up how the sentence goes on
LOST_OFTEN = 3  # windows in a row in which the decoder lost its place: it is not asked in the same way again
WORDS_KEPT = 512  # committed words that may still lie in a window; 30 s hold far fewer


@dataclass(frozen=True, slots=True)
class TextChange:
    """The state of a segment after a step, in samples; the session makes a `transcript` event of it."""

    segment: int
    start_sample: int
    end_sample: int
    words: Words
    text: str
    partial: str
    final: bool
    language: str
    unclear: tuple[tuple[int, int], ...] = ()  # where somebody spoke and nothing was sure enough, [start, end) each


@dataclass(slots=True)
class _Segment:
    start: int  # no word starts earlier
    words: list[HypothesisWord]
    unclear: tuple[tuple[int, int], ...] = ()  # where somebody spoke and no word was written
    number: int | None = None  # given with the first text
    shown: tuple[str, str] = ("", "")  # text and partial of the last change


def make_policy(settings: Settings) -> Policy:
    """The policy of the settings, fresh."""
    if settings.policy.name == "alignatt":
        return AlignAtt(round(settings.policy.frontier_s * SAMPLE_RATE))
    return LocalAgreement()


class TextSession:
    """One per stream."""

    def __init__(self, settings: Settings, model: TextModel) -> None:
        self._settings = settings
        self._model = model
        self._policy = make_policy(settings)
        self.guards = Guards(settings.guards)
        self._language = LanguageHold((model.fixed_language,) if model.fixed_language else settings.speech.languages)
        self._voiced = VoicedTrack(FRAME_SAMPLES)
        self._prompt = Prompt(settings.speech, model)
        self._context_samples = round((settings.window.context_s or model.context_s) * SAMPLE_RATE)
        self._segment_max_samples = round(settings.window.segment_max_s * SAMPLE_RATE)
        self._recent: list[HypothesisWord] = []  # committed words that a window may still hold, over all segments
        self._scrolled: tuple[int, ...] = ()
        self._begin = 0  # nothing before it is to be had
        self._committed_end = 0  # text before this sample is settled: committed, or given up
        self._spoken_end = 0  # of the last utterance
        self._fresh_from = 0  # no window begins before: what was committed there led the decoder into a loop
        self._draft: Words = ()  # the last hypothesis behind the committed words: the next is probably much the same
        self._withheld: Words = ()
        self._mark: Words = ()  # what stands behind the last committed word, if nobody goes on
        self._astray = False  # behind this pause the decoder was unsure how the sentence goes on: it may be over
        self._segment: _Segment | None = None
        self._numbers = 0

    def begin_at(self, sample: int, number: int) -> None:
        """Before anything else: the stream begins at this sample, its first segment has this number."""
        self._voiced = VoicedTrack(FRAME_SAMPLES, sample)
        self._begin = self._committed_end = self._spoken_end = self._fresh_from = sample
        self._numbers = number

    def hear(self, hop: Hop) -> None:
        """Note which frames of the hop are voiced; call it for every hop, in order."""
        self._voiced.append(hop.voiced)

    def open(self, plan: SegmentOpened) -> None:
        """An utterance begins; in the segment of the last one, where that has not ended."""
        self._committed_end = max(self._committed_end, plan.start_sample)
        self._turn_page()
        if self._segment is None:
            self._segment = _Segment(start=self._committed_end, words=[])
        self._language.utterance()
        self.guards.utterance()

    def prepare(self, end_sample: int, text: bool) -> tuple[int, DecodeTask | None]:
        """Where the window that ends at `end_sample` starts, and what the decoder is to do (None: no text is due)."""
        speaking = text and self._segment is not None
        start = max(self._begin, end_sample - (self._context_samples if speaking else TAGS_SAMPLES))
        if speaking:
            start = min(start, max(self._committed_end, end_sample - WINDOW_MAX_SAMPLES))
        start = self._boundary(start, end_sample)
        if not speaking:
            return start, None
        # A little of the pause before it does not mislead the decoder, and tags need something to be judged on.
        earliest = max(self._spoken_end, min(self._fresh_from, end_sample - LEAST_SAMPLES))
        start = max(start, -(-earliest // GRID_SAMPLES) * GRID_SAMPLES)
        prefix = tuple(token for word in self._recent if word.end_sample > start for token in word.tokens)
        speech = self._settings.speech
        waiting_s = (end_sample - self._committed_end) / SAMPLE_RATE
        budget = int(waiting_s * self._settings.guards.tokens_per_second) + FAST_START_TOKENS
        return start, DecodeTask(
            language=self._language.forced,
            detect=self._language.prepare(end_sample),
            languages=self._language.allowed,
            task=speech.task,
            prompt=self._prompt.tokens(self._scrolled_before(start) + self._closing_mark(), len(prefix), budget),
            prefix=prefix,
            draft=tuple(token for word in self._draft for token in word.tokens),
            max_new_tokens=budget,
        )

    def step(self, hypothesis: Hypothesis, end_sample: int, speech_score: float | None) -> list[TextChange]:
        """Take the hypothesis of the window that ended at `end_sample`."""
        if self._segment is None:
            return []
        spoken_language = hypothesis.spoken_language if self.guards.spoken(hypothesis, speech_score) else None
        if spoken_language and self._language.insists(*spoken_language):
            return self._change_language(spoken_language[0], end_sample)
        hypothesis = replace(hypothesis, words=placed(hypothesis.words))
        last = self._recent[-1] if self._recent else None
        if last is None and hypothesis.words:
            self._astray |= hypothesis.words[0].probability < ASTRAY
        around = Surroundings(end_sample, speech_score, last)
        words = self.guards.keep(hypothesis, around)
        if not words and self._voiced.samples(self._committed_end, end_sample) >= MUTE_SAMPLES:
            self.guards.lost += 1
        unlikely = hypothesis.mean_logprob < self._settings.guards.mean_logprob
        self._language.withheld(bool(hypothesis.words) and (unlikely or not words))
        if not self._language.step(hypothesis.language, hypothesis.language_probability):
            self._withheld = words  # in another language than the one in force; used if nothing better comes
            return []
        self._withheld = ()
        believed = self.guards.believed
        decision = self._policy.step(words, end_sample, self._voiced.last_end) if believed else self._policy.wait(words)
        changes = self._commit_sentences(decision.commit, end_sample)
        partial = self._draft = self._force(decision.partial, end_sample)
        changes += self._change(partial, end_sample)
        if self.guards.lost >= LOST_OFTEN:
            self._start_afresh(end_sample)
        if end_sample - self._segment.start >= self._segment_max_samples and self._segment.words:
            changes += self._roll(partial, end_sample)
        return changes

    def close(self, plan: SegmentClosed) -> list[TextChange]:
        """The utterance is over: what is left of the last hypothesis is committed.

        That held the silence behind the utterance, so it is as good as one of the whole. Only the mark behind the last
        word waits for whether somebody goes on.
        """
        segment = self._segment
        if segment is None:
            return []
        self._draft = ()
        tail, self._withheld = self._policy.close() or self._withheld, ()
        tail = self.guards.believe(tail, plan.end_sample)
        words, self._mark = without_last_mark(tail)
        changes = self._commit_sentences(words, plan.end_sample)
        self._note_unclear(plan.speech_end_sample)
        self._spoken_end = max(self._committed_end, plan.speech_end_sample)
        return changes + self._change((), plan.end_sample)

    def end(self, at_sample: int) -> list[TextChange]:
        """Nobody went on: the segment becomes final, with a full stop where it has no mark."""
        if self._segment is None:
            return []
        self._mark = self._mark or full_stop(self._segment.words, self._model)
        return self._end(at_sample)

    def _end(self, at_sample: int) -> list[TextChange]:
        self._commit(self._mark, at_sample)
        self._mark = ()
        changes = self._finish_segment(at_sample)
        self._segment = None
        return changes

    def flush(self, at_sample: int) -> list[TextChange]:
        """Somebody asked for what there is: close the segment and go on with a new one behind it."""
        if self._segment is None:
            return []
        changes = self.close(SegmentClosed(at_sample, at_sample)) + self._end(at_sample)
        self._segment = _Segment(start=self._committed_end, words=[])
        return changes

    def _boundary(self, start: int, end_sample: int) -> int:
        """`start`, or an earlier place where nobody speaks, so that the window does not begin inside a word.

        Best is a pause a little earlier; else the start of the committed word that `start` would cut in two, or its end
        when the window is full.
        """
        earliest = max(self._begin, start - PAUSE_SEARCH_SAMPLES, end_sample - WINDOW_MAX_SAMPLES)
        pause = self._voiced.pause_before(start, earliest, PAUSE_SAMPLES)
        if pause is not None:
            start = min(start, pause)
        word = next((word for word in self._recent if word.start_sample < start < word.end_sample), None)
        if word is not None:
            whole = word.start_sample // GRID_SAMPLES * GRID_SAMPLES
            fits = pause is None and end_sample - whole <= WINDOW_MAX_SAMPLES
            start = whole if fits else word.end_sample if pause is None else start
        return max(self._begin, start // GRID_SAMPLES * GRID_SAMPLES)

    def _closing_mark(self) -> tuple[int, ...]:
        """The mark that the last utterance may end with, for a decoder that makes up how it goes on without."""
        if self._recent or not self._astray:
            return ()
        words = self._segment.words if self._segment else []
        return tuple(token for word in self._mark or full_stop(words, self._model) for token in word.tokens)

    def _scrolled_before(self, window_start: int) -> tuple[int, ...]:
        gone = [word for word in self._recent if word.end_sample <= window_start]
        return self._scrolled + tuple(token for word in gone for token in word.tokens)

    def _commit(self, words: Words, end_sample: int) -> None:
        segment = self._segment
        assert segment is not None
        for word in words:
            if word.is_mark and not segment.words:
                continue  # of a word that is in another segment
            # Attention reaches back into the pause before a word; the gate knows where the voice began.
            start = self._voiced.first_voiced(max(word.start_sample, self._committed_end), word.end_sample)
            start = min(max(start, segment.start), end_sample)
            end = min(max(word.end_sample, start), end_sample)
            settled = replace(word, start_sample=start, end_sample=end)
            segment.words.append(settled)
            self._recent.append(settled)
            self._committed_end = end
        surplus = len(self._recent) - WORDS_KEPT
        if surplus > 0:
            gone = tuple(token for word in self._recent[:surplus] for token in word.tokens)
            self._scrolled = (self._scrolled + gone)[-PREVIOUS_TOKENS:]
            del self._recent[:surplus]

    def _force(self, partial: Words, end_sample: int) -> Words:
        """Keep the uncommitted audio short: commit old partial words, give up old audio that holds none."""
        if end_sample - self._committed_end <= UNCOMMITTED_MAX_SAMPLES:
            return partial
        limit = end_sample - UNCOMMITTED_KEEP_SAMPLES
        old = next((index for index, word in enumerate(partial) if word.end_sample > limit), len(partial))
        log.debug("no agreement for 15 s at sample %d: %d words are committed as they are", end_sample, old)
        self._commit(partial[:old], end_sample)
        self._policy.drop(old)
        first_open = partial[old].start_sample if old < len(partial) else limit
        self._committed_end = max(self._committed_end, min(limit, first_open))
        return partial[old:]

    def _turn_page(self) -> None:
        """What is committed becomes earlier text: no window holds its audio any more.

        Behind a pause the decoder takes a forced prefix for the whole transcript and writes nothing.
        """
        self._astray = False
        self._fresh_from = self._committed_end
        self._scrolled = self._scrolled_before(self._committed_end)[-PREVIOUS_TOKENS:]
        self._recent.clear()

    def _start_afresh(self, end_sample: int) -> None:
        """The decoder is misled: no window shows it what is committed again, neither the text nor its audio."""
        log.debug("at sample %d: nothing before sample %d is decoded again", end_sample, self._committed_end)
        self._turn_page()
        self._spoken_end = self._committed_end
        self._scrolled, self._draft = (), ()

    def _change_language(self, language: str, end_sample: int) -> list[TextChange]:
        """Another language is spoken for a while: what is committed becomes final, the rest is decoded anew in it."""
        log.debug("the language changes from %s to %s at sample %d", self._language.current, language, end_sample)
        changes = self._begin_anew(end_sample)
        self._language.change()
        return changes

    def set_language(self, languages: tuple[str, ...], at_sample: int) -> list[TextChange]:
        """From the next window on only these come into question (empty: any); as `_change_language`, where the one in
        force is none of them.
        """
        log.debug("from sample %d on the language is one of %s", at_sample, languages or "any")
        changes = self._begin_anew(at_sample) if self._language.ends_with(languages) else []
        self._language.restrict(languages)
        return changes

    def _begin_anew(self, end_sample: int) -> list[TextChange]:
        """What is committed becomes final, and nothing of the rest is kept."""
        self._policy.close()
        self._withheld, self._mark = (), ()
        self._start_afresh(end_sample)
        segment = self._segment
        if segment is None:
            return []
        return self._roll((), end_sample) if segment.words else self._change((), end_sample)

    def _roll(self, partial: Words, end_sample: int) -> list[TextChange]:
        """The segment becomes final, what is partial goes on in the next."""
        changes = self._finish_segment(end_sample)
        self._segment = _Segment(start=self._committed_end, words=[])
        return changes + self._change(partial, end_sample)

    def _commit_sentences(self, words: Words, end_sample: int) -> list[TextChange]:
        """Commit words. A long segment becomes final with the sentence that is over when the next one's word comes."""
        changes: list[TextChange] = []
        for word in words:
            segment = self._segment
            assert segment is not None
            if self._mark and not word.is_mark and begins_sentence(word):
                self._commit(self._mark, end_sample)
            self._mark = ()
            long = word.start_sample - segment.start >= SENTENCE_SAMPLES
            if long and segment.words and not word.is_mark and ends_sentence(segment.words[-1]):
                changes += self._roll((), end_sample)
            self._commit((word,), end_sample)
        return changes

    def _note_unclear(self, speech_end: int) -> None:
        """Note where somebody spoke at the end of the utterance and no word was sure enough to be written."""
        segment, start = self._segment, self._committed_end
        assert segment is not None
        if self._voiced.samples(start, speech_end) >= UNCLEAR_SAMPLES:
            segment.unclear += ((self._voiced.first_voiced(start, speech_end), speech_end),)
            self._committed_end = speech_end

    def _finish_segment(self, end_sample: int) -> list[TextChange]:
        segment = self._segment
        assert segment is not None
        if segment.number is None and not segment.words and not segment.unclear:
            return []
        return self._change((), end_sample, final=True)

    def _change(self, partial: Words, end_sample: int, final: bool = False) -> list[TextChange]:
        segment = self._segment
        assert segment is not None
        partial = likely(spoken(partial[:1]) + partial[1:], end_sample)
        text, tail = _text(segment.words), _text(partial)
        if (text, tail) == segment.shown and not final:
            return []
        if segment.number is None:
            segment.number, self._numbers = self._numbers, self._numbers + 1
            said = tuple(segment.words) or partial
            begins = [word.start_sample for word in said[:1]] + [start for start, _ in segment.unclear[:1]]
            segment.start = min(max(segment.start, min(begins, default=0)), end_sample)
        segment.shown = (text, tail)
        settled = segment.words or segment.unclear
        last = partial[-1].end_sample if partial else segment.start
        return [
            TextChange(
                segment=segment.number,
                start_sample=segment.start,
                end_sample=min(max(last, self._committed_end if settled else segment.start), end_sample),
                words=tuple(segment.words),
                text=text,
                partial=tail,
                final=final,
                language=self._language.current,
                unclear=segment.unclear,
            )
        ]


def _text(words: Sequence[HypothesisWord]) -> str:
    return "".join(word.text for word in words).strip()

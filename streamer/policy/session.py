"""The text of one stream: segments, windows, forced prefixes, commits (pure, integer samples).

    open ──► prepare(hop) ──► [worker] ──► step(hypothesis) ──► … ──► close

Promises, whatever the policy, the guards and the faults: committed words are never changed or taken back; word times
are monotone and lie inside their segment; a window never exceeds 30 s and begins at a word's boundary, so that the
committed words in it are exactly the decoder's forced prefix; audio that nobody could agree on is given up after 15 s.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from streamer.config import Settings
from streamer.events import SAMPLE_RATE
from streamer.policy.agreement import LocalAgreement, bare
from streamer.policy.alignatt import AlignAtt
from streamer.policy.decision import Policy, Words
from streamer.policy.hallucination import Guards, Surroundings, token_budget
from streamer.policy.language import LanguageHold
from streamer.policy.placing import placed
from streamer.policy.prompt import PREVIOUS_TOKENS, Prompt
from streamer.policy.sentence import SpeechPaused, ends_sentence, pause_samples
from streamer.policy.text_model import TextModel
from streamer.policy.voiced import VoicedTrack
from streamer.steps import DecodeTask, Hypothesis, HypothesisWord
from streamer.vad.planner import Hop, SegmentClosed, SegmentOpened
from streamer.vad.webrtc import FRAME_SAMPLES

log = logging.getLogger(__name__)

GRID_SAMPLES = 160  # windows start on the grid of the mel frames
TAGS_SAMPLES = 10 * SAMPLE_RATE  # where no text is due, the longest span that is judged decides
WINDOW_MAX_SAMPLES = 30 * SAMPLE_RATE
PAUSE_SAMPLES = SAMPLE_RATE // 5  # so long without voice is a good place for a window to begin
PAUSE_SEARCH_SAMPLES = 3 * SAMPLE_RATE // 2  # and is worth so much more audio
UNCOMMITTED_MAX_SAMPLES = 15 * SAMPLE_RATE  # audio that waits longer for an agreement is committed or given up
UNCOMMITTED_KEEP_SAMPLES = 5 * SAMPLE_RATE  # of which the newest stays open
NEW_TOKENS = 224  # most that a window may add where no guard says how many
WORD_TAIL_SAMPLES = SAMPLE_RATE // 10  # what a word may go on behind the last frame that the gate heard
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
    number: int | None = None  # given with the first text
    shown: tuple[str, str] = ("", "")  # text and partial of the last change


def make_policy(settings: Settings) -> Policy:
    """The policy of the settings, fresh."""
    if settings.policy.name == "alignatt":
        return AlignAtt(round(settings.policy.frontier_s * SAMPLE_RATE))
    return LocalAgreement()


class TextSession:
    """One per stream. `calibrated`: see `Guards`."""

    def __init__(self, settings: Settings, model: TextModel, *, calibrated: bool = False) -> None:
        self._settings = settings
        self._policy = make_policy(settings)
        self.guards = Guards(settings.guards, calibrated=calibrated)
        self._language = LanguageHold((model.fixed_language,) if model.fixed_language else settings.speech.languages)
        self._voiced = VoicedTrack(FRAME_SAMPLES)
        self._prompt = Prompt(settings.speech, model)
        self._context_samples = round((settings.window.context_s or model.context_s) * SAMPLE_RATE)
        self._segment_max_samples = round(settings.window.segment_max_s * SAMPLE_RATE)
        self._pause_samples = pause_samples(settings.policy.sentence_pause_ms)
        self._recent: list[HypothesisWord] = []  # committed words that a window may still hold, over all segments
        self._scrolled: tuple[int, ...] = ()
        self._committed_end = 0  # text before this sample is settled: committed, or given up
        self._fresh_from = 0  # no window begins before: what was committed there led the decoder into a loop
        self._draft: Words = ()  # the last hypothesis behind the committed words: the next is probably much the same
        self._withheld: Words = ()
        self._settled_at = 0  # all that a window up to here said is committed; 0 while something is open or in doubt
        self._segment: _Segment | None = None
        self._numbers = 0

    @property
    def segment_text(self) -> tuple[str, str]:
        """Committed and partial text of the open segment, empty when there is none."""
        return self._segment.shown if self._segment else ("", "")

    def hear(self, hop: Hop) -> None:
        """Note which frames of the hop are voiced; call it for every hop, in order."""
        self._voiced.append(hop.voiced)

    def open(self, plan: SegmentOpened) -> None:
        """An utterance begins."""
        self._committed_end = max(self._committed_end, plan.start_sample)
        self._segment = _Segment(start=self._committed_end, words=[])
        self._language.utterance()
        self.guards.utterance()

    def prepare(self, end_sample: int, text: bool) -> tuple[int, DecodeTask | None]:
        """Where the window that ends at `end_sample` starts, and what the decoder is to do (None: no text is due)."""
        speaking = text and self._segment is not None
        start = max(0, end_sample - (self._context_samples if speaking else TAGS_SAMPLES))
        if speaking:
            start = min(start, max(self._committed_end, end_sample - WINDOW_MAX_SAMPLES))
        start = max(self._boundary(start, end_sample), -(-self._fresh_from // GRID_SAMPLES) * GRID_SAMPLES)
        if not (text and self._segment):
            return start, None
        prefix = tuple(token for word in self._recent if word.end_sample > start for token in word.tokens)
        speech = self._settings.speech
        waiting_s = (end_sample - self._committed_end) / SAMPLE_RATE
        guards = self._settings.guards
        budget = token_budget(waiting_s, guards.tokens_per_second) if guards.budget else NEW_TOKENS
        return start, DecodeTask(
            language=self._language.forced,
            detect=self._language.prepare(end_sample),
            languages=self._language.allowed,
            task=speech.task,
            prompt=self._prompt.tokens(self._scrolled_before(start), len(prefix), budget),
            prefix=prefix,
            draft=tuple(token for word in self._draft for token in word.tokens),
            max_new_tokens=budget,
        )

    def _repeats(self) -> int:
        """How often the last committed word was committed in a row."""
        texts = (bare(word.text) for word in reversed(self._recent))
        return len(next((list(same) for _, same in groupby(texts)), []))

    def step(self, hypothesis: Hypothesis, end_sample: int, speech_score: float | None) -> list[TextChange]:
        """Take the hypothesis of the window that ended at `end_sample`."""
        if self._segment is None:
            return []
        heard = hypothesis.heard if self.guards.spoken(hypothesis, speech_score) else None
        if heard and self._language.insists(*heard):
            return self._change_language(heard[0], end_sample)
        hypothesis = replace(hypothesis, words=placed(hypothesis.words))
        last = self._recent[-1] if self._recent else None
        around = Surroundings(self._committed_end, end_sample, self._voiced, speech_score, last, self._repeats())
        words = self.guards.keep(hypothesis, around)
        self._language.withheld(bool(hypothesis.words) and not words)
        self._settled_at = 0
        if not self._language.step(hypothesis.language, hypothesis.language_probability):
            self._withheld = words  # in another language than the one in force; used if nothing better comes
            return []
        self._withheld = ()
        decision = self._policy.step(words, end_sample, self._voiced.last_end)
        self._commit(decision.commit, end_sample)
        partial = self._force(decision.partial, end_sample)
        self._draft = _behind(hypothesis.words, words, len(words) - len(partial))
        changes = self._change(partial, end_sample)
        everything = tuple(word for word in hypothesis.words if word.text.strip())
        if decision.commit == everything and not partial and hypothesis.complete:
            self._settled_at = end_sample
        if self.guards.looped:  # the decoder repeats itself
            return changes + self._start_afresh(partial, end_sample)
        if ended := self._sentence_end(self._voiced.last_end, end_sample):
            return changes + ended
        if end_sample - self._segment.start >= self._segment_max_samples and self._segment.words:
            changes += self._roll(partial, end_sample)
        return changes

    def close(self, plan: SegmentClosed) -> list[TextChange]:
        """The utterance is over: what is left of the last hypothesis is committed, the segment becomes final.

        A pause in speech ends it only where a sentence ends; the gate is still open then, and a new segment begins.
        """
        if isinstance(plan, SpeechPaused):
            return self._sentence_end(plan.speech_end_sample, plan.at_sample)
        segment = self._segment
        if segment is None:
            return []
        self._draft = ()
        tail, self._withheld = self._policy.close() or self._withheld, ()
        self._commit(self.guards.confirm(tail, plan.at_sample), plan.at_sample)
        changes = self._finish_segment(plan.at_sample)
        self._segment = None
        return changes

    def flush(self, at_sample: int) -> list[TextChange]:
        """Somebody asked for what there is: close the segment and go on with a new one behind it."""
        if self._segment is None:
            return []
        changes = self.close(SegmentClosed(at_sample, at_sample))
        self._segment = _Segment(start=self._committed_end, words=[])
        return changes

    def _boundary(self, start: int, end_sample: int) -> int:
        """`start`, or an earlier place where nobody speaks, so that the window does not begin inside a word.

        Best is a pause a little earlier; else the start of the committed word that `start` would cut in two, or its end
        when the window is full.
        """
        earliest = max(0, start - PAUSE_SEARCH_SAMPLES, end_sample - WINDOW_MAX_SAMPLES)
        pause = self._voiced.pause_before(start, earliest, PAUSE_SAMPLES)
        if pause is not None:
            start = min(start, pause)
        word = next((word for word in self._recent if word.start_sample < start < word.end_sample), None)
        if word is not None:
            whole = word.start_sample // GRID_SAMPLES * GRID_SAMPLES
            fits = pause is None and end_sample - whole <= WINDOW_MAX_SAMPLES
            start = whole if fits else word.end_sample if pause is None else start
        return max(0, start // GRID_SAMPLES * GRID_SAMPLES)

    def _scrolled_before(self, window_start: int) -> tuple[int, ...]:
        gone = [word for word in self._recent if word.end_sample <= window_start]
        return self._scrolled + tuple(token for word in gone for token in word.tokens)

    def _commit(self, words: Words, end_sample: int) -> None:
        segment = self._segment
        assert segment is not None
        for word in words:
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

    def _start_afresh(self, partial: Words, end_sample: int) -> list[TextChange]:
        """The decoder is misled: no window shows it committed text or audio again, and a new segment begins.

        Nothing that is committed is lost, and what is partial stays.
        """
        log.debug("at sample %d: nothing before sample %d is decoded again", end_sample, self._committed_end)
        self._fresh_from = self._committed_end
        self._recent.clear()
        self._scrolled, self._draft = (), ()
        segment = self._segment
        return self._roll(partial, end_sample) if segment and segment.words else []

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
        self._settled_at = 0
        self._withheld = ()
        changes = self._start_afresh((), end_sample)
        return changes or (self._change((), end_sample) if self._segment else [])

    def _roll(self, partial: Words, end_sample: int) -> list[TextChange]:
        """The segment becomes final, what is partial goes on in the next."""
        changes = self._finish_segment(end_sample)
        self._segment = _Segment(start=self._committed_end, words=[])
        return changes + self._change(partial, end_sample)

    def _sentence_end(self, speech_end: int, at_sample: int) -> list[TextChange]:
        """Close the segment if its text is committed to its last word, ends a sentence, and it was quiet for a while.

        Nothing can be lost: the window of the last hypothesis held the last word, and no guard doubted any of it.
        """
        segment, pause = self._segment, self._pause_samples
        if segment is None or pause is None or not segment.words or at_sample - speech_end < pause:
            return []
        if self._settled_at < speech_end + WORD_TAIL_SAMPLES or not ends_sentence(_text(segment.words)):
            return []
        log.debug("a sentence ended, quiet since sample %d: segment closed at %d", speech_end, at_sample)
        changes = self._finish_segment(at_sample)
        self._segment = _Segment(start=self._committed_end, words=[])
        return changes

    def _finish_segment(self, end_sample: int) -> list[TextChange]:
        segment = self._segment
        assert segment is not None
        if segment.number is None and not segment.words:
            return []
        return self._change((), end_sample, final=True)

    def _change(self, partial: Words, end_sample: int, final: bool = False) -> list[TextChange]:
        segment = self._segment
        assert segment is not None
        text, tail = _text(segment.words), _text(partial)
        if (text, tail) == segment.shown and not final:
            return []
        if segment.number is None:
            segment.number, self._numbers = self._numbers, self._numbers + 1
            first = segment.words[0] if segment.words else partial[0]
            segment.start = min(max(segment.start, first.start_sample), end_sample)
        segment.shown = (text, tail)
        last_words = partial or segment.words
        last = last_words[-1].end_sample if last_words else segment.start
        return [
            TextChange(
                segment=segment.number,
                start_sample=segment.start,
                end_sample=min(max(last, self._committed_end if segment.words else segment.start), end_sample),
                words=tuple(segment.words),
                text=text,
                partial=tail,
                final=final,
                language=self._language.current,
            )
        ]


def _behind(written: Words, kept: Words, settled: int) -> Words:
    """What was written behind the first `settled` of the `kept` words, which are among those `written`."""
    if not kept or settled < 0:
        return written
    return written[written.index(kept[settled - 1]) + 1 :] if settled else written[written.index(kept[0]) :]


def _text(words: Sequence[HypothesisWord]) -> str:
    return "".join(word.text for word in words).strip()

"""The records that travel between the planner, the worker and the session: plain values, no tensors.

    listener ──Plan──► session.begin ──StepRequest──► worker ──StepResult──► session.complete ──► events

All positions are absolute sample indices on the capture clock (16 kHz).
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.events import State

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True)
class PlanBase:
    """One thing that is to be carried out, in order. `end_sample`: end of the audio that was known when it was decided.

    `Session.complete` is where the kinds part. Only a `Hop` may need the model.
    """

    end_sample: int
    closes_segment: ClassVar[bool] = False  # an utterance ends with it, or pauses: what is final should come soon

    @property
    def new_samples(self) -> int:
        """How much audio it brings that no plan before it had."""
        return 0


@dataclass(frozen=True, slots=True)
class Hop(PlanBase):
    """One hop of conditioned audio, and what is due at its end.

    `samples`: float32 [n] of the hop, the last samples before `end_sample`; `voiced`: its 20 ms frames; `text`: the
    decoder is due; `judge`: tags are due (a whole second is over); `silent`: digital silence since the last judgement;
    `lost`: all of it stands in for samples that went missing.
    """

    samples: NDArray[np.float32]
    voiced: tuple[bool, ...]
    text: bool
    judge: bool
    silent: bool
    level_db: float
    lost: bool = False

    @property
    def new_samples(self) -> int:
        """All of its samples."""
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class Beat(PlanBase):
    """Audio of a hop that is not full yet, float32 [n] up to `end_sample`, for what needs no model.

    The hop has it too.
    """

    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SegmentOpened(PlanBase):
    """An utterance begins; its words start no earlier than `start_sample`."""

    start_sample: int


@dataclass(frozen=True, slots=True)
class SegmentClosed(PlanBase):
    """An utterance ends, or pauses; `speech_end_sample` is the end of its last voiced frame."""

    closes_segment: ClassVar[bool] = True
    speech_end_sample: int


@dataclass(frozen=True, slots=True)
class SpeechOver(PlanBase):
    """Nobody went on for `policy.segment_pause_ms` behind the end of the last utterance, at `speech_end_sample`."""

    closes_segment: ClassVar[bool] = True
    speech_end_sample: int


@dataclass(frozen=True, slots=True)
class AudioLost(PlanBase):
    """The samples [lost_from, lost_to) are zeros in place of what was lost."""

    lost_from: int
    lost_to: int
    reason: str


class Trouble(Enum):
    """What was wrong."""

    NOT_FINITE = "not_finite"  # NaN or infinity: zeros now, lost
    DC_OFFSET = "dc_offset"  # taken out from here on
    CLIPPING = "clipping"  # the recording level is too high; what is beyond full scale was clamped


@dataclass(frozen=True, slots=True)
class Report:
    """The conditioner found it in [start_sample, end_sample), absolute; `samples` is how many of them it concerns.

    NOT_FINITE is reported when the stretch is over; DC_OFFSET and CLIPPING once per episode, when it begins.
    """

    trouble: Trouble
    start_sample: int
    end_sample: int
    samples: int
    detail: str


@dataclass(frozen=True, slots=True)
class Noticed(PlanBase):
    """The conditioner found something in the signal."""

    report: Report


@dataclass(frozen=True, slots=True)
class StateChanged(PlanBase):
    """The source's state from `end_sample` on."""

    state: State
    detail: str


Plan = Hop | Beat | SegmentOpened | SegmentClosed | SpeechOver | AudioLost | Noticed | StateChanged


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """What the decoder is to write for one window.

    `prompt` stands behind <|startofprev|>, `prefix` (the tokens of the committed words that lie in the window) behind
    the start of the transcript; neither is part of the hypothesis. `language` None: detect it on this window; `detect`:
    say which one is spoken although one is given (a decoder step more, no encoder pass); `languages`: codes of those
    that come into question (empty: all). `draft`: tokens that an earlier pass wrote behind the same prefix; they are
    verified in one step and change nothing. `temperature`: 0 takes the most likely token, more draws one, the same ones
    for the same `seed`; a draft is of no use then.
    """

    language: str | None = None
    task: Task = "transcribe"
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    max_new_tokens: int = 224
    timestamps: bool = False
    draft: tuple[int, ...] = ()
    detect: bool = False
    languages: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One window for the worker: samples [start_sample, end_sample), one encoder pass.

    `tag_spans_s`: spans to judge, each ending at `end_sample` (empty: no head); `decode` None: no text is due.
    `urgent`: an utterance ends behind it, where windows of several programs wait for one model; it changes no result.
    """

    start_sample: int
    end_sample: int
    tag_spans_s: tuple[float, ...] = ()
    decode: DecodeTask | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class HypothesisWord:
    """One word that the decoder wrote, not yet committed.

    `text` is as written, with its leading space and its punctuation. `attended_sample` is the middle of the audio frame
    that the word's last token before its mark attended most, for policies that stop at a frontier. `mark`: the
    punctuation at the end of `text`, of which the last `mark_tokens` of the tokens are made. A decoder that goes on
    behind a committed word may write a mark first: that is a word of nothing but its mark.
    """

    text: str
    tokens: tuple[int, ...]
    start_sample: int
    end_sample: int
    probability: float
    attended_sample: int
    mark: str = ""
    mark_tokens: int = 0

    @property
    def is_mark(self) -> bool:
        """Whether there is nothing but punctuation, which belongs to the word before."""
        return self.mark != "" and len(self.tokens) == self.mark_tokens

    def parted(self) -> tuple["HypothesisWord", "HypothesisWord"]:
        """The word without its mark, and the mark as a word of its own at the word's end."""
        place = len(self.tokens) - self.mark_tokens
        bare = replace(self, text=self.text[: -len(self.mark)], tokens=self.tokens[:place], mark="", mark_tokens=0)
        mark = replace(self, text=self.mark, tokens=self.tokens[place:], start_sample=self.end_sample)
        return bare, mark


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the decoder wrote behind the forced prefix. `complete`: it ended by itself, not for want of tokens.

    `spoken_language`: the one that is spoken, with its probability, where the task gave one and asked all the same.
    These probabilities are those among the languages that the task allowed.
    """

    words: tuple[HypothesisWord, ...]
    language: str
    language_probability: float
    no_speech_probability: float
    mean_logprob: float
    compression_ratio: float
    complete: bool
    spoken_language: tuple[str, float] | None = None

    @property
    def text(self) -> str:
        """The words as one string, without surrounding space."""
        return "".join(word.text for word in self.words).strip()


@dataclass(frozen=True, slots=True)
class SpanScores:
    """The head's calibrated scores, float32 [527] in 0..1, for the audio [start_sample, end_sample)."""

    start_sample: int
    end_sample: int
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OwnScore:
    """How much the end of a window sounds like a sound of one's own: 0..1, from 0.5 on it is taken for it.

    [start_sample, end_sample): where it is most like it.
    """

    name: str
    score: float
    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the worker found in one window; `judgement` shortest span first, empty when none was due.

    `own`: of each sound of one's own, where tags were due.
    """

    request: StepRequest
    hypothesis: Hypothesis | None = None
    judgement: tuple[SpanScores, ...] = ()
    own: tuple[OwnScore, ...] = ()

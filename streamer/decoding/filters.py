"""What openai-whisper forbids the decoder to write, applied to many rows of logits at once.

Source: openai-whisper 20250625, whisper/decoding.py (`SuppressBlank`, `SuppressTokens("-1")`, `ApplyTimestampRules`).
One difference on purpose: tokens of a forced prefix count as written. So a window whose words are all committed may end
at once (openai-whisper would forbid the end of text there and so force a word), and time marks go on from those in the
prefix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer

MAX_INITIAL_TIMESTAMP_S = 1.0  # openai-whisper's default
NEVER = float("-inf")


class LogitFilters:
    """The filters of one vocabulary; they are the same for every language and task.

    `timestamp_step_s`: what one step of a time mark stands for (30 s / audio context of the model: 0.02 s).
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device, timestamp_step_s: float = 0.02):
        specials = (
            tokenizer.transcribe,
            tokenizer.translate,
            tokenizer.sot,
            tokenizer.sot_prev,
            tokenizer.sot_lm,
            tokenizer.no_speech,
        )
        self._forbidden = torch.tensor(sorted({*tokenizer.non_speech_tokens, *specials}), device=device)
        self._blank = torch.tensor([*tokenizer.encode(" "), tokenizer.eot], device=device)
        self._eot: int = tokenizer.eot
        self._no_timestamps: int = tokenizer.no_timestamps
        self._timestamp_begin: int = tokenizer.timestamp_begin
        self._last_initial = tokenizer.timestamp_begin + round(MAX_INITIAL_TIMESTAMP_S / timestamp_step_s)

    def apply(self, logits: Tensor, written: Sequence[Sequence[int]], timestamps: Sequence[bool]) -> None:
        """Set forbidden tokens to -inf in place.

        logits float32 [n, vocabulary]; `written`: the tokens behind the start of the transcript so far, for each row;
        `timestamps`: whether the row writes time marks.
        """
        for row, tokens in zip(logits, written, strict=True):
            if not tokens:
                row.index_fill_(0, self._blank, NEVER)
        logits.index_fill_(1, self._forbidden, NEVER)
        for row, tokens, marked in zip(logits, written, timestamps, strict=True):
            if marked:
                self._keep_time(row, tokens)

    def _keep_time(self, row: Tensor, written: Sequence[int]) -> None:
        begin = self._timestamp_begin
        row[self._no_timestamps] = NEVER
        last_is_mark = len(written) >= 1 and written[-1] >= begin
        pair_is_done = len(written) < 2 or written[-2] >= begin
        if last_is_mark and pair_is_done:  # text has to follow a pair
            row[begin:] = NEVER
        elif last_is_mark:  # a mark or the end has to follow a single mark
            row[: self._eot] = NEVER
        marks = [token for token in written if token >= begin]
        if marks:  # marks never go back, and a segment is never empty
            row[begin : marks[-1] + (0 if last_is_mark and not pair_is_done else 1)] = NEVER
        if not written:
            row[:begin] = NEVER
            row[self._last_initial + 1 :] = NEVER
        log_probabilities = row.log_softmax(dim=-1)
        if log_probabilities[begin:].logsumexp(dim=-1) > log_probabilities[:begin].max():
            row[:begin] = NEVER

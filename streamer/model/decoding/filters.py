"""What openai-whisper forbids the decoder to write, applied to many rows of logits at once; and drawing from the rest.

Source: openai-whisper 20250625, whisper/decoding.py (`SuppressBlank`, `SuppressTokens("-1")`, `ApplyTimestampRules`).
One difference on purpose: tokens of a forced prefix count as written. So a window whose words are all committed may end
at once (openai-whisper would forbid the end of text there and so force a word), and time marks go on from those in the
prefix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer

from streamer.model.memory import send

MAX_INITIAL_TIMESTAMP_S = 1.0  # openai-whisper's default
NEVER = float("-inf")
NO_LIMIT = 1 << 30  # behind every token
TINY = torch.finfo(torch.float32).tiny


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
        self.apply_rules(logits, send(self.rules(written, timestamps), logits.device) if any(timestamps) else None)

    def rules(self, written: Sequence[Sequence[int]], timestamps: Sequence[bool]) -> list[list[int]]:
        """What `apply_rules` has to know of each row: nothing where none writes time marks.

        Whether it writes them, below which token nothing is allowed, and the first and last mark that are.
        """
        if not any(timestamps):
            return [[] for _ in written]
        return [self._rule(tokens, marked) for tokens, marked in zip(written, timestamps, strict=True)]

    def apply_rules(self, logits: Tensor, rules: Tensor | None) -> None:
        """As `apply`, for rows that have written something; `rules` [n, 4] (None: no row writes time marks).

        Nothing in here depends on the rules' values but through tensors.
        """
        logits.index_fill_(1, self._forbidden, NEVER)
        if rules is not None:
            self._keep_time(logits, rules)

    def _rule(self, written: Sequence[int], marked: bool) -> list[int]:
        begin = self._timestamp_begin
        if not marked:
            return [0, 0, begin, NO_LIMIT]
        if not written:
            return [1, begin, begin, self._last_initial]
        last_is_mark = written[-1] >= begin
        pair_is_done = len(written) < 2 or written[-2] >= begin
        if last_is_mark and pair_is_done:  # text has to follow a pair
            return [1, 0, NO_LIMIT, NO_LIMIT]
        marks = [token for token in written if token >= begin]
        if last_is_mark:  # a mark or the end has to follow a single mark
            return [1, self._eot, marks[-1], NO_LIMIT]
        return [1, 0, marks[-1] + 1 if marks else begin, NO_LIMIT]  # marks never go back, no segment is empty

    def _keep_time(self, logits: Tensor, rules: Tensor) -> None:
        begin, eot = self._timestamp_begin, self._eot
        marked, lowest, first, last = rules[:, :, None].unbind(1)
        is_marked, no_text, no_special = marked > 0, lowest > 0, lowest > eot
        logits[:, self._no_timestamps : self._no_timestamps + 1].masked_fill_(is_marked, NEVER)
        text, special, marks = logits[:, :eot], logits[:, eot:begin], logits[:, begin:]
        ids = torch.arange(begin, logits.shape[1], device=logits.device)
        marks.masked_fill_((ids < first) | (ids > last), NEVER)
        best_text = text.amax(dim=-1, keepdim=True).masked_fill_(no_text, NEVER)
        best_special = special.amax(dim=-1, keepdim=True).masked_fill_(no_special, NEVER)
        likely = marks.logsumexp(dim=-1, keepdim=True) > torch.maximum(best_text, best_special)
        is_time = likely & is_marked  # marks together are likelier than any other token
        text.masked_fill_(no_text | is_time, NEVER)
        special.masked_fill_(no_special | is_time, NEVER)


def log_mass(logits: Tensor) -> Tensor:
    """The logarithm of the sum of exp(logits) over the last dimension, in half the passes of `logsumexp`.

    Not finite where a row is of nothing but minus infinities.
    """
    peak = logits.amax(dim=-1, keepdim=True)
    mass: Tensor = (logits - peak).exp_().sum(dim=-1).log_().add_(peak[..., 0])
    return mass


def gumbel_noise(rows: Sequence[tuple[torch.Generator | None, float]], vocabulary: int) -> Tensor | None:
    """What to add to the logits [rows, vocabulary] so that the largest of each row is a draw; None: no row draws.

    `rows`: what each is drawn with (None: nothing is added) and its temperature. Gumbel's noise: the largest of
    log p + G is distributed as p (Maddison, Tarlow and Minka, arXiv 1411.0030). On the CPU, whatever the device is.
    """
    if not any(chance for chance, _ in rows):
        return None
    noise = torch.zeros(len(rows), vocabulary)
    for row, (chance, temperature) in zip(noise, rows, strict=True):
        if chance is not None:
            row.exponential_(generator=chance).clamp_min_(TINY).log_().mul_(-temperature)
    return noise

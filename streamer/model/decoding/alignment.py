"""When each word was said: from the cross-attention that the decode pass left behind.

openai-whisper's method (whisper/timing.py `find_alignment`: normalise over the tokens, median filter, mean over the
heads, dynamic time warping), without its second pass through the model. Its numba code is not used: that compiles for
seconds in every process, and on CUDA it asks for triton; the same recurrences are a few array operations for each token
here.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from whisper.timing import WordTiming, merge_punctuations
from whisper.tokenizer import Tokenizer

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import HypothesisWord
from streamer.model.decoding.search import Decoded

MEDIAN_WIDTH = 7
PREPENDED = "\"'“¿([{-"  # joined with the word that follows; as in openai-whisper
APPENDED = "\"'.。,，!！?？:：”)]}、"  # joined with the word before
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Exchanges that leave the median of seven values in the middle (N. Devillard, "Fast median search", 1998).
_MEDIAN_OF_SEVEN = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip


def hypothesis_words(
    decoded: Decoded, tokenizer: Tokenizer, start_sample: int, end_sample: int
) -> tuple[HypothesisWord, ...]:
    """The words behind the forced prefix, with their times inside the window [start_sample, end_sample).

    Starts increase strictly, and no word ends before it starts or after the next one starts. A word that was cut off
    inside a character is shortened to its whole characters. Time marks and words of nothing but space are left out.
    """
    return slice_words(decoded, tokenizer, [(0, len(decoded.tokens))], start_sample, end_sample)[0]


def slice_words(
    decoded: Decoded, tokenizer: Tokenizer, slices: Sequence[tuple[int, int]], start_sample: int, end_sample: int
) -> tuple[tuple[HypothesisWord, ...], ...]:
    """As `hypothesis_words`, for the tokens [first, last) of each of the slices, which follow one another.

    No word reaches over the end of a slice.
    """
    sequence = (*decoded.forced, *decoded.tokens)
    text = [place for place, token in enumerate(sequence) if token < tokenizer.eot]
    before = len(decoded.forced)
    written = [
        _shortened([place for place in text if before + first <= place < before + last], sequence, tokenizer)
        for first, last in slices
    ]
    if not any(written):
        return tuple(() for _ in slices)
    followed = follow(decoded.attention)
    starts = token_frames(followed, text)
    begun, over = dict(zip(text, starts, strict=False)), dict(zip(text, starts[1:], strict=True))
    attended = followed.argmax(dim=-1).tolist()
    words: list[HypothesisWord] = []
    counts = []
    for places in written:
        counts.append(len(words))
        place = 0
        frames = [*(begun[one] for one in places), *(over[one] for one in places[-1:])]
        for timing in _timings(decoded, tokenizer, places, frames):
            place += len(timing.tokens)
            if not timing.word.strip():
                continue
            mark, mark_tokens = _mark(timing, tokenizer)
            # The row that led to the word's last token: punctuation attends anything.
            last = place - (mark_tokens if mark_tokens < len(timing.tokens) else 0)
            middle = attended[places[last - 1] - 1] * FRAME_SAMPLES + FRAME_SAMPLES // 2
            words.append(
                HypothesisWord(
                    text=timing.word,
                    tokens=tuple(timing.tokens),
                    start_sample=start_sample + int(timing.start) * FRAME_SAMPLES,
                    end_sample=start_sample + int(timing.end) * FRAME_SAMPLES,
                    probability=float(timing.probability),
                    attended_sample=start_sample + middle,
                    mark=mark,
                    mark_tokens=mark_tokens,
                )
            )
    ordered = _in_order(words, start_sample, end_sample)
    return tuple(ordered[first:last] for first, last in zip(counts, [*counts[1:], len(words)], strict=True))


def follow(attention: Tensor) -> Tensor:
    """Which frames each token followed: attention [heads, rows, frames] to one score for each row and frame.

    Each frame's weights are normalised over the rows, smoothed over 7 frames and averaged over the heads. The largest
    score of a row is its attended frame (AlignAtt, arXiv 2305.11408, as in SimulStreaming).
    """
    if attention.device.type == "cpu":  # one head at a time stays in the processor's cache
        return torch.stack([_smooth(head) for head in attention]).mean(dim=0)
    return _smooth(attention).mean(dim=0).cpu()


def _smooth(attention: Tensor) -> Tensor:
    """Weights [..., rows, frames] normalised over the rows and smoothed over 7 frames."""
    centred = attention - attention.mean(dim=-2, keepdim=True)
    deviation = centred.square().mean(dim=-2, keepdim=True).sqrt_()
    return median_of_seven(centred.div_(deviation.clamp_min_(torch.finfo(torch.float32).tiny)))


def median_of_seven(x: Tensor) -> Tensor:
    """The median of 7 neighbours along the last dimension, reflected at its ends; fewer than 4 stay as they are."""
    length, side = x.shape[-1], MEDIAN_WIDTH // 2
    if length <= side:
        return x
    padded = functional.pad(x, (side, side), mode="reflect")
    values = [padded[..., i : i + length].clone() for i in range(MEDIAN_WIDTH)]
    spare = torch.empty_like(values[0])
    for low, high in _MEDIAN_OF_SEVEN:
        torch.minimum(values[low], values[high], out=spare)
        torch.maximum(values[low], values[high], out=values[high])
        values[low], spare = spare, values[low]
    return values[side]


def token_frames(followed: Tensor, text: Sequence[int]) -> list[int]:
    """The frame at which each text token starts, and as last entry the one at which the last token ends.

    `followed` [rows, frames] from `follow`; `text`: the tokens' places, each of which belongs to the row before it.
    """
    rows = [place - 1 for place in text]
    if text[-1] < len(followed):  # the row that led to the end of text closes the last token
        rows.append(text[-1])
    starts = warp(-followed[rows].double().numpy())
    return starts if len(starts) > len(text) else [*starts, followed.shape[-1]]


def warp(cost: NDArray[np.float64]) -> list[int]:
    """The column at which each row of `cost` [rows, columns] starts on the cheapest monotone path through all of it.

    Dynamic time warping with steps to the right, down, or both; where they tie, a path comes from the left. A row's
    totals are min over k of (total above k + the sum from k on), so they are one running minimum.
    """
    rows, columns = cost.shape
    sums = np.zeros((rows, columns + 1))
    np.cumsum(cost, axis=1, out=sums[:, 1:])
    totals = np.full((rows + 1, columns + 1), np.inf)
    totals[0, 0] = 0.0
    for row in range(rows):
        above = np.minimum(totals[row, :-1], totals[row, 1:])
        totals[row + 1, 1:] = np.minimum.accumulate(above - sums[row, :-1]) + sums[row, 1:]
    both, down, right = totals[:-1, :-1], totals[:-1, 1:], totals[1:, :-1]
    goes_both = both <= down
    leaves = np.minimum(both, down) < right  # where a path enters the row from the one above
    entries = np.maximum.accumulate(np.where(leaves, np.arange(columns), 0), axis=1)
    starts, column = [0] * rows, columns - 1
    for row in range(rows - 1, 0, -1):
        column = starts[row] = int(entries[row, column])
        column = max(column - int(goes_both[row, column]), 0)
    return starts


def _timings(decoded: Decoded, tokenizer: Tokenizer, written: list[int], frames: list[int]) -> list[WordTiming]:
    """The words of the tokens at the places `written`, punctuation joined; what was joined has no tokens left."""
    first = len(decoded.forced)
    texts, tokens = tokenizer.split_to_word_tokens([decoded.tokens[place - first] for place in written])
    timings, begin = [], 0
    for text, ids in zip(texts, tokens, strict=True):
        end = begin + len(ids)
        probability = np.mean([decoded.probabilities[place - first] for place in written[begin:end]])
        timings.append(WordTiming(text, list(ids), frames[begin], frames[end], float(probability)))
        begin = end
    merge_punctuations(timings, PREPENDED, APPENDED)
    return timings


def _mark(timing: WordTiming, tokenizer: Tokenizer) -> tuple[str, int]:
    """The punctuation at a word's end that is made of whole tokens, and how many these are."""
    mark, count = "", 0
    for token in reversed(timing.tokens):
        piece = tokenizer.decode([token])
        if not piece or piece.strip(APPENDED):
            break
        mark, count = piece + mark, count + 1
    return mark, count


def _shortened(places: list[int], sequence: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """As many of the places of tokens as end with a whole character."""
    count = len(places)
    while count and tokenizer.decode([sequence[place] for place in places[:count]]).endswith(REPLACEMENT):
        count -= 1
    return places[:count]


def _in_order(words: list[HypothesisWord], start_sample: int, end_sample: int) -> tuple[HypothesisWord, ...]:
    """The words with starts that increase by at least a sample and ends between their start and the next one's."""
    starts: list[int] = []
    for word in words:
        starts.append(max(word.start_sample, starts[-1] + 1 if starts else start_sample))
    latest = end_sample - 1
    for index in reversed(range(len(starts))):
        starts[index] = min(starts[index], latest)
        latest = starts[index] - 1
    limits = [*starts[1:], end_sample]
    return tuple(
        replace(
            word,
            start_sample=start,
            end_sample=min(max(word.end_sample, start), limit),
            attended_sample=min(word.attended_sample, end_sample - 1),
        )
        for word, start, limit in zip(words, starts, limits, strict=True)
    )

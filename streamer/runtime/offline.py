"""Whole recordings through the model: windows of 30 s, one encoder pass each for tags, language, text and word times.

Owned by whoever calls; it starts no thread and reads no clock. Windows of several recordings go through together. What
openai-whisper's `transcribe` does anew at each temperature, and for the language, is done once: the encoder's pass.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from whisper.utils import compression_ratio

from streamer.audio.mel import HOP_SAMPLES, WINDOW_FRAMES
from streamer.errors import EngineError
from streamer.events import SAMPLE_RATE
from streamer.events.plans import DecodeTask, HypothesisWord, SpanScores
from streamer.model.batch_limit import BatchLimit
from streamer.model.decoding.alignment import slice_words
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.memory import within_memory
from streamer.model.whisper import STEP_SAMPLES, Model, span_steps
from streamer.policy.seeking import TEMPERATURES, Window, WindowText, must_try_again, slices

SURE_OF_LANGUAGE = 0.5  # below, the language of a short recording is asked for as openai-whisper does, with a pass more
HALF_STEP_FRAMES = 20  # mel frames
SECOND = 5  # half steps
KEPT = 50  # half steps: the longest span that is judged, 10 s


class TapTrack:
    """The encoder's taps of one recording, joined over its windows, so that tags look back as far as live ones do.

    In half steps of 0.2 s on a fixed grid: every whole second ends on it, and two neighbours make a tap step. Each half
    step is that of the first window that holds it; no more is kept than the longest span needs. `end`: half steps so
    far; `judged`: whole seconds whose taps were handed out.
    """

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, frame: int) -> None:
        """Forget what there is; the next window is the first that holds what follows mel frame `frame`."""
        self.end = frame // HALF_STEP_FRAMES
        self.judged = self.end // SECOND
        self._taps: Tensor | None = None

    def state(self) -> tuple[int, int, NDArray[np.float32] | None]:
        """All that it knows, as plain values, for `set_state` elsewhere."""
        return self.end, self.judged, None if self._taps is None else self._taps.cpu().float().numpy()

    def set_state(self, end: int, judged: int, taps: NDArray[np.float32] | None) -> None:
        """Go on from there. The taps take the precision of those that follow, which they had before."""
        self.end, self.judged = end, judged
        self._taps = None if taps is None else torch.from_numpy(np.array(taps))

    def due(self, window: Window) -> tuple[int, int]:
        """What the window has that is new: the encoder position of its first half step, and how many there are."""
        first = (self.end * HALF_STEP_FRAMES - window.start) // 2
        return first, max(window.end // HALF_STEP_FRAMES - self.end, 0)

    def append(self, taps: Tensor | None) -> None:
        """Take what was due: [layers, half steps, d], or None where nothing was."""
        if taps is None:
            return
        self.end += taps.shape[1]
        self._taps = taps if self._taps is None else torch.cat([self._taps.to(taps), taps], dim=1)

    def seconds(self) -> range:
        """The ends, in seconds, that are to be judged now. What is older than they need is forgotten."""
        found = range(self.judged + 1, self.end // SECOND + 1)
        self.judged = max(self.judged, self.end // SECOND)
        return found

    def trim(self) -> None:
        """Forget what no later second needs."""
        if self._taps is not None:
            self._taps = self._taps[:, -(KEPT + SECOND) :].clone()

    def steps(self, second: int, spans_s: tuple[float, ...]) -> list[int]:
        """The spans that can be judged at the end of a second, in tap steps, shortest first."""
        assert self._taps is not None
        known = (self._taps.shape[1] - (self.end - second * SECOND)) // 2
        return sorted({max(1, min(span_steps(span), known)) for span in spans_s})

    def taps(self, second: int, steps: int) -> Tensor:
        """The last tap steps before the end of a second: [layers, steps, d]."""
        assert self._taps is not None
        last = self._taps.shape[1] - (self.end - second * SECOND)
        layers, _, width = self._taps.shape
        return self._taps[:, last - 2 * steps : last].reshape(layers, steps, 2, width).mean(2)


class RecordingWindows(Protocol):
    """What gives the windows of a recording's mel, as `RecordingMel` does."""

    def window(self, start: int, end: int) -> Tensor:
        """As `RecordingMel.window`."""

    def opening(self) -> Tensor:
        """As `RecordingMel.opening`."""


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One window of a recording. `task`: language and prompt; `track` None: no tags are due."""

    mel: RecordingWindows
    window: Window
    task: DecodeTask
    track: TapTrack | None = None
    tag_spans_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What the model found in one window: plain values.

    `words`: of each slice of the text (`slices`), absolute. `judgements`: of each second that ends in this window and
    in none before, in order.
    """

    text: WindowText
    language: str
    words: tuple[tuple[HypothesisWord, ...], ...]
    judgements: tuple[tuple[SpanScores, ...], ...]


@dataclass(slots=True)
class _Row:
    """One window on its way."""

    request: WindowRequest
    task: DecodeTask
    features: Tensor | None = None
    judgements: tuple[tuple[SpanScores, ...], ...] = ()
    decoded: Decoded | None = None
    text: WindowText | None = None

    @property
    def audio(self) -> AudioWindow:
        """What the decoder attends."""
        assert self.features is not None
        window = self.request.window
        return AudioWindow(self.features, max(-(-(window.end - window.start) // 2), 1))


@dataclass(slots=True)
class _Judgement:
    """One span that is to be judged."""

    row: _Row
    second: int
    taps: Tensor


class OfflineEngine:
    """Runs windows of recordings on one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        with within_memory(f"the decoder of the model {model.name}", model.device):
            self.search = GreedySearch(model, near=True)
        self._first_mark = model.tokenizer().timestamp_begin
        self._limit = BatchLimit(model.name, model.device, self._release, records=model.records)

    def step(self, requests: Sequence[WindowRequest]) -> list[WindowResult]:
        """Carry out the requests, each of another recording; results in the same order.

        Raises:
            EngineError: the model failed (for want of memory, where not even one window fits), or its output is not
                finite.
        """
        rows = [_Row(request, request.task) for request in requests]
        try:
            self._limit.run(rows, self._encode)
            self._judge(rows)
            for number, temperature in enumerate(TEMPERATURES):
                waiting = [row for row in rows if row.text is None or must_try_again(row.text)]
                self._limit.run(waiting, partial(self._decode, number, temperature))
            results = [self._result(row) for row in rows]
        except RuntimeError as error:  # what torch raises, for want of memory as for anything else
            first_line = str(error).partition("\n")[0]
            raise EngineError(
                f"model {self.model.name} failed on {len(rows)} windows ({self.model.device}): {first_line}"
            ) from error
        self._limit.announce()
        return results

    def look_back(self, requests: Sequence[WindowRequest]) -> None:
        """Fill the track of one recording with the taps of windows whose results are known from an earlier run."""
        for request in requests:
            self._limit.run([_Row(request, request.task)], self._encode)
            if request.track is not None:
                request.track.seconds()
                request.track.trim()

    def _release(self, record: bool) -> None:
        self.search.release(record=record)
        self.model.release(record=record)

    def _encode(self, rows: Sequence[_Row]) -> None:
        mel = torch.stack([row.request.mel.window(row.request.window.start, row.request.window.end) for row in rows])
        tracks = [row.request.track for row in rows]
        due = [
            (0, 0) if track is None else track.due(row.request.window) for track, row in zip(tracks, rows, strict=True)
        ]
        features, taps = self.model.encode_half_steps(mel, due)
        for row, track, found, steps in zip(rows, tracks, features, taps, strict=True):
            row.features = found
            if track is not None:
                track.append(steps)

    def _judge(self, rows: Sequence[_Row]) -> None:
        """Judge every second that is new; spans of one length together."""
        due: dict[int, list[_Judgement]] = defaultdict(list)
        for row in rows:
            if (track := row.request.track) is None:
                continue
            for second in track.seconds():
                for steps in track.steps(second, row.request.tag_spans_s):
                    due[steps].append(_Judgement(row, second, track.taps(second, steps)))
        found: dict[tuple[int, int], list[SpanScores]] = defaultdict(list)

        def judge(steps: int, batch: Sequence[_Judgement]) -> None:
            logits = self.model.tag(torch.stack([one.taps for one in batch]))
            scores = self.model.probabilities(logits).cpu().numpy()
            if not np.isfinite(scores).all():
                raise EngineError("the tagging head's scores are not finite: the model or its head is damaged")
            for one, row_scores in zip(batch, scores, strict=True):
                end = one.second * SAMPLE_RATE
                span = SpanScores(max(end - steps * STEP_SAMPLES, 0), end, row_scores)
                found[id(one.row), one.second].append(span)

        for steps, batch in sorted(due.items()):
            self._limit.run(batch, partial(judge, steps))
        for row in rows:
            row.judgements = tuple(tuple(spans) for (of, _), spans in sorted(found.items()) if of == id(row))
            if row.request.track is not None:
                row.request.track.trim()

    def _decode(self, number: int, temperature: float, rows: Sequence[_Row]) -> None:
        audio = [row.audio for row in rows]
        tasks = [
            replace(row.task, temperature=temperature, seed=row.request.window.start * len(TEMPERATURES) + number)
            for row in rows
        ]
        decoded = self.search.decode(audio, tasks)
        for row, one in zip(rows, decoded, strict=True):
            if row.task.language is None and not self._agrees(row, one):
                row.task = replace(row.task, language=self._spoken(row))
                (one,) = self.search.decode([row.audio], [replace(row.task, temperature=temperature)])
            row.task = replace(row.task, language=one.language)
            row.decoded, row.text = one, self._text(one, row.task, temperature)

    def _agrees(self, row: _Row, decoded: Decoded) -> bool:
        """Whether the language that was found is sure: a whole window, or one that leaves little doubt."""
        window = row.request.window
        whole = window.end - window.start == WINDOW_FRAMES
        return whole or not self.model.is_multilingual or decoded.language_probability >= SURE_OF_LANGUAGE

    def _spoken(self, row: _Row) -> str:
        """The language of a short recording with silence behind it; in its window there are zeros instead."""
        features, _ = self.model.encode_half_steps(row.request.mel.opening()[None], [(0, 0)])
        (found,) = self.search.decode(
            [AudioWindow(features[0], 1)], [DecodeTask(max_new_tokens=1, languages=row.task.languages)]
        )
        return found.language

    def _text(self, decoded: Decoded, task: DecodeTask, temperature: float) -> WindowText:
        said = self.model.tokenizer(decoded.language, task.task).decode(list(decoded.tokens)).strip()
        return WindowText(
            tokens=decoded.tokens,
            temperature=temperature,
            mean_logprob=decoded.mean_logprob,
            no_speech_probability=decoded.no_speech_probability,
            compression_ratio=compression_ratio(said),
        )

    def _result(self, row: _Row) -> WindowResult:
        assert row.text is not None
        assert row.decoded is not None
        window = row.request.window
        cuts = [(one.first, one.last) for one in slices(row.text.tokens, self._first_mark)[0]]
        tokenizer = self.model.tokenizer(row.decoded.language, row.task.task)
        words = slice_words(row.decoded, tokenizer, cuts, window.start * HOP_SAMPLES, window.end * HOP_SAMPLES)
        return WindowResult(row.text, row.decoded.language, words, row.judgements)

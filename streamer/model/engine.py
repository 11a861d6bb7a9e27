"""The engine: windows of audio in, plain results out. One encoder pass a window feeds the tags and the text.

Owned by the worker's thread, or by whoever drives a `Stream` without threads; it starts none, waits for nothing and
reads no clock. The windows of all sessions go through it together: encoded in batches of one length, decoded in one
batch, as many at once as memory holds (`streamer.model.batch_limit`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from whisper.audio import HOP_LENGTH
from whisper.utils import compression_ratio

from streamer.audio.fine_spectrum import Spectrum
from streamer.audio.mel import FRAMES_PER_SECOND, MIN_WINDOW_SAMPLES, MelFrames
from streamer.errors import DeviceFailed, EngineError
from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.events.plans import DecodeTask, Hypothesis, OwnScore, SpanScores, StepRequest, StepResult
from streamer.model.batch_limit import BatchLimit
from streamer.model.cpu_threads import one_blas_thread
from streamer.model.decoding.alignment import hypothesis_words
from streamer.model.decoding.kv_cache import audio_end
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.graphs import buckets_up_to
from streamer.model.memory import device_failed, within_memory
from streamer.model.outline import ModelOutline
from streamer.model.own_sounds import SPAN_S, OwnLayer, judged_from
from streamer.model.whisper import MIN_FRAMES, PASS_FRAMES, STEP_SAMPLES, Model, span_steps

Context = Literal["auto", "padded", "fit"]


class WindowMel(Protocol):
    """Where the mel of a window comes from: a stream's own `MelFrames`, or what another process sent."""

    def window(self, start_sample: int, end_sample: int, total_frames: int | None = None) -> Tensor:
        """As `MelFrames.window`."""

    def fine_spectrum(self, start_sample: int, end_sample: int) -> Spectrum:
        """As `MelFrames.fine_spectrum`, for the last JUDGED_STEPS of the window."""


Work = tuple[MelFrames, StepRequest]


class StepEngine(Protocol):
    """What a worker asks: an `Engine` in this process, or one that has the windows done elsewhere."""

    @property
    def model(self) -> Model | ModelOutline:
        """The model, or what is known of it."""

    def step(self, work: Sequence[Work]) -> Sequence[StepResult]:
        """As `Engine.step`."""


@dataclass(frozen=True, slots=True)
class WindowFrames:
    """How long one window is: mel frames of audio, with padding, and encoder frames that the decoder may attend."""

    real: int
    total: int
    attended: int


@dataclass(frozen=True, slots=True)
class Padding:
    """What a model wants behind the audio of a window. `longest`, `shortest`, `margin`: mel frames."""

    fits: bool
    longest: int
    shortest: int
    margin: int
    variable: bool

    @classmethod
    def of(cls, model: Model | ModelOutline, context: Context) -> "Padding":
        """As `Engine` says of `context`."""
        longest = 2 * model.dims.n_audio_ctx
        least_s = model.min_context_s if model.variable_context else 0.0
        shortest = _bucket(max(MIN_FRAMES, round(least_s * FRAMES_PER_SECOND)), longest)
        return cls(context != "padded", longest, shortest, model.margin_frames, model.variable_context)

    def frames(self, request: StepRequest) -> WindowFrames:
        """The lengths of a window; all 0: too short to be heard. Raises EngineError: longer than the model hears."""
        samples = request.end_sample - request.start_sample
        real = samples // HOP_LENGTH
        if real > self.longest:
            longest_s = self.longest / FRAMES_PER_SECOND
            raise EngineError(f"a window of {samples / SAMPLE_RATE:.2f} s is too long: the model hears {longest_s:g} s")
        if samples < MIN_WINDOW_SAMPLES:
            return WindowFrames(0, 0, 0)
        if not self.fits:
            return WindowFrames(real, self.longest, self.longest // 2)
        total = max(_bucket(real + self.margin, self.longest), self.shortest)
        return WindowFrames(real, total, max(-(-real // 2), 1) if self.variable else total // 2)


BUCKET_FRAMES = 40  # `fit`: windows are rounded up to 0.4 s, so that those of many sessions share a batch
WARM_UP_S = (1.0, 4.0, 10.0)  # windows that the warm-up runs


@dataclass(slots=True)
class _Window:
    """One request on its way: mel frames of audio and with padding, then what the encoder made of it."""

    mel: WindowMel
    request: StepRequest
    real_frames: int
    total_frames: int
    attended_frames: int  # encoder frames that the decoder may attend
    features: Tensor | None = None
    taps: Tensor | None = None
    hypothesis: Hypothesis | None = None
    judgement: tuple[SpanScores, ...] = ()
    own: tuple[OwnScore, ...] = ()


class Engine:
    """Runs steps on one model.

    `context`: `padded` puts zeros behind every window up to 30 s, as openai-whisper does; `fit` (and `auto`) encodes
    the audio there is: alone on checkpoints that were trained on variable context, with the model's margin of zeros on
    others. `own`: the sounds of one's own that are judged beside the head.
    """

    def __init__(self, model: Model, *, context: Context = "auto", own: OwnLayer | None = None):
        one_blas_thread()
        self.model = model
        self.own = own
        with within_memory(f"the decoder of the model {model.name}", model.device):
            self.search = GreedySearch(model)
        self._padding = Padding.of(model, context)
        self._limit = BatchLimit(model.name, model.device, self._release, records=model.records)

    def step(self, work: Sequence[tuple[WindowMel, StepRequest]]) -> list[StepResult]:
        """Carry out the requests, each on the mel frames of its own stream; results in the same order.

        Each window passes the encoder once. One of less than 12.6 ms (201 samples) is not heard: its result is empty.
        Where memory runs out, smaller batches are tried, from then on (`BatchLimit`).

        Raises:
            EngineError: a window is longer than the model hears or its audio is gone, the model failed (for want of
                memory, where not even one window fits), or its output is not finite. DeviceFailed, where what it runs
                on is the reason.
        """
        results = self._step(work)
        self._limit.announce()
        return results

    def _step(self, work: Sequence[tuple[WindowMel, StepRequest]]) -> list[StepResult]:
        windows = [self._window(mel, request) for mel, request in work]
        audible = [window for window in windows if window.real_frames]
        try:
            for same in self._of_one_length(audible):
                self._limit.run(same, self._encode)
            self._judge(audible)
            self._limit.run([window for window in audible if window.request.decode is not None], self._decode)
        except RuntimeError as error:  # what torch raises, for want of memory as for anything else
            first_line = str(error).partition("\n")[0]
            said = f"model {self.model.name} failed on {len(work)} windows ({self.model.device}): {first_line}"
            raise (DeviceFailed if device_failed(error) else EngineError)(said) from error
        return [self._result(window) for window in windows]

    def warm_up(self) -> None:
        """Run representative steps, so that the first real one is as fast as all others.

        Where work is recorded, all of it that live windows need is: what is recorded later comes late. Where memory
        does not hold `MAX_BATCH` of the longest windows then, one warning says how many there are at most from now on.
        Where nothing is recorded, `WARM_UP_S` at once are tried, and a lower limit is found while serving.

        Raises:
            EngineError: a step failed, not even one window fits into memory, or its numbers are not finite; such a
                model must not serve.
        """
        passes = self.model.encoder_passes
        lengths_s = WARM_UP_S if self._padding.fits else WARM_UP_S[-1:]  # padded windows are all of one length
        work = [_noise(self.model, round(length * FRAMES_PER_SECOND)) for length in lengths_s]
        try:
            self._record()
            for item in work:
                self._step([item])
            self._step(work)
            self._limit.announce()
        except (EngineError, RuntimeError) as error:
            first_line = str(error).partition("\n")[0]
            raise EngineError(f"the warm-up failed: {first_line}") from error
        finally:
            self.model.encoder_passes = passes  # the counter is about audio that was heard

    def _record(self) -> None:
        """Record all kinds of work, for as many windows at once as memory holds.

        From the beginning again where it runs out: all that was recorded is given back then, and the largest come first
        because they decide about the buffers that everything is recorded on.
        """
        while self.model.records:
            reductions = self._limit.reductions
            for work in self._kinds():
                work()
                if self._limit.reductions != reductions:
                    break
            else:
                return

    def _kinds(self) -> Iterator[Callable[[], object]]:
        """What records each kind of work: decoder steps, then whole steps of windows of each length."""
        rows = self._limit.rows
        shorter = (
            [length for length in reversed(PASS_FRAMES) if length < self._padding.longest] if self._padding.fits else []
        )
        lengths = [self._padding.longest, *(length for length in shorter if length >= self._padding.shortest)]
        attended = [self._padding.longest, *shorter] if self.model.variable_context else lengths
        for frames in sorted({audio_end(length // 2) for length in attended}, reverse=True):
            attended_frames = min(frames, self._padding.longest // 2)
            yield partial(self._limit.try_rows, rows, partial(self.search.record, attended_frames, rows))
        for length in lengths:
            whole = length if length == self._padding.longest else length // BUCKET_FRAMES * BUCKET_FRAMES
            item = _noise(self.model, whole)  # not one that is rounded up beyond the pass
            for count in buckets_up_to(rows):
                yield partial(self._step, [item] * count)

    def _release(self, record: bool) -> None:
        self.search.release(record=record)
        self.model.release(record=record)

    def _window(self, mel: WindowMel, request: StepRequest) -> _Window:
        frames = self._padding.frames(request)
        return _Window(mel, request, frames.real, frames.total, frames.attended)

    def _of_one_length(self, windows: Iterable[_Window]) -> list[list[_Window]]:
        by_length: dict[int, list[_Window]] = defaultdict(list)
        for window in windows:
            by_length[self.model.pass_frames(window.total_frames)].append(window)
        return [same for _, same in sorted(by_length.items())]

    def _encode(self, batch: Sequence[_Window]) -> None:
        frames = self.model.pass_frames(batch[0].total_frames)
        mels = [functional.pad(_mel(window), (0, frames - window.total_frames)) for window in batch]
        encoded = self.model.encode_windows(
            torch.stack(mels),
            real_frames=[_judged_frames(window) for window in batch],
            tag_spans_s=[self._tap_span_s(window.request) for window in batch],
            window_frames=[window.total_frames for window in batch] if self._padding.fits else None,
        )
        for window, features, taps in zip(batch, encoded.features, encoded.taps, strict=True):
            window.features, window.taps = features[: window.total_frames // 2], taps

    def _tap_span_s(self, request: StepRequest) -> float:
        """The longest span that somebody will judge; 0: nobody."""
        asked = max(request.tag_spans_s, default=0.0)
        own = SPAN_S if asked and self.own else 0.0
        return max(asked if self.model.head else 0.0, own)

    def _judge(self, windows: Sequence[_Window]) -> None:
        """Judge every span of every window; those of one length together. And what is like sounds of one's own."""
        for window in windows if self.own else ():
            if window.taps is not None and self.own:
                end = window.request.end_sample
                spectrum = window.mel.fine_spectrum(judged_from(window.request), end)
                window.own = self.own.scores(window.taps, spectrum, end)
        if self.model.head is None:
            return
        due: dict[int, list[_Window]] = defaultdict(list)
        for window in windows:
            if window.taps is not None:
                for steps in {_steps(span, window.taps) for span in window.request.tag_spans_s}:
                    due[steps].append(window)
        scores: list[Tensor] = []

        def judge(steps: int, batch: Sequence[_Window]) -> None:
            taps = torch.stack([window.taps[:, -steps:] for window in batch if window.taps is not None])
            scores.append(self.model.probabilities(self.model.tag(taps)))

        for steps, judged in sorted(due.items()):
            self._limit.run(judged, partial(judge, steps))
        if not scores:
            return
        rows = torch.cat(scores).cpu().numpy()  # the one reading
        if not np.isfinite(rows).all():
            raise EngineError("the tagging head's scores are not finite: the model or its head is damaged")
        ordered = [(window, steps) for steps, judged in sorted(due.items()) for window in judged]
        for (window, steps), row in zip(ordered, rows, strict=True):
            window.judgement += (_span_scores(window, steps, row),)

    def _decode(self, batch: Sequence[_Window]) -> None:
        audio = [
            AudioWindow(window.features, _real_positions(window), window.attended_frames)
            for window in batch
            if window.features is not None
        ]
        tasks = [window.request.decode for window in batch if window.request.decode is not None]
        for window, task, decoded in zip(batch, tasks, self.search.decode(audio, tasks), strict=True):
            window.hypothesis = self._hypothesis(window.request, task, decoded)

    def _hypothesis(self, request: StepRequest, task: DecodeTask, decoded: Decoded) -> Hypothesis:
        tokenizer = self.model.tokenizer(decoded.language, task.task)
        return Hypothesis(
            words=hypothesis_words(decoded, tokenizer, request.start_sample, request.end_sample),
            language=decoded.language,
            language_probability=decoded.language_probability,
            no_speech_probability=decoded.no_speech_probability,
            mean_logprob=decoded.mean_logprob,
            compression_ratio=compression_ratio(tokenizer.decode(list(decoded.tokens)).strip()),
            complete=decoded.complete,
            spoken_language=decoded.spoken_language,
        )

    def _result(self, window: _Window) -> StepResult:
        hypothesis = window.hypothesis
        if not window.real_frames and window.request.decode is not None:
            given = window.request.decode.language
            hypothesis = Hypothesis((), given or "en", 1.0 if given else 0.0, 1.0, 0.0, 0.0, complete=True)
        return StepResult(window.request, hypothesis, window.judgement, window.own)


def _bucket(frames: int, longest: int) -> int:
    return min(-(-frames // BUCKET_FRAMES) * BUCKET_FRAMES, longest)


def _noise(model: Model, frames: int) -> Work:
    """A window of noise for the warm-up, with tags and text."""
    mel = MelFrames(model.dims.n_mels)
    mel.append(np.random.default_rng(0).normal(0.0, 0.05, frames * HOP_LENGTH).astype(np.float32))
    return mel, StepRequest(0, frames * HOP_LENGTH, (2.0, 5.0, 10.0), DecodeTask(max_new_tokens=4))


def _mel(window: _Window) -> Tensor:
    """The window's log-mel [n_mels, total frames]: of its samples, or of its samples with zeros behind them."""
    request = window.request
    exact = window.total_frames == window.real_frames
    try:
        return window.mel.window(request.start_sample, request.end_sample, None if exact else window.total_frames)
    except ValueError as error:
        raise EngineError(f"a window cannot be read: {error}") from error


def _judged_frames(window: _Window) -> int:
    """The mel frames that tags may be judged on: those of audio; padding only where there is less than one tap step."""
    return max(window.real_frames, MIN_FRAMES)


def _real_positions(window: _Window) -> int:
    """The encoder frames that lie over audio."""
    return max(min(-(-window.real_frames // 2), window.attended_frames), 1)


def _steps(span_s: float, taps: Tensor) -> int:
    return max(1, min(span_steps(span_s), taps.shape[1]))


def _span_scores(window: _Window, steps: int, scores: np.ndarray) -> SpanScores:
    request = window.request
    end = request.start_sample + _judged_frames(window) // 2 * FRAME_SAMPLES
    start = max(end - steps * STEP_SAMPLES, request.start_sample)
    return SpanScores(start_sample=start, end_sample=min(end, request.end_sample), scores=scores)

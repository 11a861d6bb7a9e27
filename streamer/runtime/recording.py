"""One whole recording: which window is next, and the events of what the model found there (no threads, no clock).

    while request := recording.request():
        events += recording.take(engine.step([request])[0])
    events += recording.finish()

Text comes from windows with look-ahead, as passages that are final at once; sounds, alerts and gaps from the listener
and the session of live audio, which follow as far as a window is settled. `audio_t` of an event is the end of the
window that it was decided in. What a result says is plain values: a run that was interrupted `replay`s them.
"""

import base64
import json
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from streamer.audio.block import AudioBlock
from streamer.audio.mel import HOP_SAMPLES, RecordingMel
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, Event, State
from streamer.events.plans import (
    DecodeTask,
    Hop,
    HypothesisWord,
    Plan,
    SegmentClosed,
    SegmentOpened,
    SpanScores,
    SpeechOver,
    StepRequest,
    StepResult,
)
from streamer.model.outline import ModelOutline
from streamer.model.whisper import Model
from streamer.output.event_file import OWNER_ONLY
from streamer.policy.prompt import Prompt
from streamer.policy.seeking import Passage, Seeker, WindowText
from streamer.policy.text_session import TextChange
from streamer.runtime.offline import HALF_STEP_FRAMES, KEPT, OfflineEngine, TapTrack, WindowRequest, WindowResult
from streamer.runtime.session import Session
from streamer.runtime.stream import Listener, head_facts, text_model
from streamer.settings.config import Settings
from streamer.sound.labels import LABEL_COUNT

Header = Mapping[str, Any]


class Recording:
    """One recording beside a model that several share.

    `hears`: sounds, alerts and gaps are wanted beside the text; without, the samples are not kept. 230 MB an hour are,
    beside the 115 of the mel, and given back as the windows go on.
    """

    def __init__(
        self, model: Model | ModelOutline, settings: Settings, blocks: Iterable[AudioBlock], *, hears: bool
    ) -> None:
        """Reads all of `blocks`. Raises ConfigError as `Prompt` does."""
        described = text_model(model)
        self._settings = settings
        self._session = Session(settings, described, head_facts(model), source="file")
        self._prompt = Prompt(settings.speech, described)
        self._listener = Listener(settings) if hears else None
        self._blocks: deque[AudioBlock] = deque()
        self._samples = 0
        self._states: deque[tuple[int, State, str]] = deque()  # sample, state and detail of what people should know
        self._mel = RecordingMel(self._read(blocks, hears), model.dims.n_mels)
        tokenizer = model.tokenizer()
        self._seeker = Seeker(
            self._mel.frames,
            tokenizer.timestamp_begin,
            lambda tokens: tokenizer.decode([token for token in tokens if token < tokenizer.eot]),
            carries=settings.speech.carry_prompt != "off",
        )
        self._track = TapTrack() if model.head is not None and hears else None
        self._language = settings.speech.languages[0] if len(settings.speech.languages) == 1 else None
        self._plans: deque[Plan] = deque()  # of audio behind what is settled
        self._judgements: dict[int, tuple[SpanScores, ...]] = {}  # by the second that they end with
        self._said: list[TextChange] = []  # passages that the listener did not come to yet
        self._no_speech_probability = 0.0
        self._segments = 0
        self._spoken_until = 0
        self._begun = False

    @property
    def remarks(self) -> list[str]:
        """What people should know of the recording, but for its events so far: which track it is, what is damaged."""
        return list(dict.fromkeys(detail for _, _, detail in self._states if detail))

    @property
    def samples(self) -> int:
        """How long it is."""
        return self._samples

    @property
    def settled_samples(self) -> int:
        """How far it is done."""
        return min(self._seeker.seek * HOP_SAMPLES, self._samples)

    def request(self) -> WindowRequest | None:
        """The next window for the model; None when there is none left."""
        window = self._seeker.window()
        if window is None:
            return None
        task = DecodeTask(
            language=self._language,
            languages=self._settings.speech.languages,
            task=self._settings.speech.task,
            prompt=self._prompt.for_recording(window.earlier, first=window.first),
            timestamps=True,
        )
        return WindowRequest(self._mel, window, task, self._track, self._settings.tags.spans_s)

    def take(self, result: WindowResult) -> list[Event]:
        """The events of what the model found in the window that was asked for."""
        window = self._seeker.window()
        assert window is not None
        self._language = result.language
        self._judgements |= {spans[0].end_sample // SAMPLE_RATE: spans for spans in result.judgements}
        passages = self._seeker.step(result.text)
        self._no_speech_probability = result.text.no_speech_probability
        events = self._start()
        self._session.look_ahead(min(window.end * HOP_SAMPLES, self._samples))
        self._said = [self._change(one, result.words[one.number], result.language) for one in passages]
        return events + self._follow(self.settled_samples)

    def replay(self, results: Sequence[WindowResult], engine: OfflineEngine) -> list[Event]:
        """The events of results of an earlier run; the next window comes out as if it had been this one's."""
        events: list[Event] = []
        requests: list[WindowRequest] = []
        for result in results:
            request = self.request()
            assert request is not None
            requests.append(request)
            events += self.take(result)
        if self._track is not None and requests:
            self._look_back(self._track, requests, engine)
        return events

    def finish(self) -> list[Event]:
        """All windows are done: the ends of sounds and alerts, `status` `stopped`."""
        events = self._start() + self._follow(self._samples)
        if self._listener is not None:
            for plan in self._listener.finish():
                events += self._complete(plan)
        return events + self._session.finish()

    def _read(self, blocks: Iterable[AudioBlock], hears: bool) -> Iterable[NDArray[np.float32]]:
        told: tuple[State, str] = ("listening", "")
        for block in blocks:
            if hears:
                self._blocks.append(block)
            self._states += [(self._samples, *news) for news in block.news(told)]
            told = (block.state, block.trouble)
            self._samples += block.lost_samples + len(block.samples)
            if block.lost_samples:
                yield np.zeros(block.lost_samples, np.float32)
            yield block.samples

    def _start(self) -> list[Event]:
        begun, self._begun = self._begun, True
        return [] if begun else self._session.status("listening")

    def _change(self, passage: Passage, words: Sequence[HypothesisWord], language: str) -> TextChange:
        """A segment of the words' times, which stay behind those of the passage before and inside what is settled."""
        settled, end = self.settled_samples, min(passage.end * HOP_SAMPLES, self.settled_samples)
        placed = []
        for word in words:
            start = min(max(word.start_sample, self._spoken_until), settled)
            self._spoken_until = min(max(word.end_sample, start), settled)
            placed.append(replace(word, start_sample=start, end_sample=self._spoken_until))
        if placed and placed[-1].start_sample < end < placed[-1].end_sample:  # the pause behind it is not the word's
            placed[-1] = replace(placed[-1], end_sample=end)
            self._spoken_until = end
        start = placed[0].start_sample if placed else min(max(passage.start * HOP_SAMPLES, self._spoken_until), settled)
        self._spoken_until = placed[-1].end_sample if placed else max(end, start)
        self._segments += 1
        return TextChange(
            segment=self._segments - 1,
            start_sample=start,
            end_sample=self._spoken_until,
            words=tuple(placed),
            text=("".join(word.text for word in placed) or passage.text).strip(),
            partial="",
            final=True,
            language=language,
        )

    def _follow(self, until: int) -> list[Event]:
        """Everything up to a sample, in order of time: text, and what the listener makes of the audio."""
        events: list[Event] = []
        while self._states and self._states[0][0] <= until:
            _, state, detail = self._states.popleft()
            events += self._session.status(state, detail)
        while self._listener is not None and self._listener.position < until and self._blocks:
            block = self._blocks.popleft()
            self._plans += self._listener.lost(block.lost_samples, block.reason)
            self._plans += self._listener.step(block.samples)
        while self._plans and self._plans[0].end_sample <= until:
            events += self._complete(self._plans.popleft())
        return events + self._write(until)

    def _complete(self, plan: Plan) -> list[Event]:
        events = self._write(plan.end_sample)
        result = None
        match plan:
            case SegmentOpened() | SegmentClosed() | SpeechOver():  # the gate decides nothing here
                return events
            case Hop(judge=True):
                judgement = self._judgements.pop(plan.end_sample // SAMPLE_RATE, ())
                result = StepResult(StepRequest(0, plan.end_sample), judgement=() if plan.silent else judgement)
        return events + self._session.complete(plan, result)

    def _write(self, until: int) -> list[Event]:
        due = [change for change in self._said if change.end_sample <= until]
        self._said = self._said[len(due) :]
        return self._session.write(due, due[-1].end_sample, self._no_speech_probability) if due else []

    def _look_back(self, track: TapTrack, requests: Sequence[WindowRequest], engine: OfflineEngine) -> None:
        """Encode the last windows again, as many as hold what the next judgements look back on."""
        first = len(requests) - 1
        last = requests[first].window.end // HALF_STEP_FRAMES
        while first > 0 and last - requests[first - 1].window.end // HALF_STEP_FRAMES < KEPT:
            first -= 1
        track.restart(requests[first - 1].window.end if first else 0)
        engine.look_back(requests[first:])


class WindowLog:
    """What the model found in the windows of one recording, kept in a file, so that a run that was interrupted goes on.

    A line of JSON for each window behind a first line that says what was read with which model and settings. A line
    counts when it is whole: whatever kills the program, the file is good up to the last finished window. Tags' scores
    are float32, base64. `results`: those that an earlier run left under the same header.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Opens the file; what belongs to another header is thrown away. Raises UsageError: it cannot be written."""
        self._path = path
        first = json.dumps(header, sort_keys=True) + "\n"
        try:
            lines = (
                path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
            )
            self.results = _results(lines[1:]) if lines[:1] == [first] else []
            flags = os.O_RDWR | os.O_CREAT | (0 if self.results else os.O_TRUNC)
            self._file = os.fdopen(os.open(path, flags, OWNER_ONLY), "r+", encoding="utf-8")
            if self.results:
                self._file.seek(sum(len(line.encode()) for line in lines[: 1 + len(self.results)]))
                self._file.truncate()
            else:
                self._file.truncate(0)
                self._write(first)
        except OSError as error:
            raise UsageError(f"--output {path.parent}: cannot be written: {error.strerror}") from None

    def append(self, result: WindowResult) -> None:
        """Keep the result of the next window. Raises UsageError where the disk is full."""
        judgements = tuple(tuple(map(_packed, spans)) for spans in result.judgements)
        line = _LINES.dump_json(_Line(result.text, result.language, result.words, judgements)).decode()
        try:
            self._write(line + "\n")
        except OSError as error:
            raise UsageError(f"--output {self._path.parent}: cannot be written any more: {error.strerror}") from None

    def close(self, *, done: bool) -> None:
        """Close the file; where the recording is done it is of no more use and goes."""
        self._file.close()
        if done:
            self._path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(frozen=True, slots=True)
class _Line:
    """A `WindowResult` whose judgements are first and last sample, and scores as base64."""

    text: WindowText
    language: str
    words: tuple[tuple[HypothesisWord, ...], ...]
    judgements: tuple[tuple[tuple[int, int, str], ...], ...]


_LINES = TypeAdapter(_Line)


def _results(lines: list[str]) -> list[WindowResult]:
    """The results of all lines up to the first that is cut off or damaged."""
    found: list[WindowResult] = []
    for line in lines:
        try:
            read = _LINES.validate_json(line)
            judgements = tuple(tuple(_unpacked(*span) for span in spans) for spans in read.judgements)
        except ValueError:
            break
        if line.endswith("\n"):
            found.append(WindowResult(read.text, read.language, read.words, judgements))
    return found


def _packed(span: SpanScores) -> tuple[int, int, str]:
    return span.start_sample, span.end_sample, base64.b64encode(span.scores.astype("<f4").tobytes()).decode()


def _unpacked(start: int, end: int, packed: str) -> SpanScores:
    scores = np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float32)
    if scores.shape != (LABEL_COUNT,):
        raise ValueError("scores were cut off")
    return SpanScores(start, end, scores)

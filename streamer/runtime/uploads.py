"""Recordings that clients upload: read in the thread of whoever asks, windows through the model in the worker's thread.

What `streamer transcribe` does with a file, this does beside the live streams, with the model as it was loaded for
them: the same windows, prompts and fallbacks. The model is lent between the steps of the live streams (`Worker.lend`),
so that one thread owns it; on a CPU a live caption may come later by what a window takes. Engines elsewhere do the
windows between theirs. Sounds and alerts are told to the client alone: no delivery gets them.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from pydantic import ValidationError

from streamer.audio.block import AudioBlock
from streamer.audio.containers import HEAD_BYTES, container_of
from streamer.audio.files import FileSource
from streamer.errors import EngineError, UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.engine import StepEngine
from streamer.model.outline import ModelOutline
from streamer.model.whisper import Model, check_languages, known_languages, language_codes
from streamer.runtime.offline import OfflineEngine, WindowRequest, WindowResult
from streamer.runtime.recording import Recording
from streamer.runtime.stream import Stream
from streamer.server.actions import BusyError, ModelFacts, Upload, UploadRefusedError
from streamer.settings.config import Settings
from streamer.settings.section import first_fault
from streamer.settings.words import named_languages

MAX_AT_ONCE = 2  # each holds up to 345 MB for an hour of sound; the next client is told to come again
Result = TypeVar("Result")
BLOCKS_A_LOAN = 20  # of 50 ms: what a model without look-ahead is given at a time


class Lender(Protocol):
    """What has the model done work with, between that of others."""

    def lend(self, work: Callable[[], Result]) -> Result:
        """Do it and return what it returns; raises what it raises, EngineError: the program ends."""


class Elsewhere(Protocol):
    """Engines that are not here: each call waits for one of them. Raises EngineError."""

    @property
    def model(self) -> ModelOutline:
        """Their model, without its weights."""

    def engine(self) -> StepEngine:
        """What does the windows of a stream."""

    def window(self, request: WindowRequest) -> WindowResult:
        """Do a window of a recording."""


class _AtOnce:
    """What is elsewhere is asked from any thread, until the program is `over`."""

    over = False

    def lend(self, work: Callable[[], Result]) -> Result:
        if self.over:
            raise EngineError("the program ends")
        return work()


class Uploads:
    """Transcribes recordings with the model that a worker owns, or with engines elsewhere.

    `transcribe` may run in several threads at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lender: tuple[Model | ModelOutline, Lender] | None = None  # while recordings are taken
        self._elsewhere: Elsewhere | None = None
        self._at_once = _AtOnce()
        self._facts: ModelFacts | None = None
        self._longest_min = settings.server.upload_max_min
        self._places = threading.Semaphore(MAX_AT_ONCE)
        self._engine: OfflineEngine | None = None  # made by the worker's thread, for the first recording

    def begin(self, model: Model, worker: Lender) -> None:
        """From now on recordings are taken."""
        self._facts = ModelFacts(model.name, known_languages(model))
        self._lender = model, worker

    def begin_elsewhere(self, engines: Elsewhere) -> None:
        """The same, with engines elsewhere."""
        self._facts = ModelFacts(engines.model.name, known_languages(engines.model))
        self._elsewhere, self._lender = engines, (engines.model, self._at_once)

    def end(self) -> None:
        """No more are taken; those at hand end with the worker, or with the window that an engine elsewhere has."""
        self._lender = None
        self._at_once.over = True

    def model(self) -> ModelFacts | None:
        """The model, once there is one."""
        return self._facts

    def transcribe(self, upload: Upload) -> Iterator[Sequence[Event]]:
        """The events of a recording as they are found, the last of them `stopped`.

        Raises UploadRefusedError: language, prompt or file; BusyError; EngineError.
        """
        if self._lender is None:
            raise BusyError("no recordings are taken now: the model is still being loaded, or the program ends")
        model, worker = self._lender
        settings = self._settings_for(upload, model)
        _check_kind(upload)
        if not self._places.acquire(blocking=False):
            raise BusyError(f"{MAX_AT_ONCE} recordings are being transcribed already; try again later")
        try:
            source = FileSource(str(upload.path), realtime=False, label="file")
            self._check_length(source.duration_s or 0.0)
            blocks = self._counted(source.blocks())
            if model.previous_text:
                yield from self._windows(model, worker, settings, blocks)
            else:
                engine = self._elsewhere.engine() if self._elsewhere else None
                yield from _stream(model, worker, settings, blocks, engine)
        except UsageError as error:
            raise UploadRefusedError(str(error).replace(f"file {upload.path}", upload.name), "file") from None
        except EngineError as error:
            if self._lender is None:
                raise BusyError(str(error)) from None
            raise
        finally:
            self._places.release()

    def _windows(
        self, model: Model | ModelOutline, worker: Lender, settings: Settings, blocks: Iterable[AudioBlock]
    ) -> Iterator[Sequence[Event]]:
        recording = Recording(model, settings, blocks, hears=True)

        def step(request: WindowRequest) -> WindowResult:
            if self._elsewhere:
                return self._elsewhere.window(request)
            assert isinstance(model, Model)
            self._engine = self._engine or OfflineEngine(model)
            return self._engine.step([request])[0]

        while (request := recording.request()) is not None:
            yield recording.take(worker.lend(partial(step, request)))
        yield recording.finish()

    def _settings_for(self, upload: Upload, model: Model | ModelOutline) -> Settings:
        """The program's own, with what the client wants. Raises UploadRefusedError: the field that cannot be."""
        speech = self._settings.speech
        try:
            languages = language_codes(named_languages(upload.languages), "language") or speech.languages
            check_languages(languages, model, "language")
        except (UsageError, ValueError) as error:
            raise UploadRefusedError(str(error), "language") from None
        if upload.task == "translate" and not model.is_multilingual:
            raise UploadRefusedError(f"the model {model.name} knows English only and cannot translate", "model")
        try:
            given = speech.model_dump() | {"task": upload.task, "prompt": upload.prompt or speech.prompt}
            speech = type(speech).model_validate(given)
        except ValidationError as error:
            raise UploadRefusedError(first_fault(error), "prompt") from None
        return self._settings.model_copy(update={"speech": speech}).with_languages(languages)

    def _check_length(self, seconds: float) -> None:
        if seconds > 60 * self._longest_min:
            raise UploadRefusedError(
                f"the recording is longer than {self._longest_min} minutes, the most taken", "file"
            )

    def _counted(self, blocks: Iterable[AudioBlock]) -> Iterator[AudioBlock]:
        """The blocks, to the longest that is taken, whatever the file says of its length."""
        samples = 0
        for block in blocks:
            samples += block.lost_samples + len(block.samples)
            self._check_length(samples / SAMPLE_RATE)
            yield block


def _stream(
    model: Model | ModelOutline,
    worker: Lender,
    settings: Settings,
    blocks: Iterator[AudioBlock],
    engine: StepEngine | None,
) -> Iterator[Sequence[Event]]:
    """For models that were not trained to go on from earlier text. `engine`: elsewhere, None: one of the model here."""
    stream = worker.lend(lambda: Stream(model, settings, source="file", engine=engine))

    def hear(some: Sequence[AudioBlock]) -> list[Event]:
        return [event for block in some for event in stream.hear(block)]

    while some := list(islice(blocks, BLOCKS_A_LOAN)):
        yield worker.lend(partial(hear, some))
    yield worker.lend(stream.finish)


def _check_kind(upload: Upload) -> None:
    """A playlist would make us read what it names: only what begins as a file with sound in it is opened."""
    with upload.path.open("rb") as file:
        if container_of(file.read(HEAD_BYTES)) is None:
            raise UploadRefusedError(
                f"{upload.name}: is no audio or video file; give wav, flac, mp3, ogg, m4a, mp4 …", "file"
            )

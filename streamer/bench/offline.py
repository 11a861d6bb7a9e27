"""Whole recordings beside openai-whisper's `transcribe`, in one process on the same weights: text, times and cost.

    python -m streamer.bench.offline --model base.pt --data manifest.csv [--sets en_short,lj_scene] [--detect]
        [--words] [--at-once 4] [--dtype float32] [--threads 1] [--out build/offline.json]

The manifest is that of `streamer bench speech`; recordings without a language or a text are left out. Processor seconds
are those of the process, in one thread unless told otherwise, reading the file included for both. Texts count as equal
after openai-whisper's normaliser. Needs jiwer (extra `eval`).

`Offline` keeps what `transcribe` read on disk: streaming is measured against it. A recording is read once for each
model: the same audio with the same weights, threads and release of openai-whisper is looked up from then on.
Temperatures, thresholds and prompts are openai-whisper's defaults; its fallbacks draw random numbers, which are seeded.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.model import Whisper

from streamer.audio.files import FileSource, read_audio
from streamer.errors import UsageError
from streamer.events import Event, Transcript
from streamer.measure.recordings import Recording, TrueWord, chosen, read_recordings
from streamer.measure.report import as_json
from streamer.measure.word_errors import normaliser, total, word_errors
from streamer.model.checkpoint import load_model
from streamer.model.download import cache_root
from streamer.model.whisper import Model
from streamer.runtime.offline import OfflineEngine
from streamer.runtime.recording import Recording as Transcription
from streamer.settings.config import Settings, validate


@dataclass(frozen=True, slots=True)
class OfflineText:
    """What `transcribe` wrote, the processor seconds it took, and where its words end (empty: not asked for)."""

    text: str
    processor_s: float
    words: tuple[TrueWord, ...] = ()


class Offline:
    """One model's offline readings. `folder`: where they are kept; float32 on the CPU, whatever streams beside it."""

    def __init__(
        self, module: Whisper, *, name: str = "whisper", previous_text: bool = True, folder: Path | None = None
    ) -> None:
        """`previous_text`: the weights were trained with earlier text before the transcript."""
        self.module, self.name = module, name
        self._previous_text = previous_text
        self._folder = folder or cache_root() / "bench" / "offline"
        self._weights = _digest(module)

    @classmethod
    def of(cls, name_or_path: str, folder: Path | None = None) -> "Offline":
        """That of a model as `load_model` takes it. Raises what it raises."""
        model = load_model(name_or_path, head=None, device="cpu", dtype="float32")
        return cls(float32_module(model), name=model.name, previous_text=model.previous_text, folder=folder)

    def read(self, samples: NDArray[np.float32], language: str | None, *, words: bool = False) -> OfflineText:
        """Of samples, float32 [n] at 16 kHz; from disk where they were read before. `language` None: detected."""
        if not self.module.is_multilingual:
            language = "en"
        path = self._folder / f"{self._key(samples, language, words)}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return OfflineText(kept["text"], kept["processor_s"], tuple(TrueWord(**word) for word in kept["words"]))
        except (OSError, ValueError, KeyError, TypeError):
            found = self._transcribe(samples, language, words)
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.part")
        fresh.write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
        os.replace(fresh, path)
        return found

    def _key(self, samples: NDArray[np.float32], language: str | None, words: bool) -> str:
        asked = (
            version("openai-whisper"),
            self._weights,
            language,
            words,
            self._previous_text,
            torch.get_num_threads(),
        )
        return hashlib.sha256(repr(asked).encode() + samples.tobytes()).hexdigest()

    def _transcribe(self, samples: NDArray[np.float32], language: str | None, words: bool) -> OfflineText:
        torch.manual_seed(0)
        before = time.process_time()
        found = whisper.transcribe(
            self.module,
            samples,
            language=language,
            fp16=False,
            word_timestamps=words,
            condition_on_previous_text=self._previous_text,
        )
        took = time.process_time() - before
        ends = [
            TrueWord(str(word["word"]).strip(), float(word["end"]))
            for segment in found["segments"]
            for word in segment.get("words", ())
        ]
        return OfflineText(str(found["text"]).strip(), took, tuple(ends))


def float32_module(model: Model) -> Whisper:
    """openai-whisper's own module with a model's weights in float32 on the CPU, for its own code to run."""
    module = Whisper(model.dims)
    module.load_state_dict({name: value.float().cpu() for name, value in model.module.state_dict().items()})
    module.register_buffer("alignment_heads", model.module.alignment_heads.cpu(), persistent=False)
    return module.eval()


def _digest(module: Whisper) -> str:
    """Of the weights and of the heads that give words their times."""
    found = hashlib.sha256(repr(module.alignment_heads.indices().tolist()).encode())
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What both wrote for one recording, and the starts of our words less those of openai-whisper's (seconds)."""

    path: str
    language: str
    ours: str
    theirs: str
    reference: str
    start_differences_s: tuple[float, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the texts are the same words."""
        return self.ours == self.theirs


def ours(engine: OfflineEngine, items: Sequence[Recording], detect: bool) -> Iterator[list[Event]]:
    """The events of our engine for each recording; the windows of all of `items` go through together."""
    recordings = []
    for item in items:
        settings = Settings() if detect else validate({"speech": {"language": item.language}})
        source = FileSource(str(item.path), realtime=False)
        recordings.append(Transcription(engine.model, settings, source.blocks(), hears=False))
    events: list[list[Event]] = [[] for _ in items]
    while waiting := [(place, one) for place, recording in enumerate(recordings) if (one := recording.request())]:
        for (place, _), result in zip(waiting, engine.step([one for _, one in waiting]), strict=True):
            events[place] += recordings[place].take(result)
    yield from (found + recording.finish() for found, recording in zip(events, recordings, strict=True))


def measure(model_path: str, items: Sequence[Recording], options: argparse.Namespace) -> dict[str, Any]:
    """Run both over all recordings; the report as plain data."""
    torch.set_num_threads(options.threads)
    theirs = whisper.load_model(model_path, device="cpu")
    engine = OfflineEngine(load_model(model_path, head=None, device="cpu", dtype=options.dtype))
    cost_ours = cost_theirs = audio_s = 0.0
    found: list[Found] = []
    for first in range(0, len(items), options.at_once):
        group = items[first : first + options.at_once]
        begun = time.process_time()
        written = list(ours(engine, group, options.detect))
        cost_ours += time.process_time() - begun
        for item, events in zip(group, written, strict=True):
            begun = time.process_time()
            samples = read_audio(str(item.path))
            language = None if options.detect else item.language
            result = whisper.transcribe(theirs, samples, language=language, fp16=False)
            cost_theirs += time.process_time() - begun
            audio_s += len(samples) / whisper.audio.SAMPLE_RATE
            if options.words:
                timed = whisper.transcribe(theirs, samples, language=language, fp16=False, word_timestamps=True)
            found.append(_found(item, events, result["text"], timed["segments"] if options.words else []))
            sys.stderr.write(f"{'equal' if found[-1].equal else 'DIFFERS'}  {item.path.name}\n")
    differences = [one for item in found for one in item.start_differences_s]
    return {
        "model": model_path,
        "files": len(found),
        "equal": sum(item.equal for item in found),
        "audio_s": round(audio_s, 1),
        "wer_ours": _word_error_rate((item.reference, item.ours) for item in found),
        "wer_theirs": _word_error_rate((item.reference, item.theirs) for item in found),
        "processor_ours": round(cost_ours / audio_s, 4),
        "processor_theirs": round(cost_theirs / audio_s, 4),
        "ratio": round(cost_ours / cost_theirs, 3),
        "words_compared": len(differences),
        "median_start_difference_s": round(median(map(abs, differences)), 3) if differences else None,
        "different": [asdict(item) for item in found if not item.equal],
    }


def _found(item: Recording, events: Sequence[Event], theirs: str, timed: Sequence[dict[str, Any]]) -> Found:
    normal = normaliser(item.language)
    finals = [event for event in events if isinstance(event, Transcript)]
    mine = normal(" ".join(event.text for event in finals))
    words = [(word.word, word.start) for event in finals for word in event.words]
    others = [(word["word"].strip(), word["start"]) for segment in timed for word in segment["words"]]
    matched = SequenceMatcher(None, [word for word, _ in words], [word for word, _ in others], autojunk=False)
    differences = [
        words[one.a + place][1] - others[one.b + place][1]
        for one in matched.get_matching_blocks()
        for place in range(one.size)
    ]
    return Found(item.path.name, item.language or "", mine, normal(theirs), normal(item.text), tuple(differences))


def _word_error_rate(pairs: Iterable[tuple[str, str]]) -> float | None:
    rate = total(word_errors(*pair) for pair in pairs).rate
    return None if rate is None else round(rate, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a .pt in openai-whisper's format")
    parser.add_argument("--data", required=True, type=Path, help="manifest, CSV")
    parser.add_argument("--sets", default="", help="only these sets, with commas between")
    parser.add_argument("--detect", action="store_true", help="do not tell the language")
    parser.add_argument("--words", action="store_true", help="compare word times with word_timestamps=True")
    parser.add_argument("--at-once", type=int, default=1, help="recordings that go through together")
    parser.add_argument("--dtype", default="float32", help="ours; openai-whisper's is float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the report here, as JSON")
    options = parser.parse_args(arguments)
    try:
        sets = [name for name in options.sets.split(",") if name]
        items = [item for item in chosen(read_recordings(options.data), sets) if item.language and item.text]
        if not items:
            raise UsageError(f"--data {options.data}: no recording has a language and a text")
        report = measure(options.model, items, options)
    except UsageError as error:
        sys.stderr.write(f"streamer: {error}\n")
        return 2
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(as_json(report), encoding="utf-8")
    sys.stdout.write(as_json(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`streamer eval asr`: word errors by jiwer, of the live engine and of openai-whisper on the same weights.

    streamer eval asr --model nano --manifest data/manifest.csv --split test --out build/eval
    streamer eval asr --model base --audio a.flac b.flac --refs a.txt b.txt
    streamer eval asr --model nano --scenes scenes

Texts are compared as lower-case words without punctuation. openai-whisper's English normaliser, which writes numbers as
figures and so joins spoken digits into one word, can be chosen for prose (`form` whisper).
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import whisper
from numpy.typing import NDArray
from whisper.model import Whisper

from streamer.audio.files import read_audio
from streamer.config import Settings
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Transcript
from streamer.model.checkpoint import load_model
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.training.extras import evaluation_library
from streamer.training.manifests import ManifestSettings, of_split, read_manifest
from streamer.training.progress import progress_bar
from streamer.training.reports import Report, Table, write_report

Listener = Literal["stream", "whisper"]
Writer = Callable[[NDArray[np.float32]], str]
_SCENE_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording and what is said in it (empty: nothing). `group`: its speaker, or the kind of scene."""

    path: Path
    text: str
    group: str = ""
    start_s: float = 0.0
    end_s: float | None = None

    def audio(self) -> NDArray[np.float32]:
        """Its samples, 16 kHz. Raises InputError."""
        end = None if self.end_s is None else round(self.end_s * SAMPLE_RATE)
        return read_audio(str(self.path))[round(self.start_s * SAMPLE_RATE) : end]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Counts of one listener over some utterances; `invented`: words where nothing is said, within `quiet_s`."""

    words: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    invented: int = 0
    quiet_s: float = 0.0

    @property
    def rate(self) -> float | None:
        """The word error rate; None without reference words."""
        wrong = self.substitutions + self.insertions + self.deletions
        return wrong / self.words if self.words else None

    def __add__(self, other: "WordErrors") -> "WordErrors":
        """The counts of both."""
        return WordErrors(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def main(
    model: str,
    out: Path,
    *,
    manifests: Sequence[ManifestSettings] = (),
    split: str = "test",
    scenes: Path | None = None,
    audio: Sequence[Path] = (),
    refs: Sequence[Path] = (),
    listeners: Sequence[Listener] = ("stream", "whisper"),
    form: Literal["plain", "whisper"] = "plain",
    settings: Settings | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
) -> Report:
    """Evaluate a model and write asr.json and asr.md into `out`. Raises InputError for data that is not there."""
    utterances = [
        *manifest_utterances(manifests, split),
        *(scene_utterances(scenes) if scenes else []),
        *file_utterances(audio, refs),
    ]
    if not utterances:
        raise InputError("nothing to evaluate: give a manifest with `text`, --scenes, or --audio with --refs")
    loaded = load_model(model, device=device, dtype=dtype)
    report = asr_report(
        loaded.name,
        {
            name: judge(writer(loaded, name, settings), utterances, form, label=name, progress=progress)
            for name in listeners
        },
    )
    write_report(report, out)
    return report


def manifest_utterances(manifests: Iterable[ManifestSettings], split: str) -> list[Utterance]:
    """The clips of a split that have a text, by speaker."""
    clips = [clip for each in manifests for clip in read_manifest(each).clips if clip.text]
    if not clips:
        return []
    return [Utterance(clip.path, clip.text, clip.speaker, clip.start_s, clip.end_s) for clip in of_split(clips, split)]


def scene_utterances(folder: Path) -> list[Utterance]:
    """Composed scenes, `NAME.flac` with `NAME.json` ({"words": [{"word": ...}]}), by the name without its number."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            words = [word["word"] for word in json.loads(path.read_text(encoding="utf-8"))["words"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"scene {path}: `words` with their `word` are needed") from error
        found.append(Utterance(path.with_suffix(".flac"), " ".join(words), _SCENE_NUMBER.sub("", path.stem)))
    if not found:
        raise InputError(f"--scenes {folder}: no NAME.json lies there")
    return found


def file_utterances(audio: Sequence[Path], refs: Sequence[Path]) -> list[Utterance]:
    """Recordings and, in the same order, the text files that say what is said in them."""
    if len(audio) != len(refs):
        raise InputError(f"--refs: {len(audio)} recordings need as many text files; {len(refs)} were given")
    try:
        return [
            Utterance(sound, ref.read_text(encoding="utf-8"), "files") for sound, ref in zip(audio, refs, strict=True)
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--refs: a text file cannot be read: {error}") from error


def writer(model: Model, listener: Listener, settings: Settings | None = None) -> Writer:
    """What writes down a recording: the live engine, or openai-whisper's `transcribe` at temperature 0."""
    if listener == "stream":
        return lambda samples: streamed_text(model, samples, settings)
    module = float32_module(model)
    spoken = settings.speech.languages if settings else ()
    language = spoken[0] if len(spoken) == 1 else None  # openai-whisper's own loop detects among all of them
    return lambda samples: str(
        whisper.transcribe(
            module, samples, temperature=0.0, language=language, fp16=False, condition_on_previous_text=False
        )["text"]
    )


def streamed_text(model: Model, samples: NDArray[np.float32], settings: Settings | None = None) -> str:
    """The final text of all segments that the live engine hears in a recording."""
    stream = Stream(model, settings)
    events = stream.push(samples) + stream.finish()
    return " ".join(event.text for event in events if isinstance(event, Transcript) and event.final)


def float32_module(model: Model) -> Whisper:
    """openai-whisper's own module with a model's weights in float32 on the CPU, for its own code to run."""
    module = Whisper(model.dims)
    module.load_state_dict({name: value.float().cpu() for name, value in model.module.state_dict().items()})
    module.register_buffer("alignment_heads", model.module.alignment_heads.cpu(), persistent=False)
    return module.eval()


def judge(
    write: Writer,
    utterances: Sequence[Utterance],
    form: str = "plain",
    *,
    label: str = "",
    progress: bool = False,
) -> dict[str, WordErrors]:
    """The word errors of each group, in the groups' order."""
    plain = normaliser(form)
    groups: dict[str, WordErrors] = {}
    with progress_bar(label, len(utterances), shown=progress) as advance:
        for utterance in utterances:
            samples = utterance.audio()
            errors = word_errors(plain(utterance.text), plain(write(samples)), len(samples) / SAMPLE_RATE)
            groups[utterance.group] = groups.get(utterance.group, WordErrors()) + errors
            advance(1)
    return groups


def word_errors(reference: str, heard: str, seconds: float = 0.0) -> WordErrors:
    """Counts by jiwer; where the reference is empty, every word heard is invented."""
    if not reference:
        return WordErrors(invented=len(heard.split()), quiet_s=seconds)
    measures = evaluation_library("jiwer").process_words(reference, heard)
    return WordErrors(len(reference.split()), measures.substitutions, measures.insertions, measures.deletions)


def asr_report(model: str, found: dict[str, dict[str, WordErrors]]) -> Report:
    """The report of what each listener's `judge` gave."""
    rows = []
    for listener, groups in found.items():
        total = sum(groups.values(), WordErrors())
        rows += [(listener, name, *_cells(errors)) for name, errors in [*sorted(groups.items()), ("all", total)]]
    columns = ("listener", "group", "words", "WER", "substituted", "inserted", "left out", "invented per minute")
    return Report(
        name="asr",
        title=f"Word errors of {model}",
        figures={"model": model, "rows": [dict(zip(columns, row, strict=True)) for row in rows]},
        sections=(("By group", Table(columns, tuple(rows))),),
    )


def _cells(errors: WordErrors) -> tuple[Any, ...]:
    per_minute = errors.invented / errors.quiet_s * 60 if errors.quiet_s else None
    return (errors.words, errors.rate, errors.substitutions, errors.insertions, errors.deletions, per_minute)


def normaliser(name: str) -> Callable[[str], str]:
    """How texts are made comparable: `plain` or `whisper`."""
    if name == "whisper":
        from whisper.normalizers import EnglishTextNormalizer

        return lambda text: str(EnglishTextNormalizer()(text))
    return lambda text: " ".join(re.findall(r"[\w']+", text.lower()))

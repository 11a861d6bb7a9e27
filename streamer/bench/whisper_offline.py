"""openai-whisper's own `transcribe` of whole recordings, kept on disk: what streaming is measured against.

A recording is read once for each model: the same audio with the same weights, threads and release of openai-whisper is
looked up from then on. Temperatures, thresholds and prompts are openai-whisper's defaults; its fallbacks draw random
numbers, which are seeded.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.model import Whisper

from streamer.measure.recordings import TrueWord
from streamer.model.checkpoint import load_model
from streamer.model.download import cache_root
from streamer.model.whisper import Model


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

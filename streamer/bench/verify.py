"""`streamer verify --model NAME`: proof on real weights, on the machine at hand, in one report.

    streamer verify --model base --audio talk.flac --refs talk.txt --out build/verify

Pulls the weights and the head and checks their hashes, compares with openai-whisper on the same float32 weights and
audio, and measures streaming against offline word errors. Without --audio the bundled demo is heard. What a hop costs
is said by `streamer bench hop`, how many streams this machine carries by `streamer bench throughput`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import whisper
from numpy.typing import NDArray
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FRAMES, N_SAMPLES, log_mel_spectrogram
from whisper.model import Whisper

from streamer.audio.files import demo_path
from streamer.audio.mel import MelFrames
from streamer.bench import speech
from streamer.bench.peers import float32_module
from streamer.errors import InputError
from streamer.events.plans import DecodeTask
from streamer.measure.recordings import Recording
from streamer.measure.report import Report, Table, publish
from streamer.model import catalog
from streamer.model.catalog import head_of, pull_head
from streamer.model.checkpoint import load_model
from streamer.model.decoding.search import AudioWindow, GreedySearch
from streamer.model.download import ProgressCallback, file_sha256
from streamer.model.encoder import TAP_POOL
from streamer.model.formats import place_of
from streamer.model.machine_facts import machine_facts
from streamer.model.whisper import Model
from streamer.settings.config import Settings

LEAST_SAMPLES = 16_000  # what is left of a recording is compared when it is as long as this


Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest differences over all windows of 30 s, padded as openai-whisper pads them.

    `logits` None: no head. `same_tokens` of `windows` had equal tokens; `first_other`: the first pair of texts that
    differ.
    """

    windows: int
    mel: float
    features: float
    taps: float
    logits: float | None
    same_tokens: int
    first_other: tuple[str, str] | None

    @property
    def holds(self) -> bool:
        """Whether all of it is equal within 1e-3 of float32 rounding, tokens exactly."""
        near = max(self.mel, self.features, self.taps, self.logits or 0.0) < 1e-3
        return near and self.same_tokens == self.windows


def compare(model: Model, recordings: Iterable[NDArray[np.float32]], *, max_windows: int = 20) -> Parity:
    """Compare on at most `max_windows` windows of the recordings (16 kHz). `model`: float32 on the CPU."""
    module = float32_module(model)
    search = GreedySearch(model)
    windows = _windows(recordings, max_windows)
    worst = [0.0, 0.0, 0.0, 0.0]
    same, other = 0, None
    for samples in windows:
        reference = log_mel_spectrogram(samples, model.dims.n_mels, padding=N_SAMPLES - len(samples))[:, :N_FRAMES]
        differences, features = _differences(model, module, samples, reference)
        worst = [max(old, new) for old, new in zip(worst, differences, strict=True)]
        ours, theirs = _tokens(model, search, module, features, reference)
        same += ours == theirs
        if ours != theirs and other is None:
            tokenizer = model.tokenizer()
            other = (tokenizer.decode(ours), tokenizer.decode(theirs))
    logits = worst[3] if model.head is not None else None
    return Parity(len(windows), worst[0], worst[1], worst[2], logits, same, other)


def _windows(recordings: Iterable[NDArray[np.float32]], most: int) -> list[NDArray[np.float32]]:
    found = [
        samples[begin : begin + N_SAMPLES] for samples in recordings for begin in range(0, len(samples), N_SAMPLES)
    ]
    return [samples for samples in found if len(samples) >= LEAST_SAMPLES][:most]


@torch.inference_mode()
def _differences(
    model: Model, module: Whisper, samples: NDArray[np.float32], reference: Tensor
) -> tuple[list[float], Tensor]:
    """Largest differences of mel, features, taps and logits on one window; and our features [1, frames, d]."""
    frames = MelFrames(model.dims.n_mels)
    frames.append(samples)
    mel = frames.window(0, len(samples), N_FRAMES)
    # openai-whisper pads before it takes the spectrogram, so that a last partial hop counts as a frame of its own.
    shared = min(len(samples) // HOP_LENGTH, N_FRAMES)
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for block in module.encoder.blocks
    ]
    try:
        their_features = module.encoder(reference[None])
    finally:
        for hook in hooks:
            hook.remove()
    features, taps = model.encode(reference[None])
    their_taps = torch.stack([F.avg_pool2d(output, (TAP_POOL, 1)) for output in outputs], dim=1)
    found = [
        _largest(mel[:, :shared], reference[:, :shared]),
        _largest(features, their_features),
        _largest(taps, their_taps),
        0.0,
    ]
    if model.head is not None:
        found[3] = _largest(model.tag(taps), model.head.module(their_taps))
    return found, features


def _tokens(
    model: Model, search: GreedySearch, module: Whisper, features: Tensor, mel: Tensor
) -> tuple[list[int], list[int]]:
    """Our greedy tokens and those of openai-whisper's `decode` at temperature 0."""
    options = whisper.DecodingOptions(
        language=None if model.is_multilingual else "en", without_timestamps=True, fp16=False, temperature=0.0
    )
    theirs = whisper.decode(module, mel, options)
    task = DecodeTask(language=theirs.language)
    (ours,) = search.decode([AudioWindow(features[0], features.shape[1])], [task])
    return list(ours.tokens), list(theirs.tokens)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def main(
    model: str,
    out: Path,
    *,
    audio: Sequence[Path] = (),
    refs: Sequence[Path] = (),
    head: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    download_progress: ProgressCallback | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Verify a model; verify.json and verify.md in `out`. `refs` empty: no word errors of `audio`.

    Raises DownloadError or CheckpointError where the weights are not what they should be, InputError for the audio.
    """
    recordings = _recordings(audio, refs)
    exact = load_model(model, head=head, device="cpu", dtype="float32", progress=download_progress)
    files = file_facts(model, head, exact)
    parity = compare(exact, [recording.samples() for recording in recordings])
    live = load_model(model, head=head, device=device, dtype=dtype)
    spoken = [recording for recording in recordings if recording.text]
    plan = speech.Plan({speech.STREAM: Settings()}, source=model, plain=not refs)  # the demo may be spoken digits
    heard = speech.measure(live, spoken, plan, say) if spoken else None
    report = _report(live, files, parity, heard)
    publish(report, out)
    return report


def file_facts(name: str, head: str, model: Model) -> list[Facts]:
    """Path, size, sha256 of the checkpoint and the head, and whether the hash is what it was promised to be."""
    known = name == catalog.BUNDLED or catalog.is_official(name)
    checkpoint = catalog.pull(name) if known else Path(name).expanduser()
    place = place_of(checkpoint)
    found = [_file("checkpoint", place.weights, _promised(name, place.weights))]
    if model.head is not None:
        path = Path(head).expanduser() if head != "auto" else place.head
        released = head_of(name) if head == "auto" and not path.is_file() else None
        path = pull_head(released) if released is not None else path
        found.append(_file("head", path, _described(path)))
    return found


def _promised(name: str, path: Path) -> str | None:
    if catalog.is_official(name):
        return catalog.promised_sha256(name, path)
    return _described(path)


def _described(path: Path) -> str | None:
    """The hash that the JSON beside a file gives."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = content.get("sha256") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def _file(part: str, path: Path, promised: str | None) -> Facts:
    found = file_sha256(path)
    verdict = "nothing to compare with" if promised is None else "as promised" if promised == found else "DIFFERENT"
    return {"part": part, "path": str(path), "bytes": path.stat().st_size, "sha256": found, "hash": verdict}


def _recordings(audio: Sequence[Path], refs: Sequence[Path]) -> list[Recording]:
    if refs and not audio:
        raise InputError("--refs: belong to recordings: give --audio too")
    if refs and len(refs) != len(audio):
        raise InputError(f"--refs: one for each --audio file is needed; {len(audio)} files, {len(refs)}")
    if not audio:
        demo = Path(demo_path())
        return [Recording(demo.name, demo, "demo", None, _demo_text(demo))]
    texts = [_text(path) for path in refs] or [""] * len(audio)
    return [Recording(str(path), path, "files", None, text) for path, text in zip(audio, texts, strict=True)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--refs {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--refs {path}: must be text in UTF-8") from None


def _demo_text(demo: Path) -> str:
    try:
        words = json.loads(demo.with_suffix(".json").read_text(encoding="utf-8")).get("words", [])
    except (OSError, ValueError):
        return ""
    return " ".join(word["word"] for word in words)


def _report(model: Model, files: list[Facts], parity: Parity, heard: Facts | None) -> Report:
    return Report(
        name="verify",
        title=f"{model.name} on this machine",
        about=_said(parity),
        result={
            "model": model.name,
            "head": model.head.name if model.head else None,
            "machine": machine_facts(torch.get_num_threads()),
            "files": files,
            "parity": asdict(parity) | {"holds": parity.holds},
            "speech": heard,
        },
        tables=(
            _table("Files", files),
            *(speech.report(heard).tables[:2] if heard else ()),
        ),
    )


def _said(parity: Parity) -> str:
    logits = "no head" if parity.logits is None else f"logits {parity.logits:.1e}"
    text = (
        f"{parity.windows} windows of 30 s, float32, largest differences: mel {parity.mel:.1e}, features "
        f"{parity.features:.1e}, taps {parity.taps:.1e}, {logits}. Tokens equal in {parity.same_tokens}. "
        f"{'Parity holds.' if parity.holds else 'PARITY DOES NOT HOLD.'}"
    )
    if parity.first_other is not None:
        text += f" First that differ: ours {parity.first_other[0]!r}, openai-whisper {parity.first_other[1]!r}."
    return text


def _table(caption: str, rows: Sequence[Facts]) -> Table:
    header = tuple(rows[0]) if rows else ()
    return Table(caption, header, [[row[name] for name in header] for row in rows])

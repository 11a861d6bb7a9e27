"""The taps of a frozen backbone for every clip of a manifest, computed once and kept in shards.

A clip of any length becomes windows of at most `window_s`; one that is shorter than `least_s` is followed by zeros up
to it. Windows go through the encoder as in the live engine: padded to 30 s for stock weights, as they are for
checkpoints with variable context (`context` auto), and the taps end where the audio ends.

A cache folder holds one subfolder for each way of making taps (`recipe_hash`: encoder weights, dtype, window, version
of this code). A shard is `NAME.npy` (all steps of its windows, [steps, layers, d]) and `NAME.json`, written last, which
says whose they are: sha256 of the file's content, start, end. A shard that is incomplete or damaged is computed again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.audio.files import read_audio
from streamer.audio.mel import FRAMES_PER_SECOND, MelFrames
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.model.download import file_sha256
from streamer.model.whisper import MIN_FRAMES, Model
from streamer.training.manifests import Clip
from streamer.training.processes import Processes, progress_bar

VERSION = 1  # of this code: taps made by another are not used
FRAME_SAMPLES = SAMPLE_RATE // FRAMES_PER_SECOND
STOCK_CONTEXT_S = 10.0  # least window, unpadded, for weights that were trained on padded ones

Context = Literal["auto", "padded", "fit"]


@dataclass(frozen=True, slots=True)
class TapRecipe:
    """How taps are made. `stored`: their type in the shards; seconds are of audio."""

    window_s: float = 10.0
    least_s: float = 1.0
    context: Context = "auto"
    stored: Literal["float16", "float32"] = "float16"
    clips_per_shard: int = 256


@dataclass(frozen=True, slots=True)
class TapWindow:
    """One window of a clip: its steps are [row, row + steps) of the shard; seconds are within the file."""

    clip: Clip
    shard: Path
    row: int
    steps: int
    start_s: float
    end_s: float


class TapSet:
    """The windows of some clips, in the clips' order, with their taps on disk. Shards are mapped, not read."""

    def __init__(self, windows: Sequence[TapWindow], layers: int, width: int) -> None:
        self.windows = tuple(windows)
        self.layers, self.width = layers, width
        self._shards: dict[Path, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.windows)

    def taps(self, index: int, first: int = 0, steps: int | None = None) -> Tensor:
        """Taps [layers, steps, d], float32, of one window: all steps, or `steps` of them from `first` on."""
        window = self.windows[index]
        shard = self._shards.get(window.shard)
        if shard is None:
            shard = self._shards[window.shard] = np.load(window.shard, mmap_mode="r")
        begin = window.row + first
        end = window.row + window.steps if steps is None else begin + steps
        return torch.from_numpy(np.array(shard[begin:end].transpose(1, 0, 2), np.float32))

    def labels(self, classes: int) -> NDArray[np.float32]:
        """Truth, float32 [windows, classes]: 1 where a window's clip has the label."""
        truth = np.zeros((len(self), classes), np.float32)
        for row, window in enumerate(self.windows):
            truth[row, list(window.clip.labels)] = 1
        return truth


@dataclass(frozen=True, slots=True)
class _Work:
    """A clip whose taps are to be had. `key`: content, start and end."""

    clip: Clip
    key: str
    sha256: str
    size: int
    mtime_ns: int


def clip_windows(model: Model, clip: Clip, recipe: TapRecipe) -> list[tuple[Tensor, float, float]]:
    """Fresh taps [layers, steps, d] of each window of a clip, float32 on the CPU, with start and end in seconds.

    One window at a time, so that the bits do not depend on what else is encoded. Raises InputError.
    """
    audio = _cut(read_audio(str(clip.path)), clip)
    longest = round(recipe.window_s * SAMPLE_RATE)
    found = []
    for begin in range(0, len(audio), longest):
        samples = audio[begin : begin + longest]
        if begin and len(samples) < recipe.least_s * SAMPLE_RATE:
            break  # the little that a long clip leaves over
        start = clip.start_s + begin / SAMPLE_RATE
        found.append((encode_audio(model, samples, recipe), start, start + len(samples) / SAMPLE_RATE))
    return found


def encode_audio(model: Model, samples: NDArray[np.float32], recipe: TapRecipe) -> Tensor:
    """Taps [layers, steps, d] of one window of audio [n] in 16 kHz, float32 on the CPU; see the module's docstring."""
    least = round(recipe.least_s * SAMPLE_RATE)
    if len(samples) < least:
        samples = np.pad(samples, (0, least - len(samples)))
    real = len(samples) // FRAME_SAMPLES
    frames = MelFrames(model.dims.n_mels)
    frames.append(samples)
    mel = frames.window(0, len(samples), _total_frames(model, real, recipe.context))
    encoded = model.encode_windows(mel[None], real_frames=[real], tag_spans_s=[recipe.window_s])
    taps = encoded.taps[0]
    if taps is None:
        raise InputError(f"least_s is {recipe.least_s:g}: at least 0.4 s (one tap step) are needed")
    return taps.float().cpu()


def recipe_hash(model: Model, recipe: TapRecipe) -> str:
    """What taps depend on beside the audio, as 16 hexadecimal digits."""
    made_by = {name: value for name, value in asdict(recipe).items() if name != "clips_per_shard"}
    made_by |= {"version": VERSION, "dtype": f"torch.{model.precision}", "device": model.device.type}
    made_by |= {"variable_context": model.variable_context, "min_context_s": model.min_context_s}
    made_by |= {"encoder": encoder_sha256(model)}
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]


def encoder_sha256(model: Model) -> str:
    """The hash of the encoder's sizes and weights as they are computed with."""
    digest = hashlib.sha256(json.dumps(vars(model.dims), sort_keys=True).encode())
    for name, tensor in sorted(model.module.encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached_taps(
    model: Model,
    clips: Sequence[Clip],
    cache: Path,
    recipe: TapRecipe,
    *,
    group: Processes | None = None,
    progress: bool = False,
) -> TapSet:
    """The taps of all clips, from the cache or computed into it; several processes share the work.

    Raises InputError for a recording that cannot be read.
    """
    group = group or Processes(0, 1, model.device)
    folder = cache / recipe_hash(model, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    index = _Index(folder)
    work = [index.identify(clip) for clip in clips]
    missing = list({item.key: item for item in work if item.key not in index.entries}.values())
    chunks = [missing[at : at + recipe.clips_per_shard] for at in range(0, len(missing), recipe.clips_per_shard)]
    group.wait()  # nobody may see the shards that are about to be written and so take other chunks
    with progress_bar("taps", len(missing), shown=progress and group.leads) as advance:
        for number, chunk in enumerate(chunks):
            if number % group.count == group.rank:
                _write_shard(model, chunk, folder, recipe)
                advance(len(chunk) * group.count)
    group.wait()
    entries = _Index(folder).entries
    windows = [window for item in work for window in entries[item.key].windows(item.clip)]
    return TapSet(windows, model.dims.n_audio_layer, model.dims.n_audio_state)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where the windows of one clip lie: (row, steps, start_s, end_s) each."""

    shard: Path
    places: tuple[tuple[int, int, float, float], ...]

    def windows(self, clip: Clip) -> Iterator[TapWindow]:
        return (TapWindow(clip, self.shard, *place) for place in self.places)


class _Index:
    """What the complete shards of a folder hold, and the hashes of the files they were made from."""

    def __init__(self, folder: Path) -> None:
        self.entries: dict[str, _Entry] = {}
        self._known: dict[str, tuple[int, int, str]] = {}
        for path in sorted(folder.glob("*.json")):
            self._read(path)

    def identify(self, clip: Clip) -> _Work:
        """A clip with the hash of its file, which is read unless its size and time are as they were."""
        try:
            status = clip.path.stat()
            known = self._known.get(str(clip.path))
            if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
                known = (status.st_size, status.st_mtime_ns, file_sha256(clip.path))
                self._known[str(clip.path)] = known
        except OSError as error:
            raise InputError(f"recording {clip.path} cannot be read: {error.strerror}") from error
        return _Work(clip, f"{known[2]} {clip.start_s} {clip.end_s}", known[2], *known[:2])

    def _read(self, path: Path) -> None:
        shard = path.with_suffix(".npy")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            steps = np.load(shard, mmap_mode="r").shape[0]
        except (OSError, ValueError, EOFError):
            return
        if steps != content["steps"]:
            return
        for item in content["clips"]:
            self.entries[item["key"]] = _Entry(shard, tuple(tuple(place) for place in item["windows"]))
            self._known[item["path"]] = (item["size"], item["mtime_ns"], item["sha256"])


def _write_shard(model: Model, chunk: Sequence[_Work], folder: Path, recipe: TapRecipe) -> None:
    name = hashlib.sha256("\n".join(item.key for item in chunk).encode()).hexdigest()[:16]
    parts: list[NDArray[Any]] = []
    clips, row = [], 0
    for item in chunk:
        places = []
        for taps, start_s, end_s in clip_windows(model, item.clip, recipe):
            parts.append(taps.transpose(0, 1).numpy().astype(recipe.stored))
            places.append((row, len(parts[-1]), start_s, end_s))
            row += len(parts[-1])
        facts = {"key": item.key, "path": str(item.clip.path), "sha256": item.sha256}
        clips.append(facts | {"size": item.size, "mtime_ns": item.mtime_ns, "windows": places})
    fresh = folder / f"{name}.part"
    with fresh.open("wb") as file:
        np.save(file, np.concatenate(parts))
    os.replace(fresh, folder / f"{name}.npy")
    fresh.write_text(json.dumps({"steps": row, "clips": clips}), encoding="utf-8")
    os.replace(fresh, folder / f"{name}.json")


def _cut(audio: NDArray[np.float32], clip: Clip) -> NDArray[np.float32]:
    first = round(clip.start_s * SAMPLE_RATE)
    cut = audio[first : None if clip.end_s is None else round(clip.end_s * SAMPLE_RATE)]
    if not len(cut):
        lasts = f"it lasts {len(audio) / SAMPLE_RATE:.2f} s"
        raise InputError(f"recording {clip.path} has no sound from {clip.start_s:g} s to {clip.end_s} s: {lasts}")
    return cut


def _total_frames(model: Model, real: int, context: Context) -> int:
    """How long a window is with the zeros behind it, as in `streamer.model.engine`."""
    longest: int = 2 * model.dims.n_audio_ctx
    if context == "padded" or (context == "auto" and not model.variable_context):
        return longest
    least = model.min_context_s if model.variable_context else STOCK_CONTEXT_S
    shortest = max(MIN_FRAMES, round(least * FRAMES_PER_SECOND))
    bucket = -(-max(real, shortest) // MIN_FRAMES) * MIN_FRAMES
    return min(bucket, longest)

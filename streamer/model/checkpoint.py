"""Loading a model: the bundled `nano`, an official openai-whisper name, or a checkpoint, with its tagging head.

A checkpoint is `X.pt` in openai-whisper's format; its description is `X.json`, its tagging head `X_at.pth`. Or it is a
folder, read by its `model.safetensors` (or the index of its shards: transformers) or `model.bin` (CTranslate2), or by
that file if it is given itself; its description is `streamer.json` in it, its head `at.pth`. A description may say more
than the checkpoint (see `ModelDescription`).
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from whisper.model import AudioEncoder, Whisper

from streamer.errors import DownloadError, UsageError
from streamer.model import catalog
from streamer.model.catalog import HEADS, head_of, pull_head
from streamer.model.context_adapter import bundled_adapter
from streamer.model.download import ProgressCallback
from streamer.model.formats import Place, place_of, read_checkpoint, set_alignment_heads
from streamer.model.head import TaggingHead, bundled_head, load_head
from streamer.model.linear import eight_bits_work
from streamer.model.memory import within_memory
from streamer.model.names import check_name
from streamer.model.tensor_files import read_description
from streamer.model.whisper import STOCK_MARGIN_FRAMES, Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
_COMPUTE = "--compute (device)"  # the option, and the argument

_log = logging.getLogger(__name__)


class ModelDescription(BaseModel):
    """What the JSON beside a checkpoint may say; other fields are for people.

    `variable_context`: trained on windows of `min_context_s` to 30 s, so that none needs padding. `alignment_heads`:
    [decoder layer, head] of the cross-attention that follows the words; by default what the
    checkpoint's format says of them, else the last half of the layers.
    `previous_text`: trained with earlier text before the transcript, as official models are (default: unless
    `variable_context`). `context_s`: how far a live window looks back at least, beyond the utterance
    (default 10; 2 with `variable_context`, whose windows begin with the utterance).
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    variable_context: bool = False
    min_context_s: float = Field(2.0, ge=0.4, le=30)
    alignment_heads: tuple[tuple[int, int], ...] | None = Field(None, min_length=1)
    previous_text: bool | None = None
    context_s: float | None = Field(None, ge=2, le=28)


def load_model(
    name_or_path: str | Path,
    *,
    head: str | Path | None = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    download_root: str | Path | None = None,
    progress: ProgressCallback | None = None,
    short_windows: bool = False,
    languages: Collection[str] = (),
) -> Model:
    """Load a model with its tagging head, ready to run.

    name_or_path: "nano" (bundled), an official openai-whisper name (downloaded once and verified), a `.pt` in
    openai-whisper's format, or a folder in CTranslate2's or transformers'. head: "auto" (the one that belongs to the
    model, where there is one and it can be had: ours for `tiny.en` and `base`, else the released one), "released", a
    path, a released head's name, None or "none". device: "auto", "cpu",
    "cuda". dtype: "auto" (float16 on CUDA; on CPUs bfloat16 where they have it natively, else int8, else float32) or a
    name; int8: float32 with products of 8-bit integers in the encoder, on CPUs.
    download_root: where downloads are kept (default: `download.cache_root()`); `progress` is told of them.
    short_windows: change official weights so that live windows need no 30 s, where it is known how (`context_adapter`)
    for all of the `languages` that come into question (empty: any).

    Raises CheckpointError (missing, damaged, not fitting), DownloadError, UsageError (device, dtype) or EngineError
    (too large for the device's memory), all one line.
    """
    target, number_type = compute_target(device, dtype)
    root = Path(download_root) if download_root is not None else None
    found = _locate(str(name_or_path), root, progress)
    module, description = _read(found)
    tagging = _find_head(found, module.encoder, head, root, progress)
    margin = STOCK_MARGIN_FRAMES
    spoken = frozenset(languages) if module.is_multilingual else frozenset({"en"})
    if short_windows and spoken and not description.variable_context:
        adapter = bundled_adapter(module.encoder)
        if adapter is not None and spoken <= adapter.languages:
            adapter.merge(module.encoder)
            margin = adapter.margin_frames
    with within_memory(f"the model {found.name}", target):
        return Model(
            module,
            name=found.name,
            head=tagging,
            device=target,
            dtype=number_type,
            variable_context=description.variable_context,
            min_context_s=description.min_context_s if description.variable_context else 30.0,
            previous_text=description.previous_text,
            context_s=description.context_s or (2.0 if description.variable_context else 10.0),
            margin_frames=margin,
        )


def load_module(name_or_path: str | Path) -> Whisper:
    """openai-whisper's own module of a name or path as `load_model` takes it, in float32 on the CPU. Raises as that."""
    return _read(_locate(str(name_or_path), None, None))[0].float()


def _read(found: "_Found") -> tuple[Whisper, ModelDescription]:
    """The backbone with its alignment heads, and what is said about it."""
    place = found.place
    description = read_description(place.description, ModelDescription)
    checkpoint = read_checkpoint(place.weights)
    if found.official:  # whatever the source: converters have been known to guess
        checkpoint.module.set_alignment_heads(catalog.alignment_heads(found.name))
    elif description.alignment_heads is not None:
        set_alignment_heads(checkpoint.module, description.alignment_heads, f"description {place.description}")
    elif checkpoint.alignment_heads is not None:
        set_alignment_heads(checkpoint.module, checkpoint.alignment_heads, f"checkpoint {place.weights}")
    return checkpoint.module, description


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a model lies. `official`: `name` is openai-whisper's, which knows its alignment heads."""

    name: str
    place: Place
    official: bool = False


def _locate(name: str, root: Path | None, progress: ProgressCallback | None) -> _Found:
    if name == catalog.BUNDLED:
        return _Found(name, place_of(catalog.bundled_path()))
    if catalog.is_official(name):
        path = catalog.pull_checkpoint(name, root=root, progress=progress)
        return _Found(name, place_of(path), official=True)
    check_name(name)
    place = place_of(Path(name).expanduser())
    return _Found(place.name, place)


def _find_head(
    found: _Found, encoder: AudioEncoder, head: str | Path | None, root: Path | None, progress: ProgressCallback | None
) -> TaggingHead | None:
    if head is None or str(head) == "none":
        return None
    if str(head) in HEADS:
        return load_head(pull_head(HEADS[str(head)], root=root, progress=progress))
    if str(head) not in ("auto", "released"):
        return load_head(Path(head).expanduser())
    if found.place.head.is_file():
        return load_head(found.place.head)
    if str(head) == "auto" and (bundled := bundled_head(encoder)) is not None:
        return bundled
    if not found.official:
        return None
    released = head_of(found.name)
    if released is None:
        _log.warning("no tagging head was ever released for %s: captions only", found.name)
        return None
    try:
        return load_head(pull_head(released, root=root, progress=progress, again=False))
    except DownloadError as error:
        _log.warning(
            "%s has no tagging head, captions only: %s; `streamer pull %s` tries again",
            found.name,
            error,
            found.name,
        )
        return None


def compute_target(
    compute: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[torch.device, torch.dtype]:
    """The device and the precision that `load_model` takes for `--compute` and `--dtype`.

    Raises UsageError for what is unknown or not there.
    """
    device = _device(compute)
    return device, _dtype(dtype, device)


def _device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"{_COMPUTE} {str(device)!r} is unknown: auto, cpu or cuda is needed") from error
    if found.type not in ("cpu", "cuda"):
        raise UsageError(f"{_COMPUTE} {str(device)!r} is not supported: auto, cpu or cuda is needed")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"{_COMPUTE} {str(device)!r}: this machine has no CUDA that PyTorch can use: give cpu or auto")
    return found


def _dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        if dtype not in DTYPES.values():
            raise UsageError(f"dtype {dtype} is not supported: {', '.join(DTYPES)} or auto is needed")
        return dtype
    if dtype != "auto":
        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is unknown: {', '.join(DTYPES)} or auto is needed")
        found = DTYPES[dtype]
        if found == torch.int8 and (device.type != "cpu" or not eight_bits_work()):
            raise UsageError(f"dtype int8: {device.type} does not multiply 8-bit integers fast here; give auto")
        return found
    if device.type == "cuda":
        return torch.float16
    if has_native_bfloat16():
        return torch.bfloat16
    return torch.int8 if eight_bits_work() else torch.float32


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AMX or AVX512-BF16); elsewhere it is slower than float32."""
    capabilities: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    probe: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch before 2.9
    return probe is not None and probe()

"""Loading a model: the bundled `nano`, an official openai-whisper name, or a checkpoint file, with its tagging head.

A checkpoint `X.pt` is openai-whisper's format (`dims` and `model_state_dict`); `X.json` beside it may say more (see
`ModelDescription`), and `X_at.pth` beside it is its tagging head.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

from streamer.errors import CheckpointError, DownloadError, UsageError
from streamer.model import catalog
from streamer.model.download import ProgressCallback
from streamer.model.head import TaggingHead, load_head
from streamer.model.memory import room_for
from streamer.model.weights import check_tensors, checked_tensors, load_safely, read_description
from streamer.model.whisper import Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMPUTE = "--compute (device)"  # the option, and the argument
VOCABULARIES = (51864, 51865, 51866)  # English, multilingual, multilingual with Cantonese

_log = logging.getLogger(__name__)


class ModelDescription(BaseModel):
    """What `X.json` beside a checkpoint may say; other fields are for people.

    `variable_context`: trained on windows of `min_context_s` to 30 s, so that none needs padding. `alignment_heads`:
    [decoder layer, head] of the cross-attention that follows the words; by default the last half of the layers.
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
) -> Model:
    """Load a model with its tagging head, ready to run.

    name_or_path: "nano" (bundled), an official openai-whisper name (downloaded once and verified), or a `.pt` in
    openai-whisper's format. head: "auto" (the one that belongs to the model, where there is one), a path, None or
    "none". device: "auto", "cpu", "cuda". dtype: "auto" (float16 on CUDA, bfloat16 on CPUs that have it natively, else
    float32) or a name. download_root: where downloads are kept (default: `catalog.cache_root()`); `progress` is told of
    them.

    Raises CheckpointError (missing, damaged, not fitting), DownloadError, UsageError (device, dtype) or EngineError
    (too large for the device's memory), all one line.
    """
    target, number_type = compute_target(device, dtype)
    root = Path(download_root) if download_root is not None else None
    found = _locate(str(name_or_path), root, progress)
    module, description = _read(found)
    tagging = _find_head(found, head, root, progress)
    with room_for(f"the model {found.name}", target):
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
        )


def _read(found: "_Found") -> tuple[Whisper, ModelDescription]:
    """The backbone with its alignment heads, and what is said about it."""
    beside = found.path.with_suffix(".json")
    description = read_description(beside, ModelDescription)
    module = read_whisper(found.path)
    if found.official:
        module.set_alignment_heads(catalog.alignment_heads(found.name))
    elif description.alignment_heads is not None:
        _set_alignment_heads(module, description.alignment_heads, beside)
    return module, description


def read_whisper(path: Path) -> Whisper:
    """A checkpoint in openai-whisper's format as its own module on the CPU, weights in the file's types.

    Position tables become float32. Raises CheckpointError with one line when it is missing, damaged or odd.
    """
    source = f"checkpoint {path}"
    content = load_safely(path, "checkpoint")
    if not isinstance(content, Mapping) or not {"dims", "model_state_dict"} <= content.keys():
        raise CheckpointError(f"{source} is not in openai-whisper's format: it lacks `dims` or `model_state_dict`")
    tensors = checked_tensors(content["model_state_dict"], source)
    dims = _checked_dims(content["dims"], tensors, source)
    with _WithoutInitialisation():
        module = Whisper(dims)
    check_tensors(tensors, module.state_dict(), source)
    module.load_state_dict({key: tensor.contiguous() for key, tensor in tensors.items()}, assign=True)
    module.encoder.positional_embedding = module.encoder.positional_embedding.float()
    return module


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves new weights as they lie in memory: all of them are about to be read from a file."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _checked_dims(dims: object, tensors: Mapping[str, Tensor], source: str) -> ModelDimensions:
    """Dimensions that agree with the tensors, so that nothing is built to the size of a damaged number."""
    names = [field.name for field in fields(ModelDimensions)]
    if not isinstance(dims, Mapping) or set(dims) != set(names):
        raise CheckpointError(f"{source}: `dims` must have exactly {', '.join(names)}")
    for name in names:
        if type(dims[name]) is not int or dims[name] < 1:
            raise CheckpointError(f"{source}: dims.{name} is {dims[name]!r}; a positive whole number is needed")
    found = ModelDimensions(**dims)
    if found.n_mels not in (80, 128):
        raise CheckpointError(f"{source}: dims.n_mels is {found.n_mels}; 80 or 128 is needed")
    if found.n_vocab not in VOCABULARIES:
        raise CheckpointError(f"{source}: dims.n_vocab is {found.n_vocab}; one of {VOCABULARIES} is needed")
    for part, width, heads in (
        ("audio", found.n_audio_state, found.n_audio_head),
        ("text", found.n_text_state, found.n_text_head),
    ):
        if width % heads:
            raise CheckpointError(f"{source}: dims.n_{part}_state {width} does not divide into {heads} heads")
    _compare_dims(found, tensors, source)
    return found


def _compare_dims(dims: ModelDimensions, tensors: Mapping[str, Tensor], source: str) -> None:
    shapes = {
        "encoder.conv1.weight": [dims.n_audio_state, dims.n_mels, 3],
        "encoder.positional_embedding": [dims.n_audio_ctx, dims.n_audio_state],
        "decoder.token_embedding.weight": [dims.n_vocab, dims.n_text_state],
        "decoder.positional_embedding": [dims.n_text_ctx, dims.n_text_state],
    }
    for key, shape in shapes.items():
        if key not in tensors:
            raise CheckpointError(f"{source} lacks `{key}`")
        if list(tensors[key].shape) != shape:
            raise CheckpointError(f"{source}: `{key}` has shape {list(tensors[key].shape)}, its dims say {shape}")
    for part, layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        found = {key.split(".")[2] for key in tensors if key.startswith(f"{part}.blocks.")}
        if len(found) != layers:
            raise CheckpointError(f"{source} has {len(found)} {part} blocks, its dims say {layers}")
    if dims.n_audio_state != dims.n_text_state:
        raise CheckpointError(f"{source}: audio width {dims.n_audio_state} and text width {dims.n_text_state} differ")


def _set_alignment_heads(module: Whisper, heads: tuple[tuple[int, int], ...], source: Path) -> None:
    mask = torch.zeros(module.dims.n_text_layer, module.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        if not (0 <= layer < mask.shape[0] and 0 <= head < mask.shape[1]):
            raise CheckpointError(
                f"description {source}: alignment_heads: [{layer}, {head}] does not exist: the decoder has "
                f"{mask.shape[0]} layers of {mask.shape[1]} heads"
            )
        mask[layer, head] = True
    module.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a model lies. `official`: `name` is openai-whisper's, which knows its alignment heads."""

    name: str
    path: Path
    official: bool = False


def _locate(name: str, root: Path | None, progress: ProgressCallback | None) -> _Found:
    if name == catalog.BUNDLED:
        return _Found(name, catalog.bundled_path())
    if catalog.is_official(name):
        return _Found(name, catalog.pull_checkpoint(name, root=root, progress=progress), official=True)
    path = Path(name).expanduser()
    if path.suffix != ".pt" and not path.exists():
        known = ", ".join([catalog.BUNDLED, *catalog.official_names()])
        raise CheckpointError(f"model {name} is neither a known name ({known}) nor a file")
    return _Found(path.stem, path)


def _find_head(
    found: _Found, head: str | Path | None, root: Path | None, progress: ProgressCallback | None
) -> TaggingHead | None:
    if head is None or str(head) == "none":
        return None
    if str(head) != "auto":
        return load_head(Path(head).expanduser())
    beside = found.path.with_name(f"{found.path.stem}_at.pth")
    if beside.is_file():
        return load_head(beside)
    if not found.official:
        return None
    released = catalog.head_of(found.name)
    if released is None:
        _log.warning("no tagging head was ever released for %s: captions only", found.name)
        return None
    try:
        return load_head(catalog.pull_head(released, root=root, progress=progress))
    except DownloadError as error:
        raise DownloadError(
            f"{error}; `streamer pull {found.name}` fetches the head, `--head none` goes without"
        ) from error


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
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if has_native_bfloat16() else torch.float32


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AMX or AVX512-BF16); elsewhere it is slower than float32."""
    capabilities: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    probe: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch before 2.9
    return probe is not None and probe()

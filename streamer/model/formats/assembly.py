"""From tensors under openai-whisper's names to its module: what every format has in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

from streamer.errors import CheckpointError
from streamer.model.tensor_files import check_tensors, checked_tensors

VOCABULARIES = (51864, 51865, 51866)  # English, multilingual, multilingual with Cantonese
HEAD_WIDTH = 64  # of every attention head that OpenAI trained

AlignmentHeads = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file held: the module, weights in the file's types, and the (decoder layer, head) that follow words.

    `alignment_heads` None: the file does not say; the module has openai-whisper's default, the last half of the layers.
    """

    module: Whisper
    alignment_heads: AlignmentHeads | None = None


def assemble(content: Any, dims: object, source: str) -> Whisper:
    """A module of the given dimensions around tensors by openai-whisper's names; its position tables become float32.

    Raises CheckpointError unless the dimensions are a Whisper's and the tensors are exactly those that they ask for.
    """
    tensors = checked_tensors(content, source)
    checked = _checked_dims(dims, tensors, source)
    with _WithoutInitialisation():
        module = Whisper(checked)
    check_tensors(tensors, module.state_dict(), source)
    module.load_state_dict({key: tensor.contiguous() for key, tensor in tensors.items()}, assign=True)
    module.encoder.positional_embedding = module.encoder.positional_embedding.float()
    return module


def measured_dims(
    tensors: Mapping[str, Tensor], source: str, audio_heads: int | None = None, text_heads: int | None = None
) -> dict[str, int]:
    """openai-whisper's dimensions, read off the shapes of tensors under its names.

    Heads that the file does not tell are 64 wide. Raises CheckpointError where a tensor that tells is missing or odd.
    """
    found = dict[str, tuple[int, ...]]()
    for key, rank in (
        ("encoder.conv1.weight", 3),
        ("encoder.positional_embedding", 2),
        ("decoder.token_embedding.weight", 2),
        ("decoder.positional_embedding", 2),
    ):
        if key not in tensors:
            raise CheckpointError(f"{source} lacks `{key}`")
        found[key] = tuple(tensors[key].shape)
        if len(found[key]) != rank:
            raise CheckpointError(f"{source}: `{key}` has shape {list(found[key])}; {rank} dimensions are needed")
    audio_width, mels, _ = found["encoder.conv1.weight"]
    vocabulary, text_width = found["decoder.token_embedding.weight"]
    return {
        "n_mels": mels,
        "n_audio_ctx": found["encoder.positional_embedding"][0],
        "n_audio_state": audio_width,
        "n_audio_head": audio_heads or max(1, audio_width // HEAD_WIDTH),
        "n_audio_layer": _blocks(tensors, "encoder"),
        "n_vocab": vocabulary,
        "n_text_ctx": found["decoder.positional_embedding"][0],
        "n_text_state": text_width,
        "n_text_head": text_heads or max(1, text_width // HEAD_WIDTH),
        "n_text_layer": _blocks(tensors, "decoder"),
    }


def set_alignment_heads(module: Whisper, heads: Sequence[tuple[int, int]], source: str) -> None:
    """Mark (decoder layer, head) as those that follow the words; CheckpointError, naming `source`, for one too many."""
    mask = torch.zeros(module.dims.n_text_layer, module.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        if not (0 <= layer < mask.shape[0] and 0 <= head < mask.shape[1]):
            raise CheckpointError(
                f"{source}: alignment_heads: [{layer}, {head}] does not exist: the decoder has "
                f"{mask.shape[0]} layers of {mask.shape[1]} heads"
            )
        mask[layer, head] = True
    module.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)


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
        found = _blocks(tensors, part)
        if found != layers:
            raise CheckpointError(f"{source} has {found} {part} blocks, its dims say {layers}")
    if dims.n_audio_state != dims.n_text_state:
        raise CheckpointError(f"{source}: audio width {dims.n_audio_state} and text width {dims.n_text_state} differ")


def _blocks(tensors: Mapping[str, Tensor], part: str) -> int:
    return len({key.split(".")[2] for key in tensors if key.startswith(f"{part}.blocks.")})

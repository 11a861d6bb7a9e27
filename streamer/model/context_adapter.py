"""Low-rank differences that let an official encoder hear short windows: official weights want 30 s of input.

Made by `streamer train context`, bundled as `data/context/NAME.safetensors`, a few MB each: for each matrix of the
encoder's attention and MLPs `up` [out, rank] and `down` [rank, in], whose product is added to it once, when the model
is loaded. The file says for which encoder it was made (a sha256 of its weights in float16, so that every format of the
same weights fits) and how many mel frames of zeros a window needs behind its audio.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from whisper.model import AudioEncoder

from streamer.model.encoder import encoder_sha256


@dataclass(frozen=True, slots=True)
class ContextAdapter:
    """Differences for one encoder. `parts`: by matrix, (up, down); `margin_frames`: of zeros behind a window.

    `languages`: those that it was taught well enough; in others it reads worse than the weights as they are.
    """

    encoder_sha256: str
    margin_frames: int
    languages: frozenset[str]
    parts: Mapping[str, tuple[Tensor, Tensor]]

    def merge(self, encoder: AudioEncoder) -> None:
        """Add the differences to the encoder's matrices, in place."""
        for name, module in adapted_matrices(encoder):
            up, down = self.parts[name]
            module.weight.data += (up.float() @ down.float()).to(module.weight)


def adapted_matrices(encoder: AudioEncoder) -> Iterator[tuple[str, nn.Linear]]:
    """The matrices that have differences, by name: of attention and of the MLPs of every block."""
    for name, module in encoder.blocks.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def read_adapter(path: Path) -> ContextAdapter:
    """An adapter from its file. Raises OSError or safetensors' error."""
    with safe_open(str(path), framework="pt") as stored:
        facts = stored.metadata()
        names = {key.rpartition(".")[0] for key in stored.keys()}  # noqa: SIM118  not a mapping
        parts = {name: (stored.get_tensor(f"{name}.up"), stored.get_tensor(f"{name}.down")) for name in names}
    return ContextAdapter(
        facts["encoder_sha256"], int(facts["margin_frames"]), frozenset(facts["languages"].split()), parts
    )


def bundled_adapter(encoder: AudioEncoder) -> ContextAdapter | None:
    """The adapter that comes with Streamer for these weights, or None. Only weights of a fitting shape are hashed."""
    folder = files("streamer") / "data" / "context"
    shape = f"{len(encoder.blocks)}x{encoder.ln_post.weight.shape[0]}"
    for item in folder.iterdir() if folder.is_dir() else ():
        if not item.name.endswith(".safetensors"):
            continue
        with as_file(item) as path, safe_open(str(path), framework="pt") as stored:
            facts = stored.metadata()
        if facts["shape"] == shape and facts["encoder_sha256"] == encoder_sha256(encoder):
            with as_file(item) as path:
                return read_adapter(path)
    return None

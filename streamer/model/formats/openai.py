"""openai-whisper's own format: one `.pt` with `dims` and `model_state_dict`."""

from collections.abc import Mapping
from pathlib import Path

from whisper.model import Whisper

from streamer.errors import CheckpointError
from streamer.model.formats.assembly import assemble
from streamer.model.weights import load_safely


def read_whisper(path: Path) -> Whisper:
    """A checkpoint in openai-whisper's format as its own module on the CPU, weights in the file's types.

    Position tables become float32. Raises CheckpointError with one line when it is missing, damaged or odd.
    """
    source = f"checkpoint {path}"
    content = load_safely(path, "checkpoint")
    if not isinstance(content, Mapping) or not {"dims", "model_state_dict"} <= content.keys():
        raise CheckpointError(f"{source} is not in openai-whisper's format: it lacks `dims` or `model_state_dict`")
    return assemble(content["model_state_dict"], content["dims"], source)

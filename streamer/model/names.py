"""Which names are models, told without torch: importing it takes seconds, in which nobody is told of a wrong name."""

from pathlib import Path

from streamer.errors import CheckpointError, meant
from streamer.model.sources import HUB

BUNDLED = "nano"
AUTO = "auto"
OFFICIAL = tuple(HUB)  # openai-whisper's, as `catalog.official_names`, which asks openai-whisper


def check_name(name: str) -> None:
    """Refuse what can be no model: neither a name nor, on this machine, a file or folder. Raises CheckpointError."""
    known = [BUNDLED, *OFFICIAL]
    if name in (AUTO, *known):
        return
    path = Path(name).expanduser()
    try:
        there = path.exists()
    except OSError as error:  # in a folder that may not be read: whoever reads it says so
        there = isinstance(error, PermissionError)
    if there:
        return
    if path.suffix == ".pt":
        raise CheckpointError(f"checkpoint {path} does not exist")
    raise CheckpointError(
        f"model {name} is neither a known name ({', '.join(known)}) nor a file or folder{meant(name, known)}"
    )

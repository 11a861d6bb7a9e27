"""Where models and heads are fetched from, how patiently, and where they are kept."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from streamer.model.download import Patience

CHECKPOINTS_URL = "https://openaipublic.azureedge.net/main/whisper/models"
HEADS_URL = "https://www.dropbox.com/s"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to fetch from: mirrors with the publishers' paths under other addresses, and how patiently.

    `hub_url` None: $HF_ENDPOINT or the Hugging Face hub. `pip_options`: more options for `pip download`.
    `answer_s`: within how many seconds a publisher has to answer at all; where none does, the next one is tried.
    """

    checkpoints_url: str = CHECKPOINTS_URL
    heads_url: str = HEADS_URL
    hub_url: str | None = None
    pip_options: tuple[str, ...] = ()
    patience: Patience = field(default_factory=Patience)
    answer_s: float = 5.0


PUBLISHED = Sources()


def cache_root() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/streamer, else ~/.cache/streamer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamer"

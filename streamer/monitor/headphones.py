"""Which outputs somebody said are headphones: from a loudspeaker the sound would come back into the microphone."""

import json
import os
from pathlib import Path

from streamer.errors import UsageError
from streamer.settings.deliveries import make_private, state_directory


def require(output: str, *, confirmed: bool, directory: Path | None = None) -> None:
    """Remember that this output is headphones where that is `confirmed`; UsageError where nobody ever said so."""
    path = (directory or state_directory()) / "headphones.json"
    known = _known(path)
    if output in known:
        return
    if not confirmed:
        raise UsageError(
            f"--monitor: put headphones on {output!r}, turn it down, and say so once with --headphones: from a "
            "loudspeaker the sound comes back into the microphone and howls"
        )
    make_private(path.parent)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(sorted({*known, output}), ensure_ascii=False) + "\n")


def _known(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()

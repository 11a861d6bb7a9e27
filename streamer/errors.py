"""The exceptions of Streamer.

    StreamerError
    ├── UsageError            a wrong option, setting or input: exit status 2, one line, never a traceback
    │   ├── ConfigError       a setting; the message starts with the key's full path
    │   ├── InputError        an audio file, device or stream that cannot be used
    │   └── CheckpointError   a model or head file that is missing, damaged or does not fit
    ├── DownloadError         a file could not be fetched or is not what its publisher promised
    ├── DeviceLost            the capture device went away while it was in use
    └── EngineError           the model could not do its work (a failed warm-up, a damaged checkpoint)
        └── DeviceFailed      what it runs on cannot go on (no memory for one window, lost, a kernel failed)

Every message is one line that names the option, key, file or device and says what would be right.
`meant` adds what was probably meant. `Rests` says how long what failed is left alone before it is tried again,
`Backoff` counts the failures.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

STEADY_S = 60.0  # what went well for so long after the last rest begins anew with the shortest


class StreamerError(Exception):
    """Base of all errors that Streamer raises on purpose."""


class UsageError(StreamerError):
    """The person or the calling program gave something that cannot work; exit status 2."""


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or impossible."""


class InputError(UsageError):
    """An audio file, device or stream cannot be opened or read."""


class CheckpointError(UsageError):
    """A checkpoint or tagging head is missing, damaged or does not fit."""


class DownloadError(StreamerError):
    """A download failed or its content is not what was promised."""


class DeviceLost(StreamerError):  # noqa: N818 what happened, not what was wrong
    """The capture device stopped delivering audio or disappeared."""


class EngineError(StreamerError):
    """The model cannot run: the warm-up failed, memory ran out."""


class DeviceFailed(EngineError):  # noqa: N818 what happened, not what was wrong
    """The device cannot go on: no memory for even one window, it is lost, or a kernel failed. Another one may."""


def meant(given: str, known: Collection[str]) -> str:
    """What a message ends with where a name is unknown: `; did you mean base?`, or nothing where none is like it.

    The dashes of options make none alike.
    """
    names = {name.casefold().lstrip("-"): name for name in known}
    alike = get_close_matches(given.casefold().lstrip("-"), names, n=1)
    return f"; did you mean {names[alike[0]]}?" if alike else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rests:
    """Rests between attempts: `first_s` after the first failure, twice as long after each further one, at most
    `longest_s`.
    """

    first_s: float = 0.5
    longest_s: float = 30.0

    def rest_s(self, failures: int, chance: float = 1.0, asked_s: float | None = None) -> float:
        """The rest after so many failures in a row. `asked_s`: what the service asked for.

        `chance` (0..1) makes it half as long to whole, so that many clients of one service do not come back at once.
        """
        whole_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return max(whole_s * (0.5 + chance / 2), min(asked_s or 0.0, self.longest_s))


RESTS = Rests()


class Backoff:
    """The failures in a row of one thing (pure; times are the caller's)."""

    def __init__(self) -> None:
        self._count = 0
        self._rested_s = float("-inf")  # until when

    def rest_s(self, now_s: float) -> float:
        """It failed again, now: the seconds to wait."""
        self._count = 1 if now_s - self._rested_s > STEADY_S else self._count + 1
        rest_s = RESTS.rest_s(self._count)
        self._rested_s = now_s + rest_s
        return rest_s

    def went_well(self) -> None:
        """The next failure is the first."""
        self._count = 0

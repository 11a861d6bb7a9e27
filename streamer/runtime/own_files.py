"""Each file that a run writes is its alone: no other output's, and no recording that is heard.

Looked at before any of them is opened: reading a history that is something else would cut it, and a lock that is held
by this very program looks like another program's.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamer.alerts.history import history_path
from streamer.errors import UsageError
from streamer.output.outlet import file_targets
from streamer.runtime.event_log import event_log_paths
from streamer.runtime.inputs import Input
from streamer.settings.config import Settings


def check_files(settings: Settings, inputs: Sequence[Input], *, keeps_events: bool) -> None:
    """Raise UsageError that names both options where two things would go into one file, or one over an input.

    `keeps_events`: whether the events' history is written in this run.
    """
    taken = dict[object, str]()
    for item in inputs:
        heard = item.settings.audio.input
        if heard is not None and Path(heard).is_file():
            taken[_identity(Path(heard))] = f"{item.path}.input" if item.path else "--input"
    for option, path in _written(settings, [item.name for item in inputs], keeps_events):
        identity = _identity(path)
        if identity is None:
            continue
        if identity in taken:
            raise UsageError(f"{option} {path}: is what {taken[identity]} names too; give each a file of its own")
        taken[identity] = option


def _written(settings: Settings, sessions: Sequence[str], keeps_events: bool) -> Iterator[tuple[str, Path]]:
    """Option or setting, and file."""
    if settings.delivery.history.record != "never":
        yield "delivery.history.path", history_path(settings.delivery.history)
    if keeps_events:
        for path in event_log_paths(settings.history):
            yield "history.path", path
    for kind, _, name in file_targets(settings.output, sessions):
        if name != "-":
            yield f"--{kind}", Path(name)


def _identity(path: Path) -> object:
    """What all names of one file share; None: a device or pipe, which takes from many, or no name at all."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    except ValueError:
        return None  # whoever opens it says so
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None

"""A program that is started for each alert: the simplest sink.

Its arguments are those of the settings, as they are: no shell, and nothing that was heard gets into them. The event
comes as one line of JSON on stdin and as environment variables STREAMER_*; those that hold our secrets are left out.
Runs in its delivery's threads; each waits for the program it started.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from streamer.alerts.delivery import RefusedError, Target
from streamer.alerts.parcels import Parcel
from streamer.alerts.wording import body, title
from streamer.errors import ConfigError
from streamer.events import Alert
from streamer.output.plain_text import clean

END_S = 1.0  # from asking a program to end to ending it


class Command(Target):
    """One program. `argv`: it and its arguments; `hidden`: environment variables that it does not get."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        names: Mapping[str, str],
        timeout_s: float,
        path: str,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        """Raises ConfigError where there is no such program."""
        self.name = f"command {name}"
        program = shutil.which(os.path.expanduser(argv[0]))
        if program is None:
            raise ConfigError(f"{path}.argv[0]: {argv[0]!r} is no program that can be started; give its full path")
        self._argv = [os.path.abspath(program), *argv[1:]]
        self._names, self._timeout_s, self._hidden = names, timeout_s, hidden

    def send(self, parcel: Parcel) -> None:
        """Start it and wait for its end. Raises RefusedError: what failed once is not started again."""
        environment = {name: value for name, value in os.environ.items() if name not in self._hidden}
        environment |= variables(parcel, self._names)
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise RefusedError(f"it could not be started: {error.strerror}") from None
        try:
            process.communicate((parcel.alert.to_json() + "\n").encode(), timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise RefusedError(f"it did not end within {self._timeout_s:g} s") from None
        if process.returncode != 0:
            raise RefusedError(f"it ended with status {process.returncode}")


def variables(parcel: Parcel, names: Mapping[str, str]) -> dict[str, str]:
    """The event's fields as environment variables: text without control characters, times in seconds."""
    alert: Alert = parcel.alert
    fields = {
        "SESSION": alert.session,
        "ID": str(alert.id),
        "KEY": parcel.key,
        "RULE": alert.rule,
        "SEVERITY": alert.severity,
        "STATE": alert.state,
        "START": f"{alert.start:.3f}",
        "END": "" if alert.end is None else f"{alert.end:.3f}",
        "SCORE": f"{alert.score:.4f}",
        "LABELS": "; ".join(alert.labels),
        "HEARD": "; ".join(f"{tag.label} {tag.score:.2f}" for tag in alert.heard),
        "TEXT": alert.text,
        "TITLE": title(alert, names),
    }
    plain = {f"STREAMER_{name}": clean(value) for name, value in fields.items()}
    return plain | {"STREAMER_BODY": body(alert)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and everything it started: first asked, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdin is not None:
        process.stdin.close()
    process.wait()

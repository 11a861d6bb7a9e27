"""What is being loaded: a bar on a terminal, plain lines elsewhere. Not thread-safe: who loads shows it."""

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamer.model.loading import LoadStep
from streamer.output.terminal import is_terminal

MEGABYTE = 1_000_000


class LoadingView:
    """Shows steps on `stream`; nothing is left of the bar once it is closed. `brief`: lines of slow steps only."""

    def __init__(self, stream: TextIO, *, brief: bool = False) -> None:
        self._stream, self._brief, self._said = stream, brief, ""
        self._bar: Progress | None = None
        if is_terminal(stream):
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[size]}"))
            console = Console(file=stream, highlight=False, markup=False)
            self._bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task("", total=None, size="", visible=False)

    def show(self, step: LoadStep) -> None:
        """Show what is being done."""
        if self._bar is None:
            if step.what != self._said and (step.slow or not self._brief):
                self._stream.write(f"{step.what} …\n")
                self._stream.flush()
        else:
            if step.what != self._said:
                self._bar.reset(self._task, description=f"{step.what} …", total=None, size="", visible=True)
            self._bar.start()
            if step.received_bytes is not None:
                self._bar.update(self._task, total=step.total_bytes, completed=step.received_bytes, size=_size(step))
        self._said = step.what

    def close(self) -> None:
        """Take the bar away; any number of times. Another step brings it back."""
        if self._bar is not None:
            self._bar.stop()


def _size(step: LoadStep) -> str:
    """How much of a download is here, in megabytes."""
    here = f"{(step.received_bytes or 0) / MEGABYTE:.0f}"
    return f"{here} MB" if step.total_bytes is None else f"{here} of {step.total_bytes / MEGABYTE:.0f} MB"

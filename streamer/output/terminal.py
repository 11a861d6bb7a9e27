"""The terminal view: captions that scroll up, and below them what is being said, sounds, alerts, level and lag.

On a terminal, finished segments become normal lines; the lines at the bottom are redrawn in place. Elsewhere (a pipe, a
log) there is one plain line for each finished segment, sound and alert. While the model is loaded: a bar, or plain
lines. Not thread-safe: one thread shows everything, and who loads shows that.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from streamer.events import UNCLEAR, Alert, Event, Gap, Sound, Status, Transcript
from streamer.model.download import LoadStep
from streamer.output.plain_text import clean

PARTIAL_LINES = 3  # of the segment that is being spoken; its end is what counts
MAX_SPOKEN = 2_000  # characters of it that are looked at
MAX_SHOWN = 4  # sounds or alerts at once
QUIET_DBFS = -60.0  # the left end of the level meter
METER_CELLS = 20
MEGABYTE = 1_000_000
_STATES = {
    "starting": "starting",
    "listening": "listening",
    "no_audio": "NO AUDIO",
    "degraded": "DEGRADED",
    "stopped": "stopped",
}
_BANNERS = {"critical": "bold white on red", "warning": "bold black on yellow", "info": "bold"}


@dataclass(slots=True)
class _Picture:
    """What the live lines show."""

    committed: str = ""
    partial: str = ""
    state: str = "starting"
    detail: str = ""
    level_dbfs: int | None = None
    lag_s: float = 0.0


class TerminalView:
    """Shows events on `stream`. `live` None: live lines if it is a terminal. A reader that goes away ends it quietly.

    `width` and `height` fix the size, in columns and lines, that is otherwise the terminal's at each moment.
    """

    def __init__(
        self, stream: TextIO, *, live: bool | None = None, width: int | None = None, height: int | None = None
    ) -> None:
        self._live_wanted = is_terminal(stream) if live is None else live
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
        self._stream: TextIO | None = stream
        self._console = Console(
            file=stream,
            force_terminal=self._live_wanted,
            no_color=bool(os.environ.get("NO_COLOR")),
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
            width=width,
            height=height,
        )
        self._picture = _Picture()
        self._sounds: dict[tuple[str, int], str] = {}
        self._alerts: dict[tuple[str, int], Alert] = {}
        self._live: Live | None = None
        if self._live_wanted:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._try(self._live.start)

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Transcript():
                self._transcript(event)
            case Sound():
                self._sound(event)
            case Alert():
                self._alert(event)
            case Status():
                self._picture.state, self._picture.detail = event.state, clean(event.detail)
                told = event.state == "listening" and event.detail  # said once: it must not pass with the next state
                if told or (self._live is None and event.state in ("no_audio", "degraded")):
                    self._line(f"{_STATES[event.state]} {clean(event.detail)}".rstrip(), "dim")
            case Gap():
                self._line(f"… {event.end - event.start:.1f} s of sound lost: {clean(event.reason)}", "dim")
        self._refresh()

    def show_meter(self, level_dbfs: float | None, lag_s: float) -> None:
        """Show how loud it is (dB below full scale; None: unknown) and how many seconds the worker is behind."""
        level = None if level_dbfs is None else round(level_dbfs)
        lag = round(lag_s, 1)
        if (level, lag) != (self._picture.level_dbfs, self._picture.lag_s):
            self._picture.level_dbfs, self._picture.lag_s = level, lag
            self._refresh()

    def close(self) -> None:
        """Leave the terminal as a normal one; any number of times."""
        live, self._live = self._live, None
        if live is not None:
            self._try(live.stop)
        self._stream = None

    def _transcript(self, event: Transcript) -> None:
        if not event.final:
            self._picture.committed, self._picture.partial = clean(event.text), clean(event.partial)
            return
        self._picture.committed = self._picture.partial = ""
        text = clean(event.text)
        if text or event.unclear:
            self._line(text, "bold", UNCLEAR if event.unclear else "")

    def _sound(self, event: Sound) -> None:
        key = (event.session, event.id)
        if event.state == "end":
            self._sounds.pop(key, None)
            return
        self._sounds[key] = clean(event.label)
        self._line(f"[{clean(event.label)}]", "cyan")

    def _alert(self, event: Alert) -> None:
        key = (event.session, event.id)
        if event.state == "cleared":
            self._alerts.pop(key, None)
        else:
            self._alerts[key] = event
        if event.state != "updated":
            self._line(_alert_line(event), "bold" if event.state == "raised" else "dim")
        if event.state == "raised" and event.severity == "critical" and self._live is not None:
            self._try(self._console.bell)

    def _line(self, text: str, style: str, remark: str = "") -> None:
        """One line, with a dim remark behind it."""
        gap = " " if text and remark else ""
        if self._live is None:
            self._try(lambda: self._plain(text + gap + remark))
        else:
            self._try(lambda: self._console.print(Text.assemble((text, style), (gap + remark, "dim"))))

    def _plain(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _refresh(self) -> None:
        live = self._live
        if live is not None:
            self._try(lambda: live.update(Group(*self._rows()), refresh=True))

    def _rows(self) -> Iterator[Text]:
        """The live lines, top to bottom, each no wider than the terminal is now."""
        width, picture = max(1, self._console.width), self._picture
        for alert in list(self._alerts.values())[-MAX_SHOWN:]:
            seen = ", seen" if alert.state == "acknowledged" else ""
            banner = f" ALERT {_rule(alert)} ({alert.severity}) since {_clock(alert.start)}{seen} "
            yield _cut(banner, width, _BANNERS[alert.severity])
        spoken = Text()
        spoken.append(picture.committed[-MAX_SPOKEN:], "bold")
        if picture.partial:
            spoken.append((" " if picture.committed else "") + picture.partial[-MAX_SPOKEN:], "dim")
        if spoken:
            yield from spoken.wrap(self._console, width)[-PARTIAL_LINES:]
        sounds = " ".join(f"[{label}]" for label in list(self._sounds.values())[-MAX_SHOWN:])
        yield _cut("  ".join(filter(None, (_status(picture, width), sounds))), width, "dim")

    def _try(self, write: Callable[[], object]) -> None:
        """Write; when nobody reads any more, show nothing from now on and say nothing."""
        if self._stream is None:
            return
        try:
            write()
        except (BrokenPipeError, ValueError):
            self._live = self._stream = None


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


def is_terminal(stream: TextIO) -> bool:
    """Whether lines can be redrawn there."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _status(picture: _Picture, width: int) -> str:
    """The level meter, the lag and the state; without the meter where it is narrow."""
    state = _STATES[picture.state] + (f": {picture.detail}" if picture.detail else "")
    parts = [state, f"lag {picture.lag_s:.1f} s"]
    if picture.level_dbfs is not None and width >= 2 * METER_CELLS:
        share = 1 - max(QUIET_DBFS, min(0, picture.level_dbfs)) / QUIET_DBFS
        filled = round(share * METER_CELLS)
        parts.insert(0, "▮" * filled + "▯" * (METER_CELLS - filled) + f" {max(picture.level_dbfs, -99):4.0f} dB")
    return "  ".join(parts)


def _alert_line(event: Alert) -> str:
    at = event.start if event.end is None else event.end
    heard = ", ".join(clean(label) for label in event.labels)
    because = f": {heard}" if heard and event.state == "raised" else ""
    return f"ALERT {_rule(event)} ({event.severity}) {event.state} at {_clock(at)}{because}"


def _rule(event: Alert) -> str:
    return clean(event.rule).replace("_", " ")


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02d}" if whole >= 3600 else str(whole // 60)
    return f"{hours}:{whole % 60:02d}"


def _cut(line: str, width: int, style: str) -> Text:
    """`line` in at most `width` columns, with an ellipsis where something is left out."""
    text = Text(line, style)
    text.truncate(width, overflow="ellipsis")
    return text


def _size(step: LoadStep) -> str:
    """How much of a download is here, in megabytes."""
    here = f"{(step.received_bytes or 0) / MEGABYTE:.0f}"
    return f"{here} MB" if step.total_bytes is None else f"{here} of {step.total_bytes / MEGABYTE:.0f} MB"

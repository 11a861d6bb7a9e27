"""Numbers for Prometheus, in its text format (https://prometheus.io/docs/instrumenting/exposition_formats/, 0.0.4).

Pure: counts what it is told and writes it down. Not for several threads at once; the server tells it under its lock.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from streamer.events import Alert, Event, Gap, Status
from streamer.server.hub import Reader
from streamer.server.messages import SessionHealth

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
Sample = tuple[str, float]  # what stands behind the name ("" or `{label="value"}`), value


@dataclass(slots=True)
class Histogram:
    """How many values were at most as large as each of the bounds."""

    bounds: tuple[float, ...] = BOUNDS_S
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, count: int = 1) -> None:
        """One more value, or so many."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count


class Metrics:
    """The counters of one server. `began_s`: Unix time of its start."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._events: Counter[str] = Counter()
        self._alerts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._latency: dict[str, Histogram] = {}
        self._silent: set[str] = set()  # sessions without sound at the moment
        self._restarts = 0
        self._lost_s = 0.0
        self._degraded = 0

    def event(self, event: Event, latency_s: float | None) -> None:
        """An event was published, `latency_s` of sound later than its `audio_t`; None: nobody waits for it."""
        self._events[event.type] += 1
        if isinstance(event, Alert) and event.state == "raised":
            self._alerts[event.severity] += 1
        if isinstance(event, Gap):
            self._lost_s += event.end - event.start
        if isinstance(event, Status):
            self._note(event)
        elif latency_s is not None:
            self._latency.setdefault(event.type, Histogram()).add(max(0.0, latency_s))

    def refused(self, why: str) -> None:
        """A connection or request was refused."""
        self._refused[why] += 1

    def render(self, readers: Sequence[Reader], missed: int, senders: int, health: Mapping[str, SessionHealth]) -> str:
        """All of it. `missed`: by all clients there ever were."""
        by_client = [(labels(client=str(reader.number)), reader) for reader in readers]
        out = [
            *family("start_time_seconds", "gauge", "Unix time of the server's start", [("", self._began_s)]),
            *family(
                "clients",
                "gauge",
                "Connected clients",
                [(labels(kind="reader"), len(readers)), (labels(kind="sender"), senders)],
            ),
            *family("refused_total", "counter", "Connections and requests refused", _by("reason", self._refused)),
            *family("events_total", "counter", "Events published", _by("type", self._events)),
            *family("alerts_raised_total", "counter", "Alerts raised", _by("severity", self._alerts)),
            *family("sound_restarts_total", "counter", "Times that lost sound came back", [("", self._restarts)]),
            *family("lost_sound_seconds_total", "counter", "Sound that was lost (gaps)", [("", self._lost_s)]),
            *family("degraded_total", "counter", "Times that a session said degraded", [("", self._degraded)]),
            *family("missed_events_total", "counter", "Events that clients were too late for", [("", missed)]),
            *family(
                "client_missed_events",
                "gauge",
                "Events that this client was too late for",
                [(label, reader.missed) for label, reader in by_client],
            ),
            *family(
                "client_merged_partials",
                "gauge",
                "Partial texts that this client got only in a newer one",
                [(label, reader.merged) for label, reader in by_client],
            ),
            *family(
                "session_lag_seconds",
                "gauge",
                "Sound that came and is not judged yet",
                [(labels(session=name), item.lag_s) for name, item in health.items()],
            ),
            *family(
                "session_last_audio_age_seconds",
                "gauge",
                "Time since the last sound came",
                [(labels(session=name), item.last_audio_age_s) for name, item in health.items()],
            ),
            *self._latencies(),
        ]
        return "\n".join(out) + "\n"

    def _note(self, status: Status) -> None:
        self._degraded += status.state == "degraded"
        if status.state == "no_audio":
            self._silent.add(status.session)
        elif status.session in self._silent:
            self._silent.remove(status.session)
            self._restarts += status.state == "listening"

    def _latencies(self) -> list[str]:
        about = "Sound that had come since an event's audio_t when it was published"
        found = [(labels(type=kind), histogram) for kind, histogram in sorted(self._latency.items())]
        return histograms("event_latency_seconds", about, found)


def histograms(name: str, about: str, samples: Iterable[tuple[str, Histogram]]) -> list[str]:
    """The lines of one family, each histogram with its labels."""
    full = f"streamer_{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} histogram"]
    for label, histogram in samples:
        inside = f"{label[1:-1]}," if label else ""
        count = 0
        for bound, more in zip((*map(_number, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            count += more
            lines.append(f'{full}_bucket{{{inside}le="{bound}"}} {count}')
        lines.append(f"{full}_sum{label} {_number(histogram.total)}")
        lines.append(f"{full}_count{label} {count}")
    return lines


def family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of one family."""
    full = f"streamer_{name}"
    rows = [f"{full}{labels} {_number(value)}" for labels, value in samples]
    return [f"# HELP {full} {about}", f"# TYPE {full} {kind}", *rows]


def _by(label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [(labels(**{label: key}), count) for key, count in sorted(counts.items())]


def labels(**values: str) -> str:
    """What stands behind a name."""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in values.items()]
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))

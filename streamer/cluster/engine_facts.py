"""What the engines of a cluster and the way to them say of themselves, for the page of metrics that an ingress has.

An engine counts, and reports to the ledger every few seconds (`replica.py`); an ingress asks there when it is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streamer.server.metrics import Histogram, family, histograms, labels

STEP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)  # bounds
KEPT = 0.98
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(slots=True)
class StepCost:
    """What a step costs as things are now: a line through the last batches' sizes and times (weighted least squares).

    Each batch counts `KEPT` of what the one behind it counts.
    """

    count: float = 0.0
    windows: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    products: float = 0.0

    def add(self, windows: int, took_s: float) -> None:
        """One more batch."""
        self.count = self.count * KEPT + 1
        self.windows = self.windows * KEPT + windows
        self.squares = self.squares * KEPT + windows * windows
        self.seconds = self.seconds * KEPT + took_s
        self.products = self.products * KEPT + windows * took_s

    def window_s(self, batch: int) -> float:
        """Seconds for each window of such a batch; 0: nothing is known. Where all batches were alike: as in these."""
        if not self.windows:
            return 0.0
        mean_s = self.seconds / self.windows
        spread = self.count * self.squares - self.windows**2
        if spread < 0.01 * self.windows**2:
            return mean_s
        slope_s = (self.count * self.products - self.windows * self.seconds) / spread
        begin_s = (self.seconds - slope_s * self.windows) / self.count
        # noise may turn the line: no window costs more than on the average, nor less than by its share of the batch
        return min(mean_s, max(begin_s / batch + slope_s, mean_s * self.windows / self.count / batch))


@dataclass(slots=True)
class EngineFacts:
    """What one engine did since it was started. `batches`: windows in a batch -> such batches, their seconds together.

    `queued`: windows that wait now; `refused`: windows that it could not do; `load`: see `scaling.py`.
    """

    engine: str
    application: str
    pid: int
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)
    cost: StepCost = field(default_factory=StepCost)
    steps: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    queued: int = 0
    refused: int = 0
    load: float = 0.0

    def stepped(self, windows: int, took_s: float) -> None:
        """One more batch."""
        count, total_s = self.batches.get(windows, (0, 0.0))
        self.batches[windows] = count + 1, total_s + took_s
        self.steps.add(took_s)
        self.cost.add(windows, took_s)

    @property
    def windows(self) -> int:
        """That it did."""
        return sum(size * count for size, (count, _) in self.batches.items())

    def snapshot(self) -> "EngineFacts":
        """As it is now."""
        steps = replace(self.steps, counts=list(self.steps.counts))
        return replace(self, batches=dict(self.batches), cost=replace(self.cost), steps=steps)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """`started`: engines of this model that there ever were; what those that serve said last."""

    started: int
    engines: tuple[EngineFacts, ...]


@dataclass(slots=True)
class RoundFacts:
    """What a program had engines do: rounds of windows, each sent at once and waited for."""

    windows: int = 0
    resent: int = 0
    sent_bytes: int = 0  # of mel
    rounds: Histogram = field(default_factory=lambda: Histogram(STEP_S))


def render(rounds: RoundFacts, report: EngineReport | None) -> str:
    """Both in Prometheus' text format. `report` None: nobody answered."""
    out = [
        *family("windows_total", "counter", "Windows that engines did for this program", [("", rounds.windows)]),
        *family("windows_resent_total", "counter", "Windows that were sent again", [("", rounds.resent)]),
        *family("windows_sent_bytes_total", "counter", "Bytes of windows sent", [("", rounds.sent_bytes)]),
        *histograms("round_seconds", "From a round of windows to its last answer", [("", rounds.rounds)]),
        *family("engines_known", "gauge", "Whether the engines' own figures follow", [("", report is not None)]),
    ]
    if report is not None:
        out += _engines(report.started, report.engines)
    return "\n".join(out) + "\n"


def _engines(started: int, engines: Sequence[EngineFacts]) -> list[str]:
    by_engine = [(labels(engine=one.engine), one) for one in engines]
    sizes = [(label, _sizes(one)) for label, one in by_engine]
    return [
        *family("engines", "gauge", "Engines of this model that serve", [("", len(engines))]),
        *family("engines_started_total", "counter", "Engines of this model that were started", [("", started)]),
        *family("engine_windows_total", "counter", "Windows done", [(label, one.windows) for label, one in by_engine]),
        *family(
            "engine_refused_total", "counter", "Windows that failed", [(name, one.refused) for name, one in by_engine]
        ),
        *family(
            "engine_queued_windows", "gauge", "Windows that wait", [(label, one.queued) for label, one in by_engine]
        ),
        *family(
            "engine_load", "gauge", "Share of an engine that is needed", [(name, one.load) for name, one in by_engine]
        ),
        *histograms("engine_step_seconds", "Time of a batch", [(label, one.steps) for label, one in by_engine]),
        *histograms("engine_batch_windows", "Windows of a batch", sizes),
    ]


def _sizes(facts: EngineFacts) -> Histogram:
    found = Histogram(BATCH)
    for size, (count, _) in facts.batches.items():
        found.add(size, count)
    return found

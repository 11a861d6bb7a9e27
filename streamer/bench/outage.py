"""`streamer bench outage`: a killed broker, a failing web server and a hanging push service, all at once.

Alerts are made at a known rate and go through the program's own deliveries, server and terminal view. Meanwhile a real
mosquitto is killed and started again, a webhook server answers 500, and a push service takes connections and never
answers. A change of an alert (it is raised, it is over) is lost when it never arrives, late by the time from the later
of its making and the service's return to its first arrival.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamer.alerts.deliveries import Deliveries, open_deliveries
from streamer.alerts.history import AlertHistory
from streamer.bench.outage_parts import (
    ALERT_S,
    Arrivals,
    Broker,
    Change,
    Screen,
    Service,
    Subscriber,
    read_event,
    read_push,
    watching,
)
from streamer.bench.speech_scores import percentile
from streamer.events import SAMPLE_RATE, Alert, Severity, Tag
from streamer.measure import machine
from streamer.measure.report import Report, Table
from streamer.output.outlet import Outlet, Sinks
from streamer.server.messages import SessionInfo
from streamer.server.websocket import ServerThread
from streamer.settings.config import OutputSettings, validate
from streamer.settings.server import ServerSettings

SESSION = "outage"
RULES: tuple[tuple[str, Severity], ...] = (("siren", "critical"), ("baby_cry", "warning"), ("dog", "info"))
FAILING = ("mqtt", "webhook", "push")
HEALTHY = ("websocket", "terminal")
POLL_S = 0.02
IDLE_S = 5.0  # when nothing waits for so long, what has not arrived is lost
HURRY: Mapping[str, Mapping[str, float]] = {
    "mqtt": {"retry_max_s": 1},
    "webhook": {"retry_first_s": 0.1, "retry_max_s": 0.5},
    "push": {"timeout_s": 1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each service is away, in seconds; `rate`: alerts a second, each raised and cleared; `lead_s`: before and
    after; `drain_s`: so long what waits may take at most; `hurried`: retries sooner than by default, for tests."""

    broker_s: float = 30.0
    webhook_s: float = 60.0
    push_s: float = 60.0
    rate: float = 2.0
    lead_s: float = 10.0
    drain_s: float = 300.0
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run left: when each change was made, when it arrived, when each service went and came back."""

    made: Mapping[Change, float]
    arrivals: Mapping[str, Mapping[Change, Sequence[float]]]
    away: Mapping[str, tuple[float, float]]
    kept: int
    dropped: int
    attempts: Mapping[str, int]
    longest_put_s: float


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run it once; plain values. Raises UsageError without mosquitto, ConfigError without the extra `notify`."""
    result = {"bench": "outage", "machine": machine.facts(1)}
    with tempfile.TemporaryDirectory(prefix="streamer-outage-") as folder:
        run = _Theatre(plan, Path(folder), say).play()
    return {
        **result,
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
        "failing": [_failing(run, name) for name in FAILING],
        "healthy": [_healthy(run, name) for name in HEALTHY],
        "history": {"sent": len(run.made), "kept": run.kept},
        "longest_put_ms": round(1000 * run.longest_put_s, 3),
        "dropped": run.dropped,
        "load_after": machine.load(),
    }


class _Theatre:
    """All parts of one run; the calling thread makes the alerts, another one makes the outages."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._plan, self._folder, self._say = plan, folder, say
        self._arrivals = {name: Arrivals() for name in (*FAILING, *HEALTHY)}
        self._broker = Broker(folder)
        self._subscriber = Subscriber(self._broker.port, "streamer/bench/alert", self._arrivals["mqtt"])
        self._webhook = Service(read_event, self._arrivals["webhook"])
        self._push = Service(read_push, self._arrivals["push"])
        self._away: dict[str, tuple[float, float]] = {}
        self._longest_put_s = 0.0

    def play(self) -> _Run:
        """From start to end; ends everything that it started."""
        self._broker.start()
        self._subscriber.join()
        deliveries = open_deliveries(self._settings(), live=True)
        server = ServerThread(ServerSettings(port=0))
        sinks = Sinks(OutputSettings(), (SESSION,))
        outlet = Outlet(sinks)
        try:
            server.open_session(SessionInfo(SESSION, "none", None, SAMPLE_RATE))
            server.start()
            deliveries.start()
            sinks.begin()
            outlet.start(Screen(self._arrivals["terminal"]))
            with watching(server.url, self._arrivals["websocket"]):
                made = self._make_alerts(deliveries, server, outlet)
                self._drain(deliveries, len(made))
        finally:
            deliveries.stop(5.0)
            outlet.stop(5.0)
            server.stop()
            self._subscriber.leave()
            self._broker.kill()
            attempts = {"webhook": self._webhook.attempts, "push": self._push.attempts}
            self._webhook.close()
            self._push.close()
        kept = sum('"event"' in line for line in self._history().splitlines())
        arrivals = {name: found.times() for name, found in self._arrivals.items()}
        return _Run(made, arrivals, self._away, kept, deliveries.dropped, attempts, self._longest_put_s)

    def _settings(self) -> Any:
        more = HURRY if self._plan.hurried else {"mqtt": {}, "webhook": {}, "push": {}}
        hook = {"name": "bench", "url": f"http://127.0.0.1:{self._webhook.port}/", **more["webhook"]}
        push = {"name": "bench", "url": f"json://127.0.0.1:{self._push.port}/", **more["push"]}
        delivery = {
            "mqtt": {"host": "127.0.0.1", "port": self._broker.port, "device": "bench", **more["mqtt"]},
            "webhooks": [hook],
            "push": [push],
            "spool": str(self._folder / "spool"),
            "history": {"path": str(self._folder / "alerts.jsonl"), "record": "always"},
        }
        rules = [{"id": rule, "all_clear": True, "severity": severity} for rule, severity in RULES]
        return validate({"delivery": delivery, "alerts": {"rules": rules}})

    def _history(self) -> str:
        path = AlertHistory(self._folder / "alerts.jsonl").path
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _make_alerts(self, deliveries: Deliveries, server: ServerThread, outlet: Outlet) -> dict[Change, float]:
        """At every moment of the rate one alert is raised and the one before is over."""
        plan = self._plan
        outages = threading.Thread(target=self._outages, name="outages", daemon=True)
        began, made, number = time.monotonic(), dict[Change, float](), 0
        outages.start()
        while outages.is_alive() or time.monotonic() - began < self._end_s():
            if number:
                self._emit(_alert(number, "cleared"), deliveries, server, outlet, made)
            number += 1
            self._emit(_alert(number, "raised"), deliveries, server, outlet, made)
            time.sleep(max(0.0, began + number / plan.rate - time.monotonic()))
        self._emit(_alert(number, "cleared"), deliveries, server, outlet, made)
        return made

    def _end_s(self) -> float:
        plan = self._plan
        return 2 * plan.lead_s + max(plan.broker_s, plan.webhook_s, plan.push_s)

    def _emit(
        self, alert: Alert, deliveries: Deliveries, server: ServerThread, outlet: Outlet, made: dict[Change, float]
    ) -> None:
        """As the program does; how long it holds up the thread that makes events is noted."""
        now = made[alert.id, alert.state] = time.monotonic()
        deliveries.put([alert])
        server.publish(alert)
        outlet.put([alert])
        self._longest_put_s = max(self._longest_put_s, time.monotonic() - now)

    def _outages(self) -> None:
        plan = self._plan
        time.sleep(plan.lead_s)
        began = time.monotonic()
        self._broker.kill()
        self._webhook.fail, self._push.fail = "500", "hang"
        self._say("outage: mosquitto is killed, the webhook server answers 500, the push service hangs")
        for name, after_s in sorted(
            (("mqtt", plan.broker_s), ("webhook", plan.webhook_s), ("push", plan.push_s)), key=lambda item: item[1]
        ):
            time.sleep(max(0.0, began + after_s - time.monotonic()))
            if name == "mqtt":
                joining = threading.Thread(target=self._subscriber.join, name="joining", daemon=True)
                joining.start()
                self._broker.start()
                self._away[name] = (began, time.monotonic())
                joining.join()
            else:
                self._away[name] = (began, time.monotonic())
                service = self._webhook if name == "webhook" else self._push
                service.fail = None
            self._say(f"outage: {name} is back after {self._away[name][1] - began:.1f} s")

    def _drain(self, deliveries: Deliveries, wanted: int) -> None:
        """Until everything arrived, or nothing waited for a while, or it takes too long."""
        began = idle_since = time.monotonic()
        while any(len(found.times()) < wanted for found in self._arrivals.values()):
            now = time.monotonic()
            idle_since = now if deliveries.waiting else idle_since
            if now > began + self._plan.drain_s or now > idle_since + IDLE_S:
                return
            time.sleep(POLL_S)


def _alert(id: int, state: Literal["raised", "cleared"]) -> Alert:
    rule, severity = RULES[id % len(RULES)]
    start = ALERT_S * id
    end = start + ALERT_S / 2 if state == "cleared" else None
    return Alert(
        session=SESSION,
        seq=2 * id + (state == "cleared"),
        audio_t=max(start, end or 0.0),
        id=id,
        rule=rule,
        severity=severity,
        state=state,
        start=start,
        end=end,
        score=0.9,
        labels=(f"Number {id}",),
        heard=(Tag(390, "Siren", 0.9),),
        text="",
    )


def _counts(run: _Run, name: str) -> dict[str, Any]:
    found = run.arrivals[name]
    return {
        "channel": name,
        "sent": len(run.made),
        "delivered": len(found.keys() & run.made.keys()),
        "lost": len(run.made.keys() - found.keys()),
        "duplicates": sum(len(times) - 1 for times in found.values()),
    }


def _failing(run: _Run, name: str) -> dict[str, Any]:
    gone, back = run.away[name]
    found = run.arrivals[name]
    before = [found[change][0] - made for change, made in run.made.items() if made < gone - 1 and change in found]
    late = [found[change][0] - max(made, back) for change, made in run.made.items() if made >= gone and change in found]
    waited = [found[change][0] for change, made in run.made.items() if gone <= made < back and change in found]
    return {
        **_counts(run, name),
        "away_s": round(back - gone, 1),
        "attempts": run.attempts.get(name),
        "worst_before_s": _worst(before),
        "worst_after_return_s": _worst(late),
        "caught_up_after_s": _worst([at - back for at in waited]),
    }


def _healthy(run: _Run, name: str) -> dict[str, Any]:
    gone = min(began for began, _ in run.away.values())
    back = max(end for _, end in run.away.values())
    found = run.arrivals[name]
    delays = {change: found[change][0] - made for change, made in run.made.items() if change in found}
    meanwhile = [1000 * delay for change, delay in delays.items() if gone <= run.made[change] <= back]
    otherwise = [1000 * delay for change, delay in delays.items() if not gone <= run.made[change] <= back]
    return {
        **_counts(run, name),
        "p95_meanwhile_ms": percentile(meanwhile, 95),
        "p95_otherwise_ms": percentile(otherwise, 95),
        "worst_meanwhile_ms": _worst(meanwhile),
        "worst_otherwise_ms": _worst(otherwise),
    }


def _worst(values: Sequence[float]) -> float | None:
    return round(max(0.0, *values, 0.0), 3) if values else None


def report(result: Mapping[str, Any]) -> Report:
    """The page: what failed, and what went on beside it."""
    failing, healthy = result["failing"], result["healthy"]
    history = result["history"]
    others = [
        ["history (file)", history["sent"], history["kept"], history["sent"] - history["kept"]],
    ]
    tables = [
        Table("Channels whose service was away (changes of alerts; seconds)", tuple(failing[0]), _rows(failing)),
        Table("Channels beside them (milliseconds)", tuple(healthy[0]), _rows(healthy)),
        Table("On this machine", ("channel", "sent", "kept", "lost"), others),
    ]
    about = " ".join((__doc__ or "").split()) + f" Making an event waited at most {result['longest_put_ms']:g} ms."
    return Report("outage", "Outages", about, result, tables)


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    return [list(row.values()) for row in rows]

"""What the program says of itself for Prometheus, besides what the server counts: restarts, guards, deliveries.

Called by the server's thread; every number has one writer, which does not wait for the reader.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamer.alerts.deliveries import Deliveries
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.worker import Worker
from streamer.server.metrics import Sample, family, labels

if TYPE_CHECKING:
    from streamer.monitor.aid import HearingAid


def render(
    pipelines: Mapping[str, Pipeline], worker: Worker | None, deliveries: Deliveries, monitor: "HearingAid | None"
) -> str:
    """In Prometheus' text format. `worker` None: it is not started yet."""
    sessions = list(pipelines.items())
    restarts: list[Sample] = [(labels(part="worker"), worker.restarts)] if worker else []
    restarts += [(labels(part="session", session=name), one.lane.falls) for name, one in sessions]
    restarts += [(labels(part="listener", session=name), one.listener_restarts) for name, one in sessions]
    restarts += [(labels(part="hearing aid"), monitor.restarts)] if monitor else []
    withheld: list[Sample] = [
        (labels(guard=guard, session=name), count)
        for name, one in sessions
        for guard, count in sorted(dict(one.lane.hearing.session.text.guards.suppressed).items())
    ]
    by_delivery = [(labels(delivery=name), count) for name, count in deliveries.waiting.items()]
    lost = [(labels(delivery=name), count) for name, count in deliveries.dropped.items()]
    out = [
        *family("part_restarts_total", "counter", "Parts of the program that failed and were started again", restarts),
        *family("withheld_total", "counter", "Times that a guard withheld words", withheld),
        *family("delivery_waiting", "gauge", "Changes of alerts that wait for a delivery", by_delivery),
        *family("delivery_lost_total", "counter", "Changes of alerts that were given up", lost),
    ]
    if monitor:
        report = monitor.report
        out += family(
            "monitor_underruns_total", "counter", "Blocks that the headphones missed", [("", report.underruns)]
        )
        out += family("monitor_dropped_total", "counter", "Blocks of the microphone left out", [("", report.dropped)])
        out += family("monitor_howls_total", "counter", "Howls that were stopped", [("", report.howls)])
    return "\n".join(out) + "\n"

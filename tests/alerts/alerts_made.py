"""Alerts for tests of deliveries, and a way to wait for threads without sleeping blindly."""

import threading
import time
from collections.abc import Callable
from typing import Any

from streamer.alerts.delivery import NotDeliveredError
from streamer.alerts.parcels import Parcel
from streamer.events import Alert, Tag

PATIENCE_S = 20.0


def alert(id: int = 1, state: str = "raised", **fields: Any) -> Alert:
    given: dict[str, Any] = {
        "session": "s1-20261123T040000",
        "seq": id * 10 + ["raised", "updated", "acknowledged", "cleared"].index(state),
        "audio_t": 12.5,
        "id": id,
        "rule": "siren",
        "severity": "critical",
        "state": state,
        "start": 10.0,
        "end": 12.0 if state == "cleared" else None,
        "score": 0.91,
        "labels": ("Siren",),
        "heard": (Tag(390, "Siren", 0.91), Tag(0, "Speech", 0.4)),
        "text": "what is “that”?",
    }
    return Alert(**(given | fields))


def told(parcels: list[Parcel]) -> list[tuple[int, str]]:
    return [(parcel.alert.id, parcel.alert.state) for parcel in parcels]


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


class Sink:
    """A target that remembers; it fails while `failing`, and hangs while `open` is not set."""

    tick_s: float | None = None

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.got: list[Parcel] = []
        self.tried: list[Parcel] = []
        self.failing: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.closed = False
        self.ticks = 0

    def start(self) -> None:
        pass

    def send(self, parcel: Parcel) -> None:
        self.tried.append(parcel)
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        if self.failing is not None:
            raise self.failing
        self.got.append(parcel)

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.closed = True


def busy() -> NotDeliveredError:
    return NotDeliveredError("busy")

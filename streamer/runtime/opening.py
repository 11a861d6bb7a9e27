"""What sessions say while there is no model yet (main thread)."""

from collections.abc import Callable, Sequence

from streamer.events import Event, Status
from streamer.model.download import LoadStep

PARTS = 10  # how often a download is told of


class Opening:
    """What the sessions `names` say before there is a model: `status` `starting`, with what is being done, from 1 on.

    Who is connected gets it at once, by `publish`; files and other programs first of all when they are opened.
    """

    def __init__(self, names: Sequence[str], publish: Callable[[Event], None]) -> None:
        self._names, self._publish = tuple(names), publish
        self._said: tuple[str, int] | None = None
        self.events: list[Event] = []
        self.begun = 0  # events of each session

    def tell(self, step: LoadStep) -> None:
        """Say what is being done; of a download now and then how far it is."""
        total, received = step.total_bytes, step.received_bytes or 0
        part = PARTS * received // total if total else 0
        if self._said == (step.what, part):
            return
        self._said = step.what, part
        self.begun += 1
        detail = f"{step.what}, {100 * part // PARTS} %" if total else step.what
        for name in self._names:
            event = Status(session=name, seq=self.begun, audio_t=0.0, state="starting", detail=detail)
            self.events.append(event)
            self._publish(event)

"""What sessions say while there is no model yet (main thread)."""

from collections.abc import Callable, Mapping, Sequence

from streamer.events import Event, Status, seconds
from streamer.model.download import LoadStep
from streamer.runtime.told import Told

PARTS = 10  # how often a download is told of


class Opening:
    """What the sessions `names` say before there is a model: `status` `starting`, with what is being done, from 1 on.

    Who is connected gets it at once, by `publish`; files and other programs first of all when they are opened.
    `told`: what was said of each session, by its name; at first by an earlier process.
    """

    def __init__(
        self, names: Sequence[str], publish: Callable[[Event], None], told: Mapping[str, Told] | None = None
    ) -> None:
        self._publish = publish
        self._said: tuple[str, int] | None = None
        self.told = {name: Told(name) for name in names} | dict(told or {})
        self.events: list[Event] = []

    def tell(self, step: LoadStep) -> None:
        """Say what is being done; of a download now and then how far it is."""
        total, received = step.total_bytes, step.received_bytes or 0
        part = PARTS * received // total if total else 0
        if self._said == (step.what, part):
            return
        self._said = step.what, part
        detail = f"{step.what}, {100 * part // PARTS} %" if total else step.what
        for name, told in self.told.items():
            at_t = seconds(told.audio_sample)
            self.say(Status(session=name, seq=told.seq + 1, audio_t=at_t, state="starting", detail=detail))

    def say(self, event: Event) -> None:
        """Say this of one session, at once."""
        if event.session in self.told:
            self.told[event.session].note(event)
        self.events.append(event)
        self._publish(event)

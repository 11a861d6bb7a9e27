"""Captions for live streams and meetings, made from the settings: committed words, line by line.

Pure but for the clocks: the threads are those of `caption_sender`. Each service gets lines of its own width, which are
given out when they are full, when a sentence ends or the speaker pauses (`captions.CueMaker`). As in caption files, the
program's own sources are captioned, and senders on `/ingest` where there are no others; of several that speak each has
its name in front.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len

from streamer.events import Event, Sound, Status, Transcript
from streamer.output.caption_posts import YouTubeCaptions, ZoomCaptions
from streamer.output.caption_sender import CaptionSender, CaptionService, Line
from streamer.output.captions import Cue, CueMaker, fill
from streamer.output.obs import ObsCaptions
from streamer.output.plain_text import clean, source_of
from streamer.settings.config import OutputSettings
from streamer.settings.deliveries import address, check_web_address, secret, state_directory

log = logging.getLogger(__name__)

LABEL_CELLS = 12  # of a source's name


class LiveCaptions:
    """The services of one run. Any thread may call `put`; it never waits for one of them."""

    def __init__(
        self,
        services: Sequence[tuple[CaptionService, bool]],
        sessions: Collection[str] = (),
        wall: Callable[[], float] = time.time,
        tell: Callable[[str], None] = lambda detail: None,
    ) -> None:
        """`services`: each with whether it gets sounds too; `sessions`: only these (none named: all).

        `tell` is told, in a service's thread, what people should know of it.
        """
        several = len(sessions) > 1
        self._streams = [_Lines(CaptionSender(service, tell), sounds, several, wall) for service, sounds in services]
        self._sessions = frozenset(sessions)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all threads."""
        for stream in self._streams:
            stream.sender.start()

    def put(self, events: Sequence[Event]) -> None:
        """Give out the lines that are settled with these events."""
        if not self._streams:
            return
        with self._lock:
            for event in events:
                if not self._sessions or event.session in self._sessions:
                    for stream in self._streams:
                        stream.step(event)

    def finish(self) -> None:
        """Nothing more comes: give out what is left."""
        with self._lock:
            for stream in self._streams:
                stream.finish()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of all after `finish`; False when something did not end in time."""
        until_s = time.monotonic() + timeout_s
        ended = [stream.sender.join(max(0.0, until_s - time.monotonic())) for stream in self._streams]
        return all(ended)


class _Lines:
    """The lines of one service, from the events of all sessions. `several`: there are more than one from the start."""

    def __init__(self, sender: CaptionSender, sounds: bool, several: bool, wall: Callable[[], float]) -> None:
        self.sender, self._sounds, self._several, self._wall = sender, sounds, several, wall
        self._cells = sender.service.cells
        self._makers: dict[str, CueMaker] = {}  # of the sessions that are open

    def step(self, event: Event) -> None:
        """Take one event in, and give out what is settled with it."""
        over = isinstance(event, Status) and event.state == "stopped"
        if not (over or isinstance(event, Transcript | Sound)):
            return
        if event.session not in self._makers:
            if over:
                return
            self._several |= bool(self._makers)
            self._makers[event.session] = CueMaker(self._cells - cell_len(self._label(event.session)), lines=1)
        maker = self._makers[event.session]
        cues = [] if isinstance(event, Sound) and not self._sounds else maker.step(event)
        if over:
            cues += maker.finish()
            del self._makers[event.session]
        self._give_out(event.session, cues, event.audio_t)

    def finish(self) -> None:
        """Nothing more comes."""
        for session, maker in self._makers.items():
            self._give_out(session, maker.finish(), None)
        self._makers.clear()
        self.sender.finish()

    def _label(self, session: str) -> str:
        return f"{clean(source_of(session))[:LABEL_CELLS]}: " if self._several else ""

    def _give_out(self, session: str, cues: Sequence[Cue], audio_t: float | None) -> None:
        """`audio_t`: where the session is by now, None: nobody knows."""
        for cue in cues:
            ago_s = 0.0 if audio_t is None else max(0.0, audio_t - cue.start_ms / 1000)
            for text in fill(self._label(session) + " ".join(cue.lines), self._cells):
                self.sender.put(Line(text, self._wall() - ago_s, time.monotonic()))


def open_captions(
    output: OutputSettings,
    sessions: Collection[str],
    tell: Callable[[str], None],
    *,
    live: bool,
    environment: Mapping[str, str] = os.environ,
) -> LiveCaptions:
    """What the settings ask for. `live`: not at speed 0, where captions of an hour would come in a minute.

    ConfigError names the setting whose environment variable is missing.
    """
    services: list[tuple[CaptionService, bool]] = []
    folder = state_directory(environment) / "captions"
    if output.obs.url is not None:
        services.append((_obs(output, environment), output.obs.sounds))
    if output.youtube.wanted:
        services.append((_youtube(output, folder, environment), output.youtube.sounds))
    if output.zoom.wanted:
        services.append((_zoom(output, folder, environment), output.zoom.sounds))
    if services and not live:
        names = ", ".join(service.name for service, _ in services)
        log.warning("no captions for %s: they are sent at --speed 1 only", names)
        services = []
    return LiveCaptions(services, sessions, tell=tell)


def _obs(output: OutputSettings, environment: Mapping[str, str]) -> ObsCaptions:
    given, path = output.obs, "output.obs"
    assert given.url is not None
    password = None if given.password is None else given.password.get_secret_value()
    if given.password_env is not None:
        password = secret(given.password_env, f"{path}.password_env", environment)
    return ObsCaptions(given.url, password, path=path)


def _youtube(output: OutputSettings, folder: Path, environment: Mapping[str, str]) -> YouTubeCaptions:
    given = output.youtube
    url = address(given.url, given.url_env, "output.youtube", environment, check_web_address)
    return YouTubeCaptions(url, folder)


def _zoom(output: OutputSettings, folder: Path, environment: Mapping[str, str]) -> ZoomCaptions:
    given = output.zoom
    url = address(given.url, given.url_env, "output.zoom", environment, check_web_address)
    return ZoomCaptions(url, folder, given.lang)

"""Desktop and push notifications through apprise, which knows some hundred services by their URLs.

Runs in its delivery's thread, which waits for a thread of each call's own: apprise has no limit for a service that
answers without an end, or limits it in a pool that all services share and that the program's end waits for. apprise and
what it uses log addresses: they are silenced before the URL is read.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from streamer.alerts.delivery import NotDeliveredError, Target
from streamer.alerts.parcels import Parcel
from streamer.alerts.wording import body, title
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from apprise import Apprise

_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}
MAX_STUCK = 8  # calls of one service without an end; then it gets no more until one of them ends
AGAIN_S = 60.0  # after so long a call that has no end is made once more
_TALKATIVE = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")  # they log addresses


class _Call:
    """One call in a daemon thread: a hanging service keeps neither another one nor the end of the program waiting."""

    def __init__(self, number: int, notify: Callable[[], object]) -> None:
        self.number = number
        self.began_s = time.monotonic()
        self.taken = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(notify,), name="push-call", daemon=True)
        self._thread.start()

    def ended(self, timeout_s: float = 0.0) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, notify: Callable[[], object]) -> None:
        try:
            self.taken = bool(notify())
        except Exception as error:  # noqa: BLE001  the top of the thread: `send` raises it
            self.error = error


class Push(Target):
    """One service. `url`: its apprise URL, a secret; `names`: what people call each rule; `path`: of the setting."""

    def __init__(self, name: str, url: str, *, names: Mapping[str, str], timeout_s: float, path: str) -> None:
        """Raises ConfigError where apprise is missing or does not know such a URL."""
        self.name = f"push {name}"
        self._names = names
        self._timeout_s = timeout_s
        self._apprise = _service(url, path)
        self._stuck: list[_Call] = []

    def send(self, parcel: Parcel) -> None:
        """Notify. Raises NotDeliveredError when the service did not take it, or not in time."""
        call = self._call(parcel)
        if not call.ended(self._timeout_s):
            if call not in self._stuck:
                self._stuck.append(call)
            raise NotDeliveredError(f"no answer within {self._timeout_s:g} s")
        self._stuck = [other for other in self._stuck if other is not call]
        if call.error is not None:
            raise call.error
        if not call.taken:
            raise NotDeliveredError("the service did not take it")

    def _call(self, parcel: Parcel) -> _Call:
        """The call of this parcel that is under way or was taken after its time, else a new one."""
        late = [call for call in self._stuck if call.taken]
        running = [call for call in self._stuck if not call.taken and not call.ended()]
        self._stuck = late[-MAX_STUCK:] + running
        for call in self._stuck:
            if call.number == parcel.number and (call.taken or time.monotonic() < call.began_s + AGAIN_S):
                return call
        if len(running) >= MAX_STUCK:
            raise NotDeliveredError(f"{MAX_STUCK} calls have no answer")
        alert = parcel.alert
        kind = "success" if alert.state == "cleared" else _TYPES[alert.severity]
        text, head = body(alert), title(alert, self._names)
        return _Call(parcel.number, lambda: self._apprise.notify(body=text, title=head, notify_type=kind))


def _service(url: str, path: str) -> "Apprise":
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError(f"{path}: needs apprise: pip install 'streamer[notify]'") from None
    here: dict[str, Any] = {"async_mode": False}  # in the calling thread, not in a pool
    if hasattr(AppriseAsset, "_service_timeout"):  # from 2.2 on; any limit would bring the pool back
        here["service_timeout"] = 0
    service = Apprise(asset=AppriseAsset(app_id="Streamer", app_desc="Streamer", secure_logging=True, **here))
    if not service.add(url) or len(service) != 1:
        raise ConfigError(
            f"{path}: must be one URL that apprise knows and can use on this machine; see https://appriseit.com/services"
        )
    return service

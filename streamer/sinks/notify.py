"""Desktop and push notifications through apprise, which knows some hundred services by their URLs.

Runs in its delivery's thread. apprise and what it uses log addresses: they are silenced before the URL is read.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamer.errors import ConfigError
from streamer.sinks.delivery import NotDeliveredError
from streamer.sinks.parcels import Parcel
from streamer.sinks.wording import body, title

if TYPE_CHECKING:
    from apprise import Apprise

_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}
_TALKATIVE = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")  # they log addresses


class Push:
    """One service. `url`: its apprise URL, a secret; `names`: what people call each rule; `path`: of the setting."""

    tick_s = None

    def __init__(self, name: str, url: str, *, names: Mapping[str, str], timeout_s: float, path: str) -> None:
        """Raises ConfigError where apprise is missing or does not know such a URL."""
        self.name = f"push {name}"
        self._names = names
        self._timeout_s = timeout_s
        self._apprise = _service(url, path)

    def start(self) -> None:
        """Nothing to start."""

    def send(self, parcel: Parcel) -> None:
        """Notify. Raises NotDeliveredError when the service did not take it."""
        alert = parcel.alert
        kind = "success" if alert.state == "cleared" else _TYPES[alert.severity]
        taken = self._apprise.notify(
            body=body(alert), title=title(alert, self._names), notify_type=kind, timeout=self._timeout_s
        )
        if not taken:
            raise NotDeliveredError("the service did not take it")

    def tick(self) -> None:
        """Nothing to say again."""

    def close(self) -> None:
        """Nothing to close."""


def _service(url: str, path: str) -> "Apprise":
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError(f"{path}: needs apprise: pip install 'streamer[notify]'") from None
    service = Apprise(asset=AppriseAsset(app_id="Streamer", app_desc="Streamer", secure_logging=True))
    if not service.add(url) or len(service) != 1:
        raise ConfigError(
            f"{path}: must be one URL that apprise knows and can use on this machine; see https://appriseit.com/services"
        )
    return service

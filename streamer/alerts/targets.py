"""What brings alerts to one service each: a POST of signed JSON, a program that is started, a push through apprise.

Each runs in its delivery's thread and waits there for an answer or its own time limit; queue, pauses, spool and drop
rules are the delivery's (`streamer.alerts.delivery`). MQTT has a module of its own.
"""

import hashlib
import hmac
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streamer.alerts.delivery import NotDeliveredError, RefusedError, Target
from streamer.alerts.parcels import Parcel, without_words
from streamer.errors import ConfigError
from streamer.events import WITHDRAWN, Alert
from streamer.output import posting
from streamer.output.plain_text import clean

if TYPE_CHECKING:
    from apprise import Apprise

TEXT_TAIL = 200  # characters of what was being said
END_S = 1.0  # from asking a program to end to ending it
MAX_STUCK = 8  # calls of one push service without an end; then it gets no more until one of them ends
AGAIN_S = 60.0  # after so long a call that has no end is made once more
# The receiver understood and does not want exactly this; everything else may pass (a restart, a wrong token, …).
REFUSED = (400, 409, 413, 415, 422)
_MARKS = {"critical": "‼ ", "warning": "", "info": ""}
_ORIGINS = {"live": "", "file": "(file) ", "demo": "(demo) ", "test": "TEST: "}
_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}
_TALKATIVE = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")  # they log addresses


def title(alert: Alert, names: Mapping[str, str]) -> str:
    """One line: what it is, whether it is over, and if it did not happen. `names`: what people call each rule."""
    name = _ORIGINS[alert.source] + names.get(alert.rule, clean(alert.rule).replace("_", " "))
    match alert.state:
        case "raised":
            return f"{_MARKS[alert.severity]}{name}"
        case "cleared":
            return f"{name}: taken back" if WITHDRAWN in alert.labels else f"{name}: over"
        case "acknowledged":
            return f"{name}: seen"
        case "updated":
            return f"{_MARKS[alert.severity]}{name}: still there"


def body(alert: Alert) -> str:
    """What was heard and said, a line each; never empty."""
    if alert.source == "test":
        return "This is a test: nothing was heard."
    lines = ["Too quiet for you to hear."] if alert.too_quiet and alert.state in ("raised", "updated") else []
    if labels := [clean(label) for label in alert.labels if label != WITHDRAWN]:
        lines.append("Heard: " + ", ".join(labels))
    if alert.heard:
        lines.append("Tags: " + ", ".join(f"{clean(tag.label)} {tag.score:.2f}" for tag in alert.heard))
    if clean(alert.text):
        lines.append(f"Said meanwhile: “{clean(alert.text)[-TEXT_TAIL:]}”")
    if alert.end is not None:
        lines.append(f"It lasted {max(0.0, alert.end - alert.start):.0f} s.")
    return "\n".join(lines) or f"Severity: {alert.severity}"


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of X-Streamer-Signature."""
    return "v1=" + hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()


class Webhook(Target):
    """One web address; the body is the event, byte for byte as in `--jsonl`. Headers:

        Idempotency-Key        session:alert id:state; the same however often it is sent
        X-Streamer-Made-At     Unix time at which it was made (it may come late)
        X-Streamer-Timestamp   Unix time of this attempt
        X-Streamer-Signature   v1=HEX, HMAC-SHA256 (RFC 2104) of `timestamp + "." + body`; only with a secret

    A receiver computes the same over the exact bytes, compares in constant time and refuses old timestamps. `url` and
    `secret` (None: not signed) are secrets; `wall`: Unix time.
    """

    def __init__(
        self, name: str, url: str, secret: str | None, *, timeout_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self.name, self.place = f"webhook {name}", urlsplit(url).hostname or ""
        self._url, self._secret = url, None if secret is None else secret.encode()
        self._timeout_s, self._wall = timeout_s, wall

    def send(self, parcel: Parcel) -> None:
        """One attempt. Raises NotDeliveredError, RefusedError; neither shows the address."""
        body = parcel.alert.to_json().encode()
        try:
            posting.send(self._url, body, self._headers(parcel, body), timeout_s=self._timeout_s)
        except posting.PostFailedError as error:
            if error.status in REFUSED:
                raise RefusedError(str(error)) from None
            raise NotDeliveredError(str(error), error.retry_after_s) from None

    def _headers(self, parcel: Parcel, body: bytes) -> dict[str, str]:
        timestamp = int(self._wall())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "streamer",
            "Idempotency-Key": parcel.key,
            "X-Streamer-Made-At": f"{parcel.made_at:.3f}",
            "X-Streamer-Timestamp": str(timestamp),
        }
        if self._secret is not None:
            headers["X-Streamer-Signature"] = signature(self._secret, timestamp, body)
        return headers


class Command(Target):
    """One program, started for each alert. `argv`: it and its arguments, as they are: no shell, nothing that was heard.

    The event comes as one line of JSON on stdin and as environment variables STREAMER_*. `hidden`: environment
    variables that it does not get, as they hold our secrets.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        names: Mapping[str, str],
        timeout_s: float,
        path: str,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        """Raises ConfigError where there is no such program."""
        self.name = f"command {name}"
        program = shutil.which(os.path.expanduser(argv[0]))
        if program is None:
            raise ConfigError(f"{path}.argv[0]: {argv[0]!r} is no program that can be started; give its full path")
        self.place = argv[0]
        self._argv = [os.path.abspath(program), *argv[1:]]
        self._names, self._timeout_s, self._hidden = names, timeout_s, hidden

    def send(self, parcel: Parcel) -> None:
        """Start it and wait for its end. Raises RefusedError: what failed once is not started again."""
        environment = {name: value for name, value in os.environ.items() if name not in self._hidden}
        environment |= variables(parcel, self._names)
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise RefusedError(f"it could not be started: {error.strerror}") from None
        try:
            process.communicate((parcel.alert.to_json() + "\n").encode(), timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise RefusedError(f"it did not end within {self._timeout_s:g} s") from None
        if process.returncode != 0:
            raise RefusedError(f"it ended with status {process.returncode}")


def variables(parcel: Parcel, names: Mapping[str, str]) -> dict[str, str]:
    """The event's fields as environment variables: text without control characters, times in seconds."""
    alert: Alert = parcel.alert
    fields = {
        "SESSION": alert.session,
        "ID": str(alert.id),
        "KEY": parcel.key,
        "RULE": alert.rule,
        "SEVERITY": alert.severity,
        "STATE": alert.state,
        "START": f"{alert.start:.3f}",
        "END": "" if alert.end is None else f"{alert.end:.3f}",
        "SCORE": f"{alert.score:.4f}",
        "LABELS": "; ".join(alert.labels),
        "HEARD": "; ".join(f"{tag.label} {tag.score:.2f}" for tag in alert.heard),
        "TEXT": alert.text,
        "SOURCE": alert.source,
        "TEST": "true" if alert.source == "test" else "",
        "TITLE": title(alert, names),
    }
    plain = {f"STREAMER_{name}": clean(value) for name, value in fields.items()}
    return plain | {"STREAMER_BODY": body(alert)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and everything it started: first asked, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


class Push(Target):
    """One service of the hundred that apprise knows. `url`: its apprise URL, a secret; `path`: of the setting.

    What was said is left out unless `text`; `spoken`: the rules for words.

    Each call has a thread of its own: apprise has no limit for a service that answers without an end, or limits it in a
    pool that all services share and that the program's end waits for.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        names: Mapping[str, str],
        timeout_s: float,
        path: str,
        text: bool = False,
        spoken: Collection[str] = (),
    ) -> None:
        """Raises ConfigError where apprise is missing or does not know such a URL."""
        self.name = f"push {name}"
        self._names, self._text, self._spoken = names, text, spoken
        self._timeout_s = timeout_s
        self._apprise = _service(url, path)
        self.place = str(self._apprise[0].service_name or "")
        self._calls: list[_Call] = []  # under way, or taken after their time

    def send(self, parcel: Parcel) -> None:
        """Notify. Raises NotDeliveredError when the service did not take it, or not in time."""
        call = self._call(parcel)
        call.join(self._timeout_s)
        if call.is_alive():
            raise NotDeliveredError(f"no answer within {self._timeout_s:g} s")
        self._calls.remove(call)
        if call.error is not None:
            raise call.error
        if not call.taken:
            raise NotDeliveredError(call.why)

    def _call(self, parcel: Parcel) -> "_Call":
        """The call of this parcel that is under way or was taken after its time, else a new one."""
        taken = [call for call in self._calls if call.taken]
        running = [call for call in self._calls if not call.taken and call.is_alive()]
        self._calls = taken[-MAX_STUCK:] + running
        for call in self._calls:
            if call.number == parcel.number and (call.taken or time.monotonic() < call.began_s + AGAIN_S):
                return call
        if len(running) >= MAX_STUCK:
            raise NotDeliveredError(f"{MAX_STUCK} calls have no answer")
        alert = parcel.alert if self._text else without_words(parcel.alert, self._spoken)
        kind = "success" if alert.state == "cleared" else _TYPES[alert.severity]
        text, head = body(alert), title(alert, self._names)
        call = _Call(parcel.number, lambda: self._apprise.notify(body=text, title=head, notify_type=kind))
        self._calls.append(call)
        call.start()
        return call


class _Call(threading.Thread):
    """One call: a hanging service keeps neither another one nor the end of the program waiting."""

    def __init__(self, number: int, notify: Callable[[], object]) -> None:
        super().__init__(name="push-call", daemon=True)
        self.number, self._notify = number, notify
        self.began_s = time.monotonic()
        self.why = "the service did not take it"
        self.taken = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Notify; what came of it stands in `taken`, `why` and `error`."""
        try:
            self.taken = bool(self._notify())
        except Exception as error:  # noqa: BLE001  the top of the thread: `send` raises it
            self.error = error


class _Reasons(logging.Filter):
    """Why a service did not take it: apprise says so in its log alone, with the address; nobody else sees that."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Note for the call the status, or that there was no connection; nothing else of the line."""
        call, text = threading.current_thread(), record.getMessage()
        if not isinstance(call, _Call):
            return False
        if status := re.search(r"error=([1-5][0-9]{2})\b", text):
            call.why = f"the service answered {status[1]}"
        elif "connection error" in text.lower():
            call.why = "no connection to the service"
        return False


_REASONS = _Reasons()


def _service(url: str, path: str) -> "Apprise":
    """apprise and what it uses log addresses: they are silenced before the URL is read."""
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_REASONS)
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError(f"{path}: needs apprise: pip install '.[notify]' in Streamer's folder") from None
    here: dict[str, Any] = {"async_mode": False}  # in the calling thread, not in a pool
    if hasattr(AppriseAsset, "_service_timeout"):  # from 2.2 on; any limit would bring the pool back
        here["service_timeout"] = 0
    service = Apprise(asset=AppriseAsset(app_id="Streamer", app_desc="Streamer", secure_logging=True, **here))
    if not service.add(url) or len(service) != 1:
        raise ConfigError(
            f"{path}: must be one URL that apprise knows and can use on this machine; see https://appriseit.com/services"
        )
    return service

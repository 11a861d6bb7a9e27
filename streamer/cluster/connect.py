"""To a Ray cluster and back: engines are deployed there once for each model; programs that come later use them.

Runs in the main thread, before anything is heard. Ray is imported here, when somebody asks for it.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamer.cluster.book import WRITE_S, ClusterBook, Ledger
from streamer.cluster.engine import RemoteEngine
from streamer.cluster.wish import ModelWish
from streamer.errors import EngineError, UsageError
from streamer.model.download import LoadStep, Tell
from streamer.model.engine import Context
from streamer.model.outline import ModelOutline
from streamer.settings.cluster import ClusterSettings

log = logging.getLogger(__name__)

LOCAL = "local"  # a cluster of this program's own, on this machine
NAMESPACE = "streamer"
STORE_BYTES = 200 * 2**20  # of a local cluster: windows are small and short-lived
DEPLOYMENT = "Engine"
ONGOING = 64  # windows at one replica, in work and waiting; more wait at the programs
TARGET_ONGOING = 8  # so many windows for each replica: with more, another one is started
ANSWER_S = 30.0
REACH_S = 5.0
ASKED_AT_MOST = 200
TOKENS, OWN_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), Path("~/.ray/auth_token")  # where Ray looks for one


class Cluster:
    """A connection to Ray, and the engines of one model on it. `close` ends what was begun here, and only that."""

    def __init__(self, settings: ClusterSettings, wish: ModelWish) -> None:
        self._settings, self._wish = settings, wish
        self._own = settings.address == LOCAL
        self._application = settings.application or wish.application
        self._handle: Any = None

    def open(self, tell: Tell = lambda step: None) -> ModelOutline:
        """Connect, have the engines started where they are not, and ask what their model is.

        Raises UsageError: Ray is not installed or not there; EngineError: the engines do not start.
        """
        address = self._settings.address
        tell(LoadStep("starting a cluster on this machine" if self._own else f"connecting to the cluster {address}"))
        _, serve = connect(self._settings)
        serve.start(proxy_location="Disabled")
        application = self._application
        tell(LoadStep(f"starting engines with {self._wish.name}", slow=True))
        try:
            if self._settings.application or application in serve.status().applications:
                self._handle = serve.get_app_handle(application)
            else:
                self._handle = serve.run(deployment(self._settings, self._wish), name=application, route_prefix=None)
            outline: ModelOutline = self._handle.outline.remote().result(timeout_s=ANSWER_S)
        except Exception as error:
            reason = serve.status().applications
            said = reason[application].message if application in reason else str(error)
            raise EngineError(f"the engines of the cluster do not start: {_last_line(said or str(error))}") from error
        return outline

    def engine(self, model: ModelOutline, context: Context) -> RemoteEngine:
        """An engine that has its windows done by the replicas."""
        return RemoteEngine(model, self._handle, lost, context=context)

    @property
    def shared(self) -> bool:
        """Whether other programs may be on it."""
        return not self._own

    def book(self) -> ClusterBook:
        """What keeps the sessions of this program for the others, and theirs for this one."""
        ray, _ = _ray()
        ledger = ray.remote(Ledger).options(
            name="ledger", namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0, max_restarts=-1
        )
        return ClusterBook(_ActorDesk(ray, ledger.remote()), uuid.uuid4().hex)

    def facts(self) -> dict[int, dict[str, Any]]:
        """What each engine did, by its process; asked as windows are, until all that serve have answered."""
        wanted, found = self.replicas(), dict[int, dict[str, Any]]()
        for _ in range(ASKED_AT_MOST):
            one = self._handle.facts.remote().result(timeout_s=ANSWER_S)
            found[one["pid"]] = one
            if len(found) >= wanted:
                break
        return found

    def replicas(self) -> int:
        """How many engines serve now."""
        _, serve = _ray()
        found = serve.status().applications[self._application].deployments[DEPLOYMENT].replica_states
        return int(sum(count for state, count in found.items() if str(getattr(state, "value", state)) == "RUNNING"))

    def close(self) -> None:
        """Leave the cluster; one of our own ends with that. Any number of times."""
        _ray()[0].shutdown()


def deployment(given: ClusterSettings, wish: ModelWish) -> Any:
    """The application of one model for Serve: one deployment of engines."""
    from ray import serve

    from streamer.cluster.replica import Replica

    options: dict[str, Any] = {"num_cpus": given.cpus}
    if given.gpus:
        options["num_gpus"] = given.gpus
    engines = serve.deployment(Replica).options(
        name=DEPLOYMENT,
        max_ongoing_requests=ONGOING,
        ray_actor_options=options,
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=20.0,
        **_scaling(given),
    )
    return engines.bind(wish, given.cpus)


def _scaling(given: ClusterSettings) -> dict[str, Any]:
    if given.max_replicas is None:
        return {"num_replicas": given.replicas}
    scaling = {
        "min_replicas": given.replicas,
        "max_replicas": given.max_replicas,
        "target_ongoing_requests": TARGET_ONGOING,
        "upscale_delay_s": 5.0,
        "downscale_delay_s": 300.0,
    }
    return {"autoscaling_config": scaling}


def connect(settings: ClusterSettings) -> tuple[Any, Any]:
    """Connect this process to the cluster of the settings, or begin one; `ray` and `ray.serve`. Raises UsageError."""
    own = settings.address == LOCAL
    if own and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:  # which reads this when it is loaded
        # Nobody but us has to come in, and Ray would leave a token in the home.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray, serve = _ray()
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}
    if own:
        wanted = settings.cpus * (settings.max_replicas or settings.replicas)
        options["num_cpus"] = max(os.cpu_count() or 1, wanted) + 1
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    _check_reachable(str(settings.address))
    try:
        with _own_signals():
            ray.init(address=settings.address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(f"--cluster: {settings.address}: {str(error).partition(chr(10))[0]}") from error
    return ray, serve


class _ActorDesk:
    """A ledger that is an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method and wait for its answer, for `WRITE_S` at most."""
        return self._ray.get(getattr(self._actor, method).remote(*arguments), timeout=WRITE_S)


def lost(error: BaseException) -> bool:
    """Whether an error says that a replica is gone or has no room, and not that our own code failed there."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    if isinstance(error, BackPressureError | DeploymentUnavailableError):
        return True
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def _check_reachable(address: str) -> None:
    """UsageError where nobody listens at HOST:PORT: Ray itself tries for a minute."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise UsageError(f"--cluster: {address}: {error.strerror or error}; is Ray running there?") from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM stay with whoever had them: Ray takes them when it connects, and would end at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _ray() -> tuple[Any, Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    known = any(name in os.environ for name in TOKENS) or OWN_TOKEN.expanduser().is_file()
    if known and "ray" not in sys.modules:
        # `ray start` and a local cluster demand the token that they find; who only connects has to be told so
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        from ray import serve
    except ImportError:
        raise UsageError("--cluster: Ray is not installed: pip install '.[cluster]' in Streamer's folder") from None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray, serve


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason is known")

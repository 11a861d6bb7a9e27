"""To a Ray cluster and back: engines are deployed there once for each model; programs that come later use them.

Runs in the main thread, before anything is heard. Ray is imported here, when somebody asks for it.
"""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from streamer.cluster.book import ClusterBook
from streamer.cluster.engine import RemoteEngine, RemoteRecordings
from streamer.cluster.engine_facts import EngineFacts, EngineReport, RoundFacts, render
from streamer.cluster.ledger import Ledger
from streamer.cluster.mirrors import LedgerSilentError
from streamer.cluster.scaling import engines_wanted
from streamer.cluster.wish import ModelWish
from streamer.errors import EngineError, UsageError
from streamer.model.download import LoadStep, Tell
from streamer.model.engine import Context
from streamer.model.outline import ModelOutline
from streamer.runtime.handover import CarryOut
from streamer.settings.cluster import ClusterSettings

log = logging.getLogger(__name__)

LOCAL = "local"  # a cluster of this program's own, on this machine
NAMESPACE = "streamer"
LEDGER = "ledger 2"  # another number with other methods: programs of an earlier version have theirs
STORE_BYTES = 200 * 2**20  # of a local cluster: windows are small and short-lived
DEPLOYMENT = "Engine"
ONGOING = 64  # windows at one replica, in work and waiting; more wait at the programs
LOOK_BACK_S = 15.0  # what engines said of their load for so long counts; they do so every 10 s
UPSCALE_S = 5.0  # so long more work than the engines carry must come before another one is started
ANSWER_S = 30.0
WRITE_S = 2.0  # so long an answer of the ledger is waited for; then people are told all the same
METRICS_S = 1.0  # so long the page of metrics waits for the engines' part
READERS = 10_000  # calls of the ledger that wait at a time, for something new in a session
BEGINNING = ("NOT_STARTED", "DEPLOYING")  # states of an application of Serve whose first engine may still come
DEPLOYING_S = 0.5  # how often is looked whether another program is through with it
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
        self._desk: _ActorDesk | None = None
        self._rounds = RoundFacts()

    def open(self, tell: Tell = lambda step: None) -> ModelOutline:
        """Connect, have the engines started where they are not, and ask what their model is.

        Raises UsageError: Ray is not installed or not there; EngineError: the engines do not start.
        """
        address = self._settings.address
        tell(LoadStep("starting a cluster on this machine" if self._own else f"connecting to the cluster {address}"))
        ray, serve = connect(self._settings)
        serve.start(proxy_location="Disabled")
        self._desk = _ActorDesk(ledger())
        application = self._application
        tell(LoadStep(f"starting engines with {self._wish.name}", slow=True))
        try:
            if not self._settings.application:
                self._deploy(ray, serve)
            self._handle = serve.get_app_handle(application)
            outline: ModelOutline = self._handle.outline.remote().result(timeout_s=ANSWER_S)
        except Exception as error:
            reason = serve.status().applications
            said = reason[application].message if application in reason else str(error)
            raise EngineError(f"the engines of the cluster do not start: {_last_line(said or str(error))}") from error
        return outline

    def engine(self, model: ModelOutline, context: Context) -> RemoteEngine:
        """An engine that has its windows done by the replicas."""
        return RemoteEngine(model, self._handle, lost, context=context, facts=self._rounds)

    def recordings(self, model: ModelOutline, context: Context) -> RemoteRecordings:
        """The same engines, for recordings that are uploaded."""
        return RemoteRecordings(model, self._handle.recording_window, lost, lambda: self.engine(model, context))

    def _deploy(self, ray: Any, serve: Any) -> None:
        """Have the engines there, begun by this program or by another one that was first.

        To deploy an application a second time would replace its engines. Of programs that come at once one has the
        lock, an actor's name; it is free again when that program is through, or gone.
        """
        lock = f"deploying {self._application}"
        if self._own:
            serve.run(deployment(self._settings, self._wish), name=self._application, route_prefix=None)
        while self._application not in serve.status().applications:
            try:
                held = ray.remote(_Lock).options(name=lock, namespace=NAMESPACE, num_cpus=0).remote()
            except ValueError:  # another program has it
                time.sleep(DEPLOYING_S)
                continue
            try:
                if self._application not in serve.status().applications:
                    serve.run(deployment(self._settings, self._wish), name=self._application, route_prefix=None)
            finally:
                ray.kill(held)
        while not self.replicas() and serve.status().applications[self._application].status in BEGINNING:
            time.sleep(DEPLOYING_S)

    @property
    def shared(self) -> bool:
        """Whether other programs may be on it."""
        return not self._own

    def book(self, carry_out: CarryOut = lambda message: None) -> ClusterBook:
        """What keeps the sessions of this program for the others, and theirs for this one."""
        assert self._desk is not None
        self._desk.wait()
        return ClusterBook(self._desk, uuid.uuid4().hex, carry_out)

    async def metrics(self) -> str:
        """What the engines and the way to them say of themselves, for Prometheus; for any event loop."""
        report: EngineReport | None = None
        if self._desk is not None:
            with suppress(LedgerSilentError):
                report = await self._desk.later(METRICS_S, "engines", self._application)
        return render(self._rounds, report)

    def facts(self) -> dict[int, EngineFacts]:
        """What each engine did, by its process; asked as windows are, until all that serve have answered."""
        wanted, found = self.replicas(), dict[int, EngineFacts]()
        for _ in range(ASKED_AT_MOST):
            one: EngineFacts = self._handle.facts.remote().result(timeout_s=ANSWER_S)
            found[one.pid] = one
            if len(found) >= wanted:
                break
        return found

    def replicas(self) -> int:
        """How many engines serve now."""
        _, serve = _ray()
        there = serve.status().applications[self._application].deployments
        found = there[DEPLOYMENT].replica_states if DEPLOYMENT in there else {}
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
        **scaling(given),
    )
    return engines.bind(wish, given.cpus)


def scaling(given: ClusterSettings) -> dict[str, Any]:
    """What Serve is told of the number of engines."""
    if given.max_replicas is None:
        return {"num_replicas": given.replicas}
    config = {
        "min_replicas": given.replicas,
        "max_replicas": given.max_replicas,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": UPSCALE_S,
        "downscale_delay_s": given.idle_s,
        "policy": {"policy_function": engines_wanted},
    }
    return {"autoscaling_config": config}


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


def ledger() -> Any:
    """The ledger of the cluster that this process is connected to, begun where there is none."""
    options = {"name": LEDGER, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    kind = _ray()[0].remote(Ledger)
    return kind.options(**options, num_cpus=0, max_restarts=-1, max_concurrency=READERS).remote()


class _Lock:
    """Does nothing: its name is taken as long as it is there."""


class _ActorDesk:
    """A ledger that is an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method and wait for nothing."""
        getattr(self._actor, method).remote(*arguments)

    def wait(self) -> None:
        """Return when it answers, which takes a while where it has just been begun; or does not."""
        with suppress(LedgerSilentError):
            self._ask(ANSWER_S, "run")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method and wait for its answer, for `WRITE_S` at most. Raises LedgerSilentError."""
        return self._ask(WRITE_S, method, *arguments)

    def _ask(self, timeout_s: float, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayError

        try:
            return _ray()[0].get(getattr(self._actor, method).remote(*arguments), timeout=timeout_s)
        except (RayError, RuntimeError) as error:  # RuntimeError: this process has left the cluster
            raise LedgerSilentError(type(error).__name__) from error

    async def later(self, timeout_s: float, method: str, *arguments: Any) -> Any:
        """The same for an event loop."""
        from ray.exceptions import RayError

        try:
            async with asyncio.timeout(timeout_s):
                return await getattr(self._actor, method).remote(*arguments)
        except (RayError, RuntimeError, TimeoutError) as error:
            raise LedgerSilentError(type(error).__name__) from error


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

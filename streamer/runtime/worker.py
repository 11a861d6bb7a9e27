"""The worker thread: sole owner of the model and of the sessions. It serves all lanes, one plan of each at a time.

Its loop reads: wait, carry out what needs no model, take, begin (mel, requests), step (one batch through the model),
complete (events), emit. What is taken, of which lane first, and what of it the model is asked for, `Overload` says.

While a step runs the thread touches no session. So another thread may have them then (`ModelTurns`):
- `watch` carries out without the model what is late and waits behind a step, and says where a step takes too long;
  from `hang_s` on, and where the thread ended, it puts a new thread with a spare engine in its place, and what the old
  one still finds is not used;
- `take_over` finishes the sessions without the model, where the program ends and the step takes too long.

Between steps the thread lends the model to whoever has other work for it (`lend`: windows of uploaded recordings), one
piece at a time and behind the lanes; a loan is watched as a step is.

Whatever a session raises, or the model for it three times in a row, ends and restarts that session alone (`Lane.fall`).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from streamer.errors import EngineError
from streamer.events import SAMPLE_RATE, State
from streamer.events.plans import StepRequest, StepResult
from streamer.model.engine import StepEngine
from streamer.model.graphs import BATCH_BUCKETS
from streamer.model.own_sounds import OwnLayer
from streamer.runtime.admission import Admission
from streamer.runtime.lane import Clock, Lane
from streamer.runtime.model_turns import ModelTurns, Phase, TakenOver
from streamer.runtime.overload import DEGRADED_LAG_S, FAILURES_MAX, PASS_OVER_S, Backlog, Drain, Job, Overload
from streamer.runtime.pace import text_alone
from streamer.runtime.stream import Emit, Hearing
from streamer.runtime.told import Told
from streamer.settings.config import WindowSettings
from streamer.vad.planner import SILENCE_DB

log = logging.getLogger(__name__)

BATCH = BATCH_BUCKETS[-1]  # windows that go through the model together
PLANS_A_ROUND = 32  # most that one lane carries out while the others wait for their step
TELL_S = 2.5  # a step that takes so long is said
HANG_S = 10.0  # and one that takes so long never ends, as far as `ModelTurns` can tell,
FAR_HANG_S = 60.0  # of an engine elsewhere, which tries for 40 s itself: its machines come and go
RESTARTS_MAX = 2  # in a row without a step that worked: then only a new process helps
STUCK_S = 30.0  # a round without the model that takes so long: the thread is stuck where nobody can help it

P = ParamSpec("P")
Done = TypeVar("Done")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class _Window:
    """What the model is asked for a job of a lane."""

    lane: Lane
    job: Job
    request: StepRequest


class Worker:
    """Runs `engine` for every lane. `failure` holds the error that only a new process helps against, if there is one.

    `spare` makes the engine to go on with where a step hangs or the device failed; None: the same one is asked again.
    `clock` measures the steps. `hang_s`: a step that takes so long never ends.
    """

    def __init__(
        self,
        engine: StepEngine,
        clock: Clock = time.monotonic,
        spare: Callable[[], StepEngine] | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self._hang_s = hang_s
        self.overload = Overload()
        self.admission = Admission()
        self.failure: Exception | None = None
        self._clock = clock
        self._ready = threading.Condition()
        self._turns = ModelTurns(engine, spare or (lambda: engine), self._ready, clock)
        self._lanes: list[Lane] = []
        self._stopping = False
        self._in_hand: Sequence[_Window] = ()  # what the step at hand is for
        self._overtaken: set[Lane] = set()  # of these, whose hop was carried out meanwhile: only text is still of use
        self._taken_samples = 0  # of plans, since the last step
        self._busy: Lane | None = None  # whose session is being worked on
        self._round_s: float | None = None  # when the round at hand began
        self._told_of_hang = False
        self._restarts = 0  # since the last step that worked
        self.restarts = 0  # in all
        self._thread = self._new_thread()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(
        self,
        hearing: Hearing,
        emit: Emit,
        patience_s: float = 0.0,
        window: WindowSettings | None = None,
        unread_samples: Callable[[], int] = lambda: 0,
        told: Told | None = None,
    ) -> Lane:
        """A lane for one more stream, as in `Lane` and `Backlog`; from any thread."""
        backlog = Backlog(window or WindowSettings(), patience_s)
        lane = Lane(hearing, emit, backlog, self._ready, self._clock, unread_samples, told)
        with self._ready:
            self._lanes.append(lane)
        return lane

    def lend(self, work: Callable[[], Made]) -> Made:
        """Have the worker's thread do `work` with the model and wait for what it returns or raises; from any thread.

        Raises EngineError where the worker ends before.
        """
        return self._turns.lend(work)

    def listen_for(self, own: OwnLayer) -> None:
        """From the next step on the engine judges these sounds of one's own; waits for that, as `lend` does."""
        self.lend(lambda: self._turns.listen_for(own))

    def refusal(self) -> str | None:
        """Why one more stream cannot be carried now, in a line; None: it can. From any thread."""
        with self._ready:
            now_s = self._clock()
            ages_s = [now_s - lane.opened_s for lane in self._lanes]
            late_s = max((lane.backlog.late_s(now_s) for lane in self._lanes), default=0.0)
            slowed = any(lane.backlog.announced.hop_s for lane in self._lanes)
            return self.admission.refusal(ages_s, late_s, slowed=slowed)

    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that are not done."""
        with self._ready:
            return tuple(self._lanes)

    @property
    def responsive(self) -> bool:
        """Whether the thread gets on, or `watch` will see to it: False where it is stuck outside of the model."""
        round_s = self._round_s
        return round_s is None or self._turns.phase is not Phase.SERVING or self._clock() - round_s < STUCK_S

    def watch(self) -> None:
        """Look after the thread, every now and then, from the one that may `stop` it."""
        with self._ready:
            dead, hangs_s = not self._thread.is_alive(), self._turns.taken_s
            hopeless = dead or self._turns.never_ends(self._hang_s)
            if self.failure or self._stopping or self._turns.phase in (Phase.TAKEN, Phase.ENDED):
                return
            told = hopeless or hangs_s >= TELL_S
            late_s = max((lane.backlog.late_s(self._clock()) for lane in self._lanes), default=0.0)
            if not told and (self._turns.phase is not Phase.STEPPING or late_s < DEGRADED_LAG_S):
                return
            self._turns.enter(Phase.LENT)
        if told and not self._told_of_hang:
            self._told_of_hang = True
            said = f"the model has not answered for {hangs_s:.0f} s: captions wait, tags are left out"
            said = "the thread that asks the model ended" if dead else said
            self._tell_all("degraded", said)
        if hopeless:
            self._replace(EngineError("the thread ended" if dead else f"no answer within {hangs_s:.0f} s"))
        else:
            for lane in self.lanes():
                self._guarded(lane, self._overtake, lane, PASS_OVER_S if told else DEGRADED_LAG_S)
            with self._ready:
                self._turns.enter(Phase.STEPPING)

    def stop(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; False when it did not finish all sessions in time."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._turns.phase in (Phase.ENDED, Phase.TAKEN)

    def take_over(self, timeout_s: float) -> bool:
        """Finish every session from the calling thread, without the model, because a step of it takes too long.

        After `stop`. False: within `timeout_s` the worker neither ended nor began a step (it waits for who writes the
        events), and the sessions stay as they are.
        """
        with self._ready:
            free = self._ready.wait_for(
                lambda: self._turns.phase is not Phase.SERVING or not self._thread.is_alive(), timeout_s
            )
            if not free:
                return False
            if self._turns.phase is Phase.ENDED:
                return True
            self._turns.enter(Phase.TAKEN)
        for window in self._in_hand:
            window.lane.backlog.give_up(window.job)
            self._guarded(window.lane, self._complete_window, window, None)
        for lane in self.lanes():
            self._leave_out(lane)
        return True

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, args=(self._turns.new_owner(),), name="worker", daemon=True)

    def _run(self, number: int) -> None:
        try:
            self._turns.open_engine()
            while (lanes := self._wait()) is not None:
                self._serve(lanes)
                with self._ready:
                    others_wait = any(lane.waiting for lane in self._lanes)
                self._turns.do_loan(others_wait=others_wait)
        except TakenOver:
            return
        except BaseException as error:
            said, debug = f"{type(error).__name__}: {error}", log.isEnabledFor(logging.DEBUG)
            log.error("the worker ended: %s", said, exc_info=debug)
            return
        for lane in self.lanes():
            self._leave_out(lane)
        self._turns.end(number)

    def _wait(self) -> list[Lane] | None:
        """The lanes that have something to do, none where somebody else wants the model; None: the end."""
        with self._ready:
            self._round_s = None
            self._ready.wait_for(
                lambda: self._stopping or self._turns.loans or any(lane.waiting for lane in self._lanes)
            )
            self._round_s = self._clock()
            return None if self._stopping else [lane for lane in self._lanes if lane.waiting]

    def _serve(self, lanes: Sequence[Lane]) -> None:
        """One round: what needs no model, of every lane; then one batch of windows, the most urgent lanes' first."""
        began_s = self._clock()
        for lane in lanes:
            self._guarded(lane, self._act, lane)
        self._in_hand = self._gather([lane for lane in lanes if not lane.done.is_set()])
        windows, results = self._in_hand, self._step(self._in_hand)
        self._in_hand = ()
        now_s = self._clock()
        self.overload.stepped([lane.backlog for lane in self.lanes()], now_s, now_s - began_s)
        with self._ready:
            self.admission.stepped(now_s - began_s, self._taken_samples / SAMPLE_RATE)
            self._taken_samples = 0
        if self._told_of_hang and any(results):
            self._told_of_hang = False
            self._tell_all("listening", "")
        for window, result in zip(windows, results, strict=True):
            self._guarded(window.lane, self._complete_window, window, result)
            self._guarded(window.lane, self._carry_out, window.lane)
        self._overtaken.clear()

    def _guarded(self, lane: Lane, work: Callable[P, Done], *args: P.args, **named: P.kwargs) -> Done | None:
        """Work on one session: whatever is raised there closes that session alone, and the others go on."""
        before, self._busy = self._busy, lane
        try:
            done = work(*args, **named)
        except Exception as error:  # noqa: BLE001  the top of a session
            lane.fall(error)
            done = None
        self._busy = before  # not where the thread itself ends: `watch` has to know whose session it left half-way
        return done

    def _act(self, lane: Lane) -> None:
        """What was asked of the session, and what its plans ask of nobody else."""
        with self._ready:
            actions = lane.take_actions()
        for action in actions:
            if lane.resume():
                lane.say(action(lane.hearing.session))
        self._carry_out(lane)

    def _gather(self, lanes: Sequence[Lane]) -> list[_Window]:
        """The windows of the next batch, in the order of their lanes' turns."""
        with self._ready:
            waiting = [lane for lane in lanes if lane.waiting]
            order = self.overload.order([lane.backlog for lane in waiting], self._clock())
        windows: list[_Window] = []
        for place in order:
            if len(windows) == BATCH:
                break
            lane = waiting[place]
            window = self._guarded(lane, self._carry_out, lane, model=True)
            windows += [window] if window else []
        return windows

    def _carry_out(self, lane: Lane, *, model: bool = False) -> _Window | None:
        """Carry out what the lane has up to the first plan that may need the model.

        With `model` up to the first that does need it: that one is begun, and its window is what the model is asked.
        """
        resumed = lane.resume()
        for _ in range(PLANS_A_ROUND):
            if lane.over:
                self._leave_out(lane)
                break
            job = self._take(lane, model=model or not resumed)
            if job is None:
                with self._ready:
                    empty = lane.empty
                if empty:
                    self._finish(lane)
                break
            if not resumed:  # there is no session that could hear it
                lane.backlog.give_up(job)
                continue
            request = lane.hearing.begin(job.plan, text=job.text, judge=job.judge) if model else None
            if request is not None:
                return _Window(lane, job, replace(request, urgent=lane.backlog.closing))
            self._complete(lane, job, None)
        return None

    def _take(self, lane: Lane, *, model: bool = True) -> Job | None:
        with self._ready:
            self._ready.notify_all()  # a full lane will have room
            job = self.overload.take(lane.backlog, self._clock(), model=model)
            self._taken_samples += job.plan.new_samples if job else 0
            return job

    def _complete(self, lane: Lane, job: Job, result: StepResult | None) -> None:
        if lane.rests:  # it failed while the model worked for it
            return
        lane.say(lane.hearing.complete(job.plan, result))
        if result is not None and lane.backlog.failures:
            lane.backlog.failures = 0
            lane.say_state("listening", "", "model")
        if news := self.overload.news(lane.backlog):
            lane.say_state(*news, "pace")

    def _complete_window(self, window: _Window, result: StepResult | None) -> None:
        """What the step found, if anything. A hop that was carried out meanwhile has its text alone to come."""
        lane, job = window.lane, window.job
        if lane not in self._overtaken:
            self._complete(lane, job, result)
        elif result is not None and result.hypothesis is not None:
            late = text_alone(job.plan.end_sample, SILENCE_DB)
            self._complete(lane, replace(job, plan=late), replace(result, judgement=(), own=()))

    def _overtake(self, lane: Lane, late_s: float) -> None:
        """Carry out what is so late, and waits behind a step, without the model (LENT)."""
        window = next((window for window in self._in_hand if window.lane is lane), None)
        text_in_hand = window is not None and window.request.decode is not None
        while not (lane.rests or lane.over):
            with self._ready:
                self._ready.notify_all()  # a full lane will have room
                job = lane.backlog.pass_over(self._clock(), late_s, text_in_hand=text_in_hand)
                self._taken_samples += job.plan.new_samples if job else 0
            if job is None:
                return
            if window is not None and lane not in self._overtaken:
                lane.hearing.mel = lane.hearing.mel.copy()  # the step still reads it
                lane.say(lane.hearing.complete(window.job.plan, None))
                self._overtaken.add(lane)
            lane.hearing.begin(job.plan, text=False, judge=False)
            lane.say(lane.hearing.complete(job.plan, None))
            if self._told_of_hang:  # which says that tags are left out
                lane.backlog.told_judgements = lane.backlog.skipped_judgements
            elif news := self.overload.news(lane.backlog):
                lane.say_state(*news, "pace")

    def _step(self, windows: Sequence[_Window]) -> Sequence[StepResult | None]:
        if not windows:
            return []
        try:
            results = self._turns.step([(window.lane.hearing.mel, window.request) for window in windows])
        except Exception as error:  # noqa: BLE001  whatever the model raises
            if len(windows) > 1:  # one bad window must not cost the others theirs
                return [self._step([window])[0] for window in windows]
            self._failed(windows[0], error)
            return [None]
        self._restarts = 0
        return results

    def _failed(self, window: _Window, error: BaseException) -> None:
        """One window is left out, and people are told; after three in a row the session is closed."""
        self._guarded(window.lane, self._say_failed, window.lane, window.job, error)

    def _say_failed(self, lane: Lane, job: Job, error: BaseException) -> None:
        state, detail = lane.backlog.failed(job, error)
        log.error("%s: %s", lane.hearing.session.name, detail)
        lane.say_state(state, detail, "model")
        if lane.backlog.failures >= FAILURES_MAX:
            raise error

    def _tell_all(self, state: State, detail: str) -> None:
        for lane in self.lanes():
            if not lane.rests and not lane.backlog.failures:
                self._guarded(lane, lane.say_state, state, detail, "model")

    def _replace(self, error: Exception) -> None:
        """Put a new thread with a spare engine in the place of this one (LENT); its windows are left out."""
        busy, windows, self._in_hand = self._busy, self._in_hand, ()
        for window in windows:
            self._failed(window, error)
            if not window.lane.rests:
                window.lane.hearing.mel = window.lane.hearing.mel.copy()  # the old thread may still read it
                self._guarded(window.lane, self._complete_window, window, None)
        self._overtaken.clear()
        if busy is not None and not windows:  # the thread ended in the middle of it
            busy.fall(error)
        self._busy = None
        self._restarts += 1
        self.restarts += 1
        with self._ready:
            if self._restarts > RESTARTS_MAX:
                self.failure = EngineError(f"the model does not come back ({error}): the program must be started again")
                self._turns.loans.refuse()
                self._turns.new_owner()
                self._turns.enter(Phase.STEPPING)  # nobody has the sessions: `take_over` may
                return
            log.error("%s: the worker is started again", error)
            self._turns.drop_engine()
            self._thread = self._new_thread()
            self._turns.enter(Phase.SERVING)
        self._thread.start()

    def _leave_out(self, lane: Lane) -> None:
        """Carry out what the lane still has without the model, and finish its session."""
        lane.drain(Drain.OVER)
        while (job := self._take(lane)) is not None:
            if not lane.rests:
                self._guarded(lane, self._pass_over, lane, job)
        self._finish(lane)

    def _pass_over(self, lane: Lane, job: Job) -> None:
        lane.say(lane.hearing.pass_over(job.plan))

    def _end(self, lane: Lane, detail: str) -> None:
        lane.say(lane.hearing.session.finish(detail))

    def _finish(self, lane: Lane) -> None:
        left_out_s = lane.left_out_samples / SAMPLE_RATE
        detail = f"the program had to end before the last {left_out_s:.1f} s were transcribed" if left_out_s else ""
        if not lane.rests:
            self._guarded(lane, self._end, lane, detail)
        if lane.rests:
            lane.close_told("stopped", detail)
        with self._ready:
            self._lanes.remove(lane)
        lane.done.set()

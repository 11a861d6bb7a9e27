"""What is done where the machine cannot do everything: whose turn it is, the hop that grows, what must not be lost.

On scripted clocks; `test_small_machine` has the same with the worker's own loop.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Hop, Plan, SegmentClosed, SegmentOpened, SpeechOver
from streamer.runtime.overload import OVERDUE_EVERY, OVERDUE_S, Backlog, Drain, Job, Overload
from streamer.runtime.pace import CALM_S, SOON_S, WINDOW_S, Pace, TextSchedule
from streamer.settings.config import Settings, VadSettings, WindowSettings
from streamer.vad.planner import Planner, VoiceFrame

NOW_S = 100.0


def waiting(closing: bool, since_s: float) -> Backlog:
    """A stream whose next plan came then, of an utterance that ends or not."""
    backlog = Backlog(WindowSettings())
    backlog.put(SegmentClosed(16_000, 16_000) if closing else SegmentOpened(16_000, 16_000), since_s)
    return backlog


WAITING = st.builds(waiting, st.booleans(), st.floats(90, NOW_S))


def test_who_closes_comes_first_then_who_waits_longest():
    backlogs = [waiting(False, 99.5), waiting(True, 99.9), waiting(False, 99.1), waiting(True, 99.7)]
    assert Overload().order(backlogs, NOW_S) == [3, 1, 2, 0]


def test_equals_keep_their_order():
    assert Overload().order([waiting(False, 99.0)] * 5, NOW_S) == [0, 1, 2, 3, 4]


def test_every_fourth_place_is_for_who_waits_too_long():
    closing = [waiting(True, 99.0)] * 9
    overdue = [waiting(False, NOW_S - OVERDUE_S), waiting(False, 1.0), waiting(False, 99.0)]
    assert Overload().order(closing + overdue, NOW_S) == [0, 1, 2, 10, 3, 4, 5, 9, 6, 7, 8, 11]


@given(st.lists(WAITING, max_size=80))
def test_all_are_served_once_and_the_oldest_overdue_ones_soon(backlogs):
    order = Overload().order(backlogs, NOW_S)
    assert sorted(order) == list(range(len(backlogs)))
    overdue = sorted((one.since_s, place) for place, one in enumerate(backlogs) if NOW_S - one.since_s >= OVERDUE_S)
    for rank, (_, place) in enumerate(overdue, start=1):
        assert order.index(place) < OVERDUE_EVERY * rank
    late = {place for _, place in overdue}
    assert [place for place in order if place not in late] == sorted(
        (place for place in range(len(backlogs)) if place not in late),
        key=lambda place: (not backlogs[place].closing, backlogs[place].since_s),
    )


class Machine:
    """A worker on a scripted clock: `streams` streams, of which each text step and each judgement costs its time."""

    def __init__(self, text_s: float, judge_s: float = 0.0) -> None:
        self.pace, self.now_s, self.text_s, self.judge_s = Pace(), 0.0, text_s, judge_s
        self.hops: list[float] = []
        self._hop, self._free_s = 0, 0.0

    def run(self, seconds: float) -> list[float]:
        """Serve hops of 0.5 s as they come; the hops in force, each once."""
        until_s = self.now_s + seconds
        while self._hop * 0.5 < until_s:
            self._hop += 1
            came_s = self._hop * 0.5
            began_s = max(came_s, self._free_s)
            every = round(max(0.5, self.pace.hop_s) / 0.5)
            took_s = self.text_s * (self._hop % every == 0) + self.judge_s * (self._hop % 2 == 0)
            self._free_s = began_s + took_s
            if self.pace.step(self._free_s, took_s, began_s - came_s, 0.5, 2.0):
                self.hops.append(self.pace.hop_s)
        self.now_s = until_s
        return self.hops


@pytest.mark.parametrize(
    ("text_s", "hops"),
    [(0.1, []), (0.3, []), (0.44, []), (0.6, [1.0]), (0.8, [1.0]), (1.4, [1.0, 2.0]), (9.0, [1.0, 2.0])],
)
def test_the_hop_grows_until_the_machine_keeps_up_and_no_further(text_s, hops):
    assert Machine(text_s).run(300) == hops


def test_nothing_queues_for_ever_once_the_hop_has_grown():
    machine = Machine(0.8, 0.05)
    machine.run(200)
    assert machine.pace.hop_s == 1.0
    assert machine._free_s - machine._hop * 0.5 < 1.0


def test_it_shrinks_again_step_by_step_when_there_is_room():
    machine = Machine(1.4)
    machine.run(40)
    machine.text_s = 0.05
    assert machine.run(40) == [1.0, 2.0, 1.0, 0.0]


def test_one_slow_step_changes_nothing():
    pace = Pace()
    for second in range(1, 60):
        took_s = 1.2 if second == 30 else 0.1
        assert not pace.step(float(second), took_s, 0.0, 0.5, 2.0)


def test_a_busy_worker_whose_hops_do_not_wait_is_left_alone():
    """A sender that is faster than real time keeps the worker busy; nobody is late for it."""
    pace = Pace()
    assert not any(pace.step(0.1 * step, 0.1, -4.0, 0.5, 2.0) for step in range(1, 1000))


def test_a_hop_that_grows_right_after_shrinking_waits_longer_the_next_time():
    pace, now_s, shrinks = Pace(), 0.0, []
    for _ in range(20_000):
        stretched = pace.hop_s > 0
        now_s += 0.5
        took_s, waited_s = (0.1, 0.0) if stretched else (0.5, 1.0)
        if pace.step(now_s, took_s, waited_s, 0.5, 1.0) and not pace.hop_s:
            shrinks.append(now_s)
    gaps = np.diff(shrinks)
    assert gaps[0] < 2 * (CALM_S + 2 * WINDOW_S) + SOON_S
    assert list(gaps) == sorted(gaps)
    assert gaps[-1] > 300


def test_a_stream_has_no_other_hop_than_its_settings_allow():
    fixed = TextSchedule(WindowSettings(hop_s=0.5, hop_max_s=0.5))
    slow = TextSchedule(WindowSettings(hop_s=1.0, hop_max_s=0.1))
    quick = TextSchedule(WindowSettings(hop_s=0.1))
    assert [schedule.hop_s(1.0) for schedule in (fixed, slow, quick)] == [0.5, 1.0, 1.0]
    assert [schedule.hop_s(0.0) for schedule in (fixed, slow, quick)] == [0.5, 1.0, 0.1]


def planned(voices: list[bool], chosen: Settings):
    planner, frame = Planner(chosen), np.full(FRAME_SAMPLES, 0.1, np.float32)
    plans = [plan for voiced in voices for plan in planner.step(frame, VoiceFrame(voiced, -20.0))]
    return plans + planner.finish(np.zeros(0, np.float32))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 120)), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.2, 0.5, 1.0]),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), min_size=1, max_size=20),
    st.integers(1, 9),
)
def test_no_voice_is_left_out_and_no_judgement_whatever_the_hop(runs, hop_s, paces, burst):
    voices = [voiced for voiced, count in runs for _ in range(count)]
    window = WindowSettings(hop_s=hop_s, hop_max_s=5.0)
    chosen = Settings(vad=VadSettings(hangover_ms=max(600, round(hop_s * 1000))), window=window)
    plans = planned(voices, chosen)
    now_s = 0.0
    overload, backlog = Overload(), Backlog(window)
    carried: list[Hop] = []
    decoded = 0
    for start in range(0, len(plans), burst):
        for plan in plans[start : start + burst]:
            backlog.put(plan, now_s)
        now_s += 0.3
        while True:
            overload.pace.hop_s = paces[len(carried) % len(paces)]
            if (job := overload.take(backlog, now_s)) is None:
                break
            plan = job.plan
            if isinstance(plan, SegmentClosed):
                assert decoded >= plan.speech_end_sample
            elif isinstance(plan, Hop):
                decoded = plan.end_sample if plan.text and job.text else decoded
                carried += [plan] if len(plan.samples) else []
                assert job.text or len(plan.samples)
    assert carried == [plan for plan in plans if isinstance(plan, Hop)]


def test_only_what_came_in_a_burst_may_wait():
    """Sound that comes as it sounds is late as soon as it waits; a burst has as long as it would have taken to come."""
    silence = np.zeros(8000, np.float32)
    hops = [Hop(8000 * (n + 1), silence, (False,) * 25, True, False, False, -90.0) for n in range(20)]
    in_step, at_once = Backlog(WindowSettings(), 5.0), Backlog(WindowSettings(), 5.0)
    for number, one in enumerate(hops):
        in_step.put(one, 0.5 * number)
        at_once.put(one, 0.0)
    late = [(in_step.late_s(9.5), at_once.late_s(9.5))]
    while in_step.take(9.5, 0.0):
        at_once.take(9.5, 0.0)
        late.append((in_step.late_s(9.5), at_once.late_s(9.5)))
    assert late[:-1] == [(9.5 - 0.5 * n, 9.5 - min(0.5 * n, 5.0)) for n in range(20)]
    assert late[-1] == (float("-inf"), float("-inf"))


class Simulation:
    """Streams that are heard in real time on a machine which is `slow` times too slow for all of their windows."""

    BATCH = 2

    def __init__(self, streams: list[list[Plan]], slow: float, judge_share: float = 0.2) -> None:
        """`judge_share`: what tags alone cost, of what a window with text does."""
        self.now_s, self.overload = 0.0, Overload()
        self.coming = [list(plans) for plans in streams]
        self.backlogs = [Backlog(WindowSettings()) for _ in streams]
        self.done: list[list[Job]] = [[] for _ in streams]
        self.decoded = [0] * len(streams)  # end of the last window of each
        self.lags_s: list[float] = []
        self.queued: list[list[Plan]] = [[] for _ in streams]
        self.held_up_s = [0.0] * len(streams)  # until when the listener had to wait for room
        self.free_since_s = [0.0] * len(streams)  # when the plan before was done
        self._text_s = 0.8 * slow * 0.5 / len(streams)
        self._judge_s = judge_share * self._text_s

    def run(self, until_s: float = float("inf")) -> None:
        """Serve everything that comes, as the worker does."""
        while self.now_s < until_s and self._come():
            for backlog in self.backlogs:
                self._carry_out(backlog, model=False)
            began_s, windows = self.now_s, []
            for place in self.overload.order(self.backlogs, self.now_s):
                if len(windows) < self.BATCH and (job := self._carry_out(self.backlogs[place], model=True)):
                    windows.append((self.backlogs[place], job))
            if not windows:
                self.now_s += 0.02
            for _, job in windows:
                self.now_s += self._text_s if self._texts(job) else self._judge_s
            self.overload.stepped(self.backlogs, self.now_s, self.now_s - began_s if windows else 0.0)
            self._come()
            for backlog, job in windows:
                self._complete(backlog, job)
                self._carry_out(backlog, model=False)

    def _come(self) -> bool:
        """Put in what is due; whether there is anything left to do."""
        for number, (plans, backlog) in enumerate(zip(self.coming, self.backlogs, strict=True)):
            while plans and plans[0].end_sample <= self.now_s * 16_000 and not backlog.full:
                plan = plans.pop(0)
                backlog.put(plan, max(plan.end_sample / 16_000, self.held_up_s[number]))
                self.queued[number].append(plan)
            if backlog.full:
                self.held_up_s[number] = self.now_s
            assert backlog.lag_s <= 10
            behind = plans[0].end_sample / 16_000 if plans else self.now_s
            self.lags_s.append(backlog.lag_s + max(0.0, self.now_s - behind))
        return any(self.coming) or any(self.backlogs)

    def _carry_out(self, backlog: Backlog, *, model: bool) -> Job | None:
        """Up to a plan that needs the model, which is returned."""
        while (job := self.overload.take(backlog, self.now_s, model=model)) is not None:
            assert model or not isinstance(job.plan, Hop)
            if self._texts(job) or (isinstance(job.plan, Hop) and job.plan.judge and job.judge):
                return job
            self._complete(backlog, job)
        return None

    def _texts(self, job: Job) -> bool:
        return isinstance(job.plan, Hop) and job.plan.text and job.text

    def _complete(self, backlog: Backlog, job: Job) -> None:
        number, plan = self.backlogs.index(backlog), job.plan
        queued = [id(one) for one in self.queued[number]]
        next_one = queued[:1] == [id(plan)]  # else an end before it was left out
        if id(plan) in queued:
            del self.queued[number][: queued.index(id(plan)) + 1]
        if next_one and not isinstance(plan, Hop | SegmentClosed):  # patterns, lost audio, states wait for no batch
            waits_s = self.now_s - max(self.free_since_s[number], plan.end_sample / 16_000)
            assert backlog.lag_s > 9 or waits_s <= 0.02 + self.BATCH * self._text_s
        self.free_since_s[number] = self.now_s
        self.overload.news(backlog)
        self.done[number].append(job)
        if self._texts(job):
            self.decoded[number] = plan.end_sample
        if backlog.drain is Drain.OVER:  # what is left out is said with the end
            return
        if isinstance(plan, SegmentClosed):  # no final is lost
            assert self.decoded[number] >= plan.speech_end_sample
        if isinstance(plan, Hop) and plan.judge and not job.judge:  # tags are left out only when told
            assert backlog.announced.behind


TALK = st.lists(st.tuples(st.booleans(), st.integers(10, 200)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(st.lists(TALK, min_size=1, max_size=4), st.sampled_from([0.3, 1.0, 2.0, 3.0, 6.0]))
def test_all_sound_is_carried_out_once_and_in_order_however_slow_the_machine(talks, slow):
    """Nothing is left out but ends of utterances, each with the beginning of the next."""
    streams = [planned([voiced for voiced, count in talk for _ in range(count)], Settings()) for talk in talks]
    simulation = Simulation(streams, slow)
    simulation.run()
    for plans, jobs in zip(streams, simulation.done, strict=True):
        carried = {id(job.plan): job.plan for job in jobs if not isinstance(job.plan, Hop) or len(job.plan.samples)}
        assert list(carried) == [id(plan) for plan in plans if id(plan) in carried]
        left_out = [plan for plan in plans if id(plan) not in carried and not isinstance(plan, SpeechOver)]
        assert [type(plan) for plan in left_out] == [SegmentClosed, SegmentOpened] * (len(left_out) // 2)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 4),
    st.one_of(st.integers(10, 100), st.integers(100, 6000)),
    st.integers(31, 120),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([(3.0, 5.0), (6.0, 6.5)]),
)
def test_the_lag_levels_off_however_long_or_short_utterances_are(streams, talk, pause, judge_share, machine):
    """Three times too slow, or six times, where a step of one stream takes 2.4 s; also where tags cost as much as text,
    and where each of many short utterances would need a window of its own.
    """
    slow, bound_s = machine
    voices = ([True] * talk + [False] * pause) * max(1, 3000 // (talk + pause))
    simulation = Simulation([planned(voices, Settings())] * streams, slow, judge_share)
    simulation.run()
    assert max(simulation.lags_s) <= bound_s


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 3), st.sampled_from([0.2, 1.0]))
def test_the_lag_recovers_when_the_machine_does_and_that_is_said(streams, judge_share):
    voices = ([True] * 400 + [False] * 50) * 14
    simulation = Simulation([planned(voices, Settings())] * streams, 3.0, judge_share)
    simulation.run(40.0)
    slow = len(simulation.lags_s)
    simulation._text_s, simulation._judge_s = simulation._text_s / 10, simulation._judge_s / 10
    simulation.run()
    assert max(simulation.lags_s[slow + (len(simulation.lags_s) - slow) // 2 :]) <= 1.5
    assert not any(backlog.announced.behind for backlog in simulation.backlogs)


@settings(deadline=None, max_examples=20)
@given(st.lists(TALK, min_size=1, max_size=3), st.floats(0, 20), st.floats(0, 3))
def test_at_the_end_last_words_are_decoded_and_then_the_model_is_asked_no_more(talks, ending_s, over_s):
    streams = [planned([voiced for voiced, count in talk for _ in range(count)], Settings()) for talk in talks]
    simulation = Simulation(streams, 3.0)
    simulation.run(ending_s)
    for drain, until_s in [(Drain.ENDING, ending_s + over_s), (Drain.OVER, float("inf"))]:
        asked = [len(jobs) for jobs in simulation.done]
        for backlog in simulation.backlogs:
            backlog.drain = drain
        simulation.run(until_s)
    for plans, jobs, first in zip(streams, simulation.done, asked, strict=True):
        assert sum(len(job.plan.samples) for job in jobs if isinstance(job.plan, Hop)) == sum(
            len(plan.samples) for plan in plans if isinstance(plan, Hop)
        )
        assert not any(job.text or job.judge for job in jobs[first:] if isinstance(job.plan, Hop))

"""The hop that grows where the machine cannot keep up: its state machine on a scripted clock; what it must not lose."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.plans import Hop, SegmentClosed
from streamer.runtime.lane import Lane
from streamer.runtime.pace import CALM_S, SOON_S, WINDOW_S, Pace, TextTurns
from streamer.settings.config import Settings, VadSettings, WindowSettings
from streamer.vad.planner import Planner
from streamer.vad.webrtc import FRAME_SAMPLES, VoiceFrame


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
    fixed = TextTurns(WindowSettings(hop_s=0.5, hop_max_s=0.5))
    slow = TextTurns(WindowSettings(hop_s=1.0, hop_max_s=0.1))
    quick = TextTurns(WindowSettings(hop_s=0.1))
    assert [turns.hop_s(1.0) for turns in (fixed, slow, quick)] == [0.5, 1.0, 1.0]
    assert [turns.hop_s(0.0) for turns in (fixed, slow, quick)] == [0.5, 1.0, 0.1]


def planned(voices: list[bool], chosen: Settings):
    planner, frame = Planner(chosen), np.full(FRAME_SAMPLES, 0.1, np.float32)
    plans = [plan for voiced in voices for plan in planner.step(frame, VoiceFrame(voiced, -20.0, -60.0))]
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
    lane = Lane(SimpleNamespace(), lambda events: None, threading.Condition(), 0.0, window, lambda: now_s)
    carried: list[Hop] = []
    decoded = 0
    for start in range(0, len(plans), burst):
        lane.put(plans[start : start + burst])
        now_s += 0.3
        while (job := lane.take(paces[len(carried) % len(paces)])) is not None:
            plan = job.plan
            if isinstance(plan, SegmentClosed):
                assert decoded >= plan.speech_end_sample
            elif isinstance(plan, Hop):
                decoded = plan.end_sample if plan.text and job.text else decoded
                carried += [plan] if len(plan.samples) else []
                assert job.text or len(plan.samples)
    assert carried == [plan for plan in plans if isinstance(plan, Hop)]

"""How many engines there ought to be, and that Serve takes what we ask it for."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.cluster.engine_facts import EngineFacts, EngineReport, RoundFacts, StepCost, render
from streamer.cluster.scaling import LOAD, engines_wanted


@pytest.mark.parametrize(
    ("loads", "engines"),
    [((0.0,), 1), ((0.69,), 1), ((0.71,), 2), ((0.7, 0.7), 2), ((0.9, 0.9), 3), ((0.1, 0.1, 0.1), 1), ((5.0,), 8)],
)
def test_as_many_as_the_load_needs_at_seventy_percent(loads, engines):
    said = {LOAD: {f"engine {number}": load for number, load in enumerate(loads)}}
    assert engines_wanted(SimpleNamespace(aggregated_metrics=said, target_num_replicas=4))[0] == engines


@pytest.mark.parametrize("said", [None, {}, {LOAD: {}}])
def test_as_long_as_nobody_says_anything_it_stays(said):
    assert engines_wanted(SimpleNamespace(aggregated_metrics=said, target_num_replicas=4))[0] == 4


def test_what_a_window_costs_in_a_full_batch_is_told_from_smaller_ones_and_follows_the_machine():
    cost = StepCost()
    assert cost.window_s(16) == 0.0
    for windows in (1, 2, 4, 3) * 20:
        cost.add(windows, 0.02 + 0.005 * windows)
    assert cost.window_s(16) == pytest.approx(0.02 / 16 + 0.005)
    for windows in (1, 2, 4, 3) * 100:  # now it is five times as slow
        cost.add(windows, 0.1 + 0.025 * windows)
    assert cost.window_s(16) == pytest.approx(0.1 / 16 + 0.025, rel=0.01)


def test_batches_that_are_all_alike_say_what_they_are():
    cost = StepCost()
    for _ in range(20):
        cost.add(16, 0.4)
    assert cost.window_s(16) == pytest.approx(0.025)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0.001, 15.0)), min_size=1, max_size=60))
def test_whatever_steps_take_the_cost_is_one_that_can_be(batches):
    cost = StepCost()
    for windows, took_s in batches:
        cost.add(windows, took_s)
    assert 0 < cost.window_s(16) <= max(took_s / windows for windows, took_s in batches) + 1e-9


def test_the_page_of_metrics_has_a_row_for_each_engine():
    first, second = (EngineFacts(name, "nano", 1) for name in ("e1", "e2"))
    first.stepped(4, 0.03)
    first.stepped(1, 0.01)
    rounds = RoundFacts(windows=5)
    rounds.rounds.add(0.2)
    text = render(rounds, EngineReport(3, (first.snapshot(), second)))
    for line in (
        "streamer_windows_total 5",
        'streamer_round_seconds_bucket{le="0.25"} 1',
        "streamer_engines 2",
        "streamer_engines_started_total 3",
        'streamer_engine_windows_total{engine="e1"} 5',
        'streamer_engine_step_seconds_bucket{engine="e1",le="0.01"} 1',
        'streamer_engine_batch_windows_sum{engine="e1"} 5',
        'streamer_engine_batch_windows_count{engine="e2"} 0',
    ):
        assert f"\n{line}\n" in f"\n{text}"
    assert "streamer_engines_known 0" in render(rounds, None)


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (extra `cluster`)")
def test_serve_takes_the_rule_and_the_delays():
    from ray.serve.config import AutoscalingConfig

    from streamer.cluster.connect import scaling
    from streamer.settings.cluster import ClusterSettings

    given = ClusterSettings(replicas=2, max_replicas=5, idle_s=60)
    found = AutoscalingConfig(**scaling(given)["autoscaling_config"])
    assert (found.min_replicas, found.max_replicas, found.downscale_delay_s) == (2, 5, 60)
    assert found.policy.get_policy()(SimpleNamespace(aggregated_metrics={LOAD: {"e": 2.0}}))[0] == 3
    assert scaling(ClusterSettings(replicas=3)) == {"num_replicas": 3}

"""The simulated cluster: what can be worked out by hand comes out, and the rule for sizes carries what it promises."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.bench.simulate import (
    BATCH,
    GATHER_S,
    Costs,
    Fleet,
    capacity,
    fleet_for,
    read_costs,
    report,
    simulate,
    with_call_cost,
)
from streamer.commands.cli import main
from streamer.errors import UsageError

COSTS = Costs(
    steps_s={1: 0.020, 2: 0.028, 4: 0.044, 8: 0.076, 16: 0.140},
    send_s=0.0005,
    finish_s=0.001,
    way_s=0.002,
    windows_per_s=1.6,
)


def test_one_stream_alone_waits_for_nothing_but_its_own_step():
    found = simulate(COSTS, Fleet(streams=1, replicas=1, seconds=200.0))
    alone_s = COSTS.send_s + COSTS.way_s + GATHER_S + COSTS.step_s(1) + COSTS.finish_s
    assert found["latency_p50_ms"] == pytest.approx(1000 * alone_s, abs=0.1)
    assert found["windows_per_s"] == pytest.approx(COSTS.windows_per_s, rel=0.05)
    assert found["engines_busy"] == pytest.approx(COSTS.windows_per_s * COSTS.step_s(1), rel=0.05)


def test_where_there_is_always_work_an_engine_does_what_its_largest_batch_does():
    fast = replace(COSTS, send_s=0.0, finish_s=0.0, way_s=0.0)
    found = simulate(fast, Fleet(streams=400, replicas=1, ingresses=8))
    assert found["windows_per_s"] == pytest.approx(BATCH / fast.step_s(BATCH), rel=0.03)
    assert found["engines_busy"] == pytest.approx(1.0, abs=0.02)
    assert not found["carried"]


def test_one_ingress_has_one_round_out_at_a_time_however_many_engines_there_are():
    busy = [simulate(COSTS, Fleet(streams=400, replicas=count)) for count in (8, 32)]
    assert busy[1]["windows_per_s"] < 1.3 * busy[0]["windows_per_s"]
    assert (
        simulate(COSTS, Fleet(streams=400, replicas=8, ingresses=8))["windows_per_s"] > 1.2 * busy[0]["windows_per_s"]
    )


def test_what_calls_cost_is_found_from_how_long_rounds_take():
    fleet = Fleet(streams=40, replicas=2, seconds=40.0)
    dear = replace(COSTS, call_s=0.004)
    round_s = simulate(dear, fleet)["round_mean_ms"] / 1000
    assert round_s > simulate(COSTS, fleet)["round_mean_ms"] / 1000 + 0.004
    assert with_call_cost(COSTS, fleet, round_s).call_s == pytest.approx(0.004, rel=0.2)
    assert with_call_cost(COSTS, fleet, 0.0).call_s == 0.0


def test_the_same_seed_gives_the_same_numbers_and_another_nearly_the_same():
    fleet = Fleet(streams=40, replicas=2)
    assert simulate(COSTS, fleet) == simulate(COSTS, fleet)
    other = simulate(COSTS, replace(fleet, seed=1))
    assert other["latency_p50_ms"] == pytest.approx(simulate(COSTS, fleet)["latency_p50_ms"], rel=0.15)


@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_as_many_as_the_rule_says_carry_the_streams(streams):
    fleet = fleet_for(COSTS, streams)
    found = simulate(COSTS, replace(fleet, seconds=10.0))
    assert found["carried"]
    assert found["windows_per_s"] == pytest.approx(COSTS.windows_per_s * streams, rel=0.35 if streams < 10 else 0.1)
    assert fleet.replicas <= streams / capacity(COSTS) + 1


@pytest.mark.parametrize(("windows", "step_s"), [(1, 0.020), (3, 0.036), (16, 0.140), (20, 0.172)])
def test_steps_between_and_beyond_those_that_were_measured(windows, step_s):
    assert COSTS.step_s(windows) == pytest.approx(step_s)


def test_the_command_reads_what_bench_cluster_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    steps = {str(size): 1000 * step_s for size, step_s in COSTS.steps_s.items()}
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps({"steps_ms": steps, "costs": COSTS.in_ms()}))
    assert read_costs(file) == COSTS
    out = ("--out", str(tmp_path / "out"), "--json", "-")
    assert main(["bench", "simulate", "--steps", str(file), "--streams", "5,50", *out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["streams"] for row in found["rows"]] == [5, 50]
    assert "Many streams, simulated" in (tmp_path / "out" / "simulate.md").read_text()


def test_a_file_that_is_something_else_gives_one_line(tmp_path: Path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UsageError, match=r"--steps .*x\.json: is not the JSON of `streamer bench cluster`"):
        read_costs(tmp_path / "x.json")
    with pytest.raises(UsageError, match=r"--steps .*y\.json: cannot be read: No such file"):
        read_costs(tmp_path / "y.json")


def test_the_page_has_a_row_for_each_size():
    rows = [simulate(COSTS, fleet_for(COSTS, streams)) for streams in (1, 10)]
    assert report(COSTS, rows, "a test").markdown().count("| True |") == 2

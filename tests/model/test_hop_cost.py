"""What hops cost is measured once for each machine, thread count and precision, and remembered."""

import torch

from streamer.model import hop_cost
from streamer.model.hop_cost import HopCosts, measured_hop_s
from streamer.model.machine_facts import FRESH_S, MachineFacts

CPU = torch.device("cpu")


class Scripted:
    def __init__(self, *costs_s):
        self.costs_s, self.now_s = list(costs_s), 1000.0

    def measure(self, size, device, dtype):
        return self.costs_s.pop(0)

    def costs(self, path):
        return HopCosts(MachineFacts(path, lambda: self.now_s), self.measure)


def test_a_cost_is_measured_once(tmp_path):
    script = Scripted(0.2)
    costs = script.costs(tmp_path / "deep" / "costs.json")
    assert not costs.known("base", CPU, torch.float32, 0.3)
    assert [costs.hop_s("base", CPU, torch.float32, 0.3) for _ in range(3)] == [0.2] * 3
    script.now_s += 100 * FRESH_S
    assert script.costs(tmp_path / "deep" / "costs.json").known("base", CPU, torch.float32, 0.3)


def test_what_was_too_slow_is_measured_again_after_a_week(tmp_path):
    script = Scripted(0.9, 0.2)
    costs = script.costs(tmp_path / "costs.json")
    assert costs.hop_s("base", CPU, torch.float32, 0.3) == 0.9
    assert costs.hop_s("base", CPU, torch.float32, 0.3) == 0.9
    script.now_s += FRESH_S
    assert not costs.known("base", CPU, torch.float32, 0.3)
    assert costs.hop_s("base", CPU, torch.float32, 0.3) == 0.2


def test_another_precision_or_thread_count_is_another_cost(tmp_path, monkeypatch):
    costs = Scripted(0.1, 0.2, 0.3).costs(tmp_path / "costs.json")
    assert costs.hop_s("base", CPU, torch.float32, 1) == 0.1
    assert costs.hop_s("base", CPU, torch.bfloat16, 1) == 0.2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert costs.hop_s("base", CPU, torch.float32, 1) == 0.3


def test_a_damaged_memory_is_measured_anew_and_one_that_cannot_be_written_is_done_without(tmp_path):
    path = tmp_path / "costs.json"
    for damage in ("", "[1]", '{"a": 3}', '{"a": {"value": "x", "at": 1}}'):
        path.write_text(damage)
        assert Scripted(0.4).costs(path).hop_s("base", CPU, torch.float32, 1) == 0.4
    (tmp_path / "file").write_text("")
    assert Scripted(0.4).costs(tmp_path / "file" / "costs.json").hop_s("base", CPU, torch.float32, 1) == 0.4


def test_a_hop_is_run_with_weights_that_mean_nothing(monkeypatch):
    monkeypatch.setitem(hop_cost.SIZES, "small enough", (64, 4, 2))
    assert measured_hop_s("small enough", CPU, torch.float32) > 0

"""Which model `auto` stands for, by what the machine carries and what can be had."""

import pytest
import torch

import streamer
from streamer.errors import CheckpointError, DownloadError
from streamer.model import catalog, choice
from streamer.model.choice import HopCosts, Wish, choose, load_model, measured_hop_s, ranked_models
from streamer.model.download import LoadStep
from streamer.model.machine_facts import FRESH_S, MachineFacts

CPU = torch.device("cpu")
ENGLISH, DETECTED, GERMAN = Wish(frozenset({"en"})), Wish(frozenset({""})), Wish(frozenset({"", "de"}))


def chosen(wish, *, carried=("base",), there=("base", "tiny", "tiny.en")):
    asked = []

    def fetch(name):
        asked.append(name)
        if name not in there:
            raise DownloadError(f"{name} cannot be reached")

    choice = choose(lambda name: name.startswith("tiny") or name in carried, fetch, ranked_models(CPU, wish), wish)
    return choice, asked


def test_a_machine_that_carries_base_gets_it_and_nothing_else_is_fetched():
    for wish in (ENGLISH, DETECTED, GERMAN, Wish(translate=True)):
        choice, asked = chosen(wish)
        assert (choice.name, choice.note, asked) == ("base", "", ["base"])


def test_a_slower_machine_gets_a_tiny_one():
    assert chosen(DETECTED, carried=())[0].name == "tiny"
    assert chosen(ENGLISH, carried=())[0].name == "tiny.en"
    assert chosen(ENGLISH, carried=())[0].note == ""


def test_english_only_is_said_where_nobody_asked_for_it():
    choice, asked = chosen(DETECTED, carried=(), there=("tiny.en", "base"))
    assert (choice.name, asked) == ("tiny.en", ["tiny", "tiny.en"])
    assert "understands English only" in choice.note


def test_other_languages_are_worth_a_slow_model_and_english_only_ones_are_none():
    for wish in (GERMAN, Wish(frozenset({"en"}), translate=True)):
        choice, asked = chosen(wish, carried=(), there=("tiny.en", "base"))
        assert (choice.name, asked) == ("base", ["tiny", "base"])
        assert "slow for base" in choice.note


def test_without_any_it_is_nano_and_one_line_says_how_to_get_more():
    choice, asked = chosen(DETECTED, there=())
    assert choice.name == "nano"
    assert asked == ["base", "tiny", "tiny.en"]
    assert "`streamer pull base`" in choice.note
    assert "base cannot be reached" in choice.note
    assert "\n" not in choice.note


def test_load_model_takes_auto_and_says_what_it_does(monkeypatch, tmp_path):
    def unreachable(name, **rest):
        raise DownloadError(f"{name}: no network here")

    monkeypatch.setattr(catalog, "pull_checkpoint", unreachable)
    told: list[LoadStep] = []
    notes: list[str] = []
    costs = HopCosts(MachineFacts(tmp_path / "machine.json"), lambda *asked: 9.9)
    model = load_model("auto", dtype="float32", device="cpu", tell=told.append, note=notes.append, costs=costs)
    assert model.name == "nano"
    assert model.head is not None
    assert [step.what for step in told] == ["measuring whether this machine carries base", "loading nano"]
    assert len(notes) == 1
    again: list[LoadStep] = []
    load_model("auto", dtype="float32", device="cpu", tell=again.append, note=notes.append, costs=costs)
    assert [step.what for step in again] == ["loading nano"]  # what a hop costs is remembered


def test_other_names_mean_what_they_say():
    assert streamer.load_model("nano", dtype="float32").name == "nano"
    with pytest.raises(CheckpointError, match="neither a known name"):
        streamer.load_model("enormous")


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
    monkeypatch.setitem(choice.SIZES, "small enough", (64, 4, 2))
    assert measured_hop_s("small enough", CPU, torch.float32) > 0

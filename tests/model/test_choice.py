"""Which model `auto` stands for, by what the machine carries and what can be had."""

import pytest
import torch

import streamer
from streamer.errors import CheckpointError, DownloadError
from streamer.model import catalog
from streamer.model.choice import Wish, choose, load_model, ranked_models
from streamer.model.hop_cost import HopCosts
from streamer.model.loading import LoadStep
from streamer.model.machine_facts import MachineFacts

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

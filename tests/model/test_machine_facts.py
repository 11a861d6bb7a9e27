"""Which kernels work here is tried once for each machine and version of torch, and remembered."""

import json

import pytest
import torch

from streamer.model import machine_facts
from streamer.model.machine_facts import FRESH_S, MachineFacts, kernel_works


class Probe:
    def __init__(self, *answers):
        self.answers = list(answers)

    def __call__(self):
        return self.answers.pop(0)


@pytest.fixture
def facts(tmp_path, monkeypatch):
    facts = MachineFacts(tmp_path / "deep" / "machine.json")
    monkeypatch.setattr(machine_facts, "remembered", lambda: facts)
    return facts


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.usefixtures("facts")
def test_a_kernel_is_tried_once(works):
    assert [kernel_works("one", Probe(works)), kernel_works("one", Probe()), kernel_works("one", Probe())] == [
        works
    ] * 3
    assert kernel_works("other", Probe(not works)) is not works  # each by itself
    assert kernel_works("one", Probe()) is works


def test_the_record_says_what_was_tried_where_and_when(facts):
    kernel_works("products", Probe(True))
    ((key, fact),) = json.loads(facts.path.read_text()).items()
    assert key.startswith("products, ")
    assert torch.__version__ in key
    assert fact["value"] == 1
    assert fact["at"] > 1e9
    assert [path.name for path in facts.path.parent.iterdir()] == ["machine.json"]  # nothing half written is left


@pytest.mark.usefixtures("facts")
def test_another_torch_or_processor_is_tried_anew(monkeypatch):
    assert kernel_works("one", Probe(True))
    monkeypatch.setattr(machine_facts, "_processor", lambda: "another")
    assert not kernel_works("one", Probe(False))
    monkeypatch.setattr(torch, "__version__", "99")
    assert kernel_works("one", Probe(True))
    monkeypatch.undo()


def test_a_no_is_tried_again_after_a_week_and_a_yes_stays(tmp_path):
    now_s = [1e9]
    facts = MachineFacts(tmp_path / "machine.json", lambda: now_s[0])
    assert facts.value("one", Probe(False), bool) == 0
    assert facts.known("one", bool) == 0
    now_s[0] += FRESH_S
    assert facts.known("one", bool) is None
    assert facts.value("one", Probe(True), bool) == 1
    now_s[0] += 100 * FRESH_S
    assert facts.value("one", Probe(), bool) == 1


@pytest.mark.parametrize("damage", ["", "[1]", "{", "null", '{"a": 3}', '{"a": {"value": "x", "at": 1}}', "\ud800"])
def test_a_damaged_file_is_measured_anew_and_mended(tmp_path, damage):
    facts = MachineFacts(tmp_path / "machine.json")
    facts.path.write_text(damage, errors="surrogatepass")
    assert facts.value("one", Probe(0.4), bool) == 0.4
    assert facts.value("one", Probe(), bool) == 0.4


def test_a_file_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    facts = MachineFacts(tmp_path / "file" / "machine.json")
    assert [facts.value("one", Probe(number), bool) for number in (0.4, 0.5)] == [0.4, 0.5]
    (tmp_path / "folder.json").mkdir()
    assert MachineFacts(tmp_path / "folder.json").value("one", Probe(0.4), bool) == 0.4


def test_what_a_bench_ran_on_is_plain_values():
    found = machine_facts.machine_facts(2)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 2

"""What the chaos bench makes of what it sees; that the program keeps its promises is shown by running it."""

import json

import numpy as np
import pytest

from streamer.bench.chaos.faults import END, FAULTS, KILL, _is_well, missing, words_in
from streamer.bench.chaos.program import Faults
from streamer.bench.chaos.rounds import Round, _told, pieces, report, slopes
from streamer.measure.invariants import must
from streamer.measure.report import as_json


def test_words_that_are_not_there_are_counted_in_their_order():
    assert missing(["a", "b", "c"], ["a", "b", "c"]) == 0
    assert missing(["a", "b", "c"], ["a", "x", "c", "d"]) == 1
    assert missing(["a", "b"], ["b", "a"]) == 1
    assert missing(["a", "b"], []) == 2
    final = {"type": "transcript", "final": True, "words": [{"word": "good"}]}
    assert words_in([final | {"final": False}, final, {"type": "tags"}]) == ["good"]


def test_a_slow_machine_is_no_fault_that_lasts():
    slow = "4 s behind: captions come late, some tags are left out; the machine cannot keep up: text comes every 1 s"
    states = [("listening", ""), ("degraded", f"{slow} instead of 0.5 s; a smaller --model helps")]
    assert all(_is_well({"type": "status", "state": state, "detail": detail}) for state, detail in states)
    for fault in ("the model has not answered for 3 s", f"the model has not answered for 3 s; {slow}"):
        assert not _is_well({"type": "status", "state": "degraded", "detail": fault})


def test_pieces_are_whole_and_end_quietly():
    cut = pieces(np.ones(50 * 16_000, np.float32))
    assert [len(one) / 16_000 for one in cut] == [22, 22, 12]
    assert all(np.abs(one[-16_000:]).max() < 0.01 for one in cut)


def test_a_broken_promise_is_a_row_of_its_own_and_goes_on():
    def breaks() -> str:
        must(False, "ready again", "503")
        return ""

    assert _told("kill -9", breaks) == Round("kill -9", "", "ready again: 503")
    assert _told("kill -9", lambda: "read on") == Round("kill -9", "read on")


def test_slopes_are_by_the_hour_without_the_warm_up():
    rows = [(float(s), 100.0 + max(0, 20 - s) * 50 + s / 36, 10, 5) for s in range(0, 200, 2)]
    found = slopes(rows)
    assert found["rss_mib_per_hour"] == pytest.approx(100)
    assert (found["descriptors_per_hour"], found["threads_per_hour"]) == (0, 0)
    assert slopes(rows[:5])["rss_mib_per_hour"] is None


def test_the_report_says_what_was_broken_and_can_be_written():
    rounds = [
        {"fault": "nonsense", "happened": "2 errors", "broken": "", "lost": 0, "lag_s": 1.2},
        {"fault": "nonsense", "happened": "", "broken": "nonsense is answered by an error", "lost": None, "lag_s": 0.4},
    ]
    names = ("words", "words_lost", "strangers_let_in", "tracebacks", "events_of_room", "lag_median_s", "lag_worst_s")
    result = {"seed": 1, "minutes": 1.0, "model": "nano", "rounds": rounds, "broken": 1, "sizes": []}
    page = report(result | dict.fromkeys(names, 0) | slopes([]))
    assert (
        "| nonsense | 2 | one error of one line each | BROKEN: nonsense is answered by an error | 1 | 0 | 1.2 |"
        in page.markdown()
    )
    assert json.loads(as_json(page.result))["broken"] == 1


def test_each_fault_has_a_name_of_its_own_and_a_promise():
    every = (*FAULTS, KILL, END)
    assert len({fault.name for fault in every}) == len(every)
    assert all(fault.must for fault in every)


def test_faults_of_the_model_come_in_order_and_then_no_more():
    faults = Faults()
    for line in ({"fault": "raise", "times": 2}, {"fault": "end"}):
        faults.take(line)
    assert list(faults._steps) == ["raise", "raise", "end"]

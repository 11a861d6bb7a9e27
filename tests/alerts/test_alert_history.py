"""What was raised is kept, found again, marked and used; the sound around it is kept where people want that."""

import itertools
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import yaml
from alert_rules import parse_rules
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.alerts.deliveries import open_deliveries
from streamer.alerts.delivery import Delivery
from streamer.alerts.history import AlertHistory, HistoryEntry, history_path, tune, wilson
from streamer.alerts.recorder import ClipRing, Recorder, limit_folder, write_wav
from streamer.audio.block import AudioBlock
from streamer.commands.alerts import describe_report, to_yaml
from streamer.errors import ConfigError, UsageError
from streamer.settings.config import validate
from streamer.settings.deliveries import HistorySettings
from streamer.settings.rules import AlertRules

sys.path.append(str(Path(__file__).parent))
from alerts_made import alert, wait_for

NOON = 1_700_000_000.0


def test_an_alert_is_one_entry_with_its_first_and_latest_event(tmp_path):
    history = AlertHistory(tmp_path / "deep" / "alerts.jsonl")
    assert history.read() == []
    assert history.append(alert(7), NOON) == 1
    assert history.append(alert(7, session="other"), NOON + 1) == 2
    assert history.append(alert(7, "cleared", score=0.97), NOON + 5) == 1
    assert history.append(alert(7), NOON + 9) == 3  # the same name in a later run
    first, second, third = history.read()
    assert (first.number, first.first.state, first.latest.state, first.score) == (1, "raised", "cleared", 0.97)
    assert first.time.timestamp() == NOON
    assert (second.latest.session, third.time.timestamp()) == ("other", NOON + 9)
    assert (tmp_path / "deep" / "alerts.jsonl").stat().st_mode & 0o777 == 0o600


def test_marks_are_kept_and_replaced(tmp_path):
    history = AlertHistory(tmp_path / "alerts.jsonl")
    history.append(alert(1), NOON)
    assert history.mark(1, "false", NOON + 60).verdict is None
    assert history.read()[0].verdict == "false"
    history.mark(1, "true", NOON + 61)
    history.append(alert(1, "cleared"), NOON + 62)
    assert history.read()[0].verdict == "true"
    with pytest.raises(UsageError, match="no alert 5 is in"):
        history.mark(5, "true", NOON)


def test_numbers_go_on_in_later_runs_and_without_the_counter(tmp_path):
    path = tmp_path / "alerts.jsonl"
    AlertHistory(path).append(alert(1), NOON)
    assert AlertHistory(path).append(alert(1), NOON) == 2
    (tmp_path / "alerts.jsonl.lock").unlink()
    assert AlertHistory(path).append(alert(1), NOON) == 3


def test_an_alert_that_an_earlier_process_raised_is_ended_in_its_entry(tmp_path):
    path = tmp_path / "alerts.jsonl"
    AlertHistory(path).append(alert(1), NOON)
    AlertHistory(path).append(alert(2), NOON)
    again = AlertHistory(path)
    assert again.append(alert(1, "cleared"), NOON + 9) == 1
    assert again.append(alert(1, "cleared"), NOON + 10) == 3  # that one is over; whatever this is, it is another
    assert [(one.number, one.latest.state) for one in again.read()] == [(1, "cleared"), (2, "raised"), (3, "cleared")]


def test_torn_and_foreign_lines_are_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "alerts.jsonl"
    AlertHistory(path).append(alert(1), NOON)
    with path.open("a") as file:
        file.write('[1]\n{"number": 9, "verdict": "true"}\n{"number": 2, "ti')
    AlertHistory(path).append(alert(2), NOON)
    assert [entry.first.id for entry in AlertHistory(path).read()] == [1, 2]
    assert "cannot be read, and are left out: 2" in caplog.text


def test_a_full_history_loses_the_oldest_unmarked_first(tmp_path, caplog):
    history = AlertHistory(tmp_path / "alerts.jsonl", max_bytes=20_000)
    for id in range(1, 11):
        history.append(alert(id), NOON)
    history.mark(2, "false", NOON)
    for id in range(11, 100):
        history.append(alert(id), NOON)
        assert history.path.stat().st_size <= 20_000
    numbers = [entry.number for entry in history.read()]
    assert numbers[0] == 2
    assert numbers[1:] == list(range(numbers[1], 100))
    assert len(numbers) > 20
    assert "oldest alerts were left out" in caplog.text


def test_one_huge_alert_stays(tmp_path):
    history = AlertHistory(tmp_path / "alerts.jsonl", max_bytes=100)
    for id in (1, 2):
        history.append(alert(id), NOON)
    assert [entry.number for entry in history.read()] == [2]


APPEND_MANY = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from alerts_made import alert
from streamer.alerts.history import AlertHistory

history = AlertHistory(Path(sys.argv[2]))
for id in range(1, 41):
    history.append(alert(id, session=sys.argv[3]), 1.7e9)
    history.append(alert(id, "cleared", session=sys.argv[3]), 1.7e9)
"""


def test_several_processes_share_a_history(tmp_path):
    path, made = str(tmp_path / "alerts.jsonl"), str(Path(__file__).parent)
    both = [subprocess.Popen([sys.executable, "-c", APPEND_MANY, made, path, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in both] == [0, 0]
    entries = AlertHistory(Path(path)).read()
    assert [entry.number for entry in entries] == list(range(1, 81))
    assert all(entry.latest.state == "cleared" for entry in entries)


def test_where_it_is(tmp_path):
    assert history_path(HistorySettings(), {"XDG_STATE_HOME": "/s"}) == Path("/s/streamer/alerts.jsonl")
    assert history_path(HistorySettings(path="/x/y"), {}) == Path("/x/y")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"delivery\.history\.path: .*cannot be written"):
        AlertHistory(tmp_path / "file" / "alerts.jsonl").check()


def test_a_history_that_nobody_asked_for_stops_nobody(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    environment = {"XDG_STATE_HOME": str(tmp_path / "file")}
    assert open_deliveries(validate({}), live=True, environment=environment).recorder is None
    assert "going on without a history" in caplog.text
    asked = validate({"delivery": {"history": {"path": str(tmp_path / "file" / "x.jsonl")}}})
    with pytest.raises(ConfigError):
        open_deliveries(asked, live=True)


# Tuning


def entry(number, rule, score, verdict, labels=("Dog",)):
    first = alert(number, rule=rule, severity="info", score=score / 2, labels=labels)
    last = alert(number, "cleared", rule=rule, severity="info", score=score, labels=labels)
    return HistoryEntry(number, None, first, last, verdict)  # type: ignore[arg-type]


def marked(rule, true=(), false=(), labels=("Dog",)):
    scores = [(score, "true") for score in true] + [(score, "false") for score in false]
    return [entry(number, rule, score, verdict, labels) for number, (score, verdict) in enumerate(scores, 1)]


def report_of(entries, rules=None):
    (report,) = tune(entries, rules or AlertRules.default())
    return report


def test_a_threshold_between_false_and_true_ones():
    report = report_of(marked("dog", true=[0.9, 0.85, 0.95, 0.8, 0.99, 0.9], false=[0.55, 0.6, 0.71, 0.52]))
    assert (report.true, report.false, report.proposal, report.avoided) == (6, 4, 0.72, 4)
    assert (report.avoids_all, report.avoids_all_misses) == (0.72, 0)
    assert report.precision == 0.6
    assert "right in 60% of the marked (95 % interval 31% to 83%)" in describe_report(report)
    proposed = to_yaml([report])
    assert proposed == "alerts:\n  rules:\n    - {id: dog, threshold: 0.72}\n"
    rules = parse_rules(yaml.safe_load(proposed)["alerts"])
    assert next(rule for rule in rules.rules if rule.id == "dog").threshold == 0.72
    assert len(rules.rules) == len(AlertRules.default().rules)


def test_no_marked_true_alert_is_given_up():
    report = report_of(marked("dog", true=[0.66, 0.9, 0.9, 0.9, 0.9, 0.9], false=[0.55, 0.6, 0.8, 0.7]))
    assert (report.proposal, report.avoided) == (0.66, 2)
    assert (report.avoids_all, report.avoids_all_misses) == (0.81, 1)
    assert "missed 1 of 6 true ones" in describe_report(report)


def test_too_few_marks_say_so_and_propose_nothing():
    report = report_of(marked("dog", true=[0.9], false=[0.6, 0.6, 0.6]))
    assert report.proposal is None
    assert "too little to go by: needs 10 marks" in describe_report(report)
    assert to_yaml([report]) == ""


@pytest.mark.parametrize(
    ("rule", "labels", "why"),
    [
        ("smoke_alarm", ("Smoke detector, smoke alarm", "T3 pattern"), "the pattern in the signal raised"),
        ("help", ("help me",), "it does not go by scores"),
        ("silence", ("silence",), "it does not go by scores"),
    ],
)
def test_what_no_threshold_helps_is_said(rule, labels, why):
    report = report_of(marked(rule, false=[0.9] * 12, labels=labels))
    assert report.proposal is None
    assert why in describe_report(report)


def test_overlapping_scores_get_no_proposal():
    report = report_of(marked("dog", true=[0.5] * 6, false=[0.9] * 6))
    assert report.proposal is None
    assert "score alike" in describe_report(report)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.5, 1), max_size=30), st.lists(st.floats(0.5, 1), max_size=30))
def test_a_proposal_always_keeps_the_true_and_avoids_what_it_says(true, false):
    reports = tune(marked("dog", true, false), AlertRules.default())
    for report in reports:
        if report.proposal is not None:
            assert 0.5 < report.proposal <= 1
            assert all(score >= report.proposal for score in true)
            assert sum(score < report.proposal for score in false) == report.avoided > 0
        assert "\n" in describe_report(report)


def test_wilson_interval():
    low, high = wilson(9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)  # Newcombe 1998, table of examples
    assert wilson(0, 0) == (0.0, 1.0)


# The sound around an alert


class Tone:
    """A source whose sample n is n / 1e6, with a loss."""

    name, live = "tone", True

    def __init__(self, blocks=600, lost_at=100, lost=1600):
        self._blocks, self._lost_at, self._lost = blocks, lost_at, lost

    def blocks(self):
        position = 0
        for number in range(self._blocks):
            lost = self._lost if number == self._lost_at else 0
            position += lost
            yield AudioBlock((np.arange(position, position + 800) / 1e6).astype(np.float32), lost)
            position += 800

    def close(self):
        pass


def test_a_ring_knows_the_capture_clock_and_stays_small():
    ring = ClipRing(16_000 * 10)
    for block in Tone().blocks():
        ring.push(block)
    end = 600 * 800 + 1600
    assert ring.end == end
    piece = ring.cut(end - 5000, end - 1000)
    np.testing.assert_allclose(piece, np.arange(end - 5000, end - 1000) / 1e6, rtol=1e-6)
    assert len(ring.cut(0, end)) <= 16_000 * 10 + 800
    assert len(ring.cut(0, 100)) == 0


def test_lost_samples_are_silence_in_a_clip():
    ring = ClipRing()
    for block in Tone(blocks=110).blocks():
        ring.push(block)
    piece = ring.cut(80_000 - 10, 81_600 + 10)
    assert len(piece) == 1620
    assert not piece[10:-10].any()
    assert piece[:10].all()


def test_the_sound_around_an_alert_is_kept_beside_the_history(tmp_path):
    given = HistorySettings(clips=True, clip_before_s=1, clip_after_s=2, path=str(tmp_path / "alerts.jsonl"))
    history = AlertHistory(tmp_path / "alerts.jsonl")
    recorder = Recorder(history, given)
    delivery = Delivery(recorder, limit=100)
    delivery.start()
    ring = recorder.clips("s1-20261123T040000")
    source = Tone(blocks=400, lost_at=-1).blocks()
    for block in itertools.islice(source, 250):
        ring.push(block)
    delivery.put(alert(1, start=10.0, audio_t=12.5))
    wait_for(lambda: history.read())
    assert history.read()[0].clip is None  # what follows is not heard yet
    for block in source:
        ring.push(block)
    wait_for(lambda: history.read()[0].clip)
    delivery.finish()
    assert delivery.join(5)
    clip = history.read()[0].clip
    with wave.open(str(clip)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        assert sound.getnframes() == round((12.5 + 2 - 9) * 16_000)
    assert clip.stat().st_mode & 0o777 == 0o600


def test_clips_at_the_end_of_the_program_and_off_by_default(tmp_path):
    given = HistorySettings(clips=True)
    history = AlertHistory(tmp_path / "alerts.jsonl")
    recorder = Recorder(history, given)
    delivery = Delivery(recorder, limit=100)
    delivery.start()
    ring = recorder.clips("s1-20261123T040000")
    for block in itertools.islice(Tone().blocks(), 250):
        ring.push(block)
    delivery.put(alert(1, start=10.0, audio_t=12.5))
    delivery.finish()
    assert delivery.join(5)
    assert history.read()[0].clip is not None
    assert Recorder(history, HistorySettings()).clips("s") is None


def test_clips_are_bounded(tmp_path):
    for number in range(6):
        write_wav(tmp_path / f"{number}.wav", np.full(1000, 2.0 * number, np.float32))
    assert limit_folder(tmp_path, 3 * 2044) == 3
    assert len(list(tmp_path.glob("*.wav"))) == 3

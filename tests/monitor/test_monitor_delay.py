"""How the delay is found in two channels, and what `streamer doctor --monitor` makes of it."""

import numpy as np
import pytest

from streamer.commands.doctor import Verdict
from streamer.commands.monitor_doctor import _most, verdicts
from streamer.errors import InputError
from streamer.monitor.delay import RATE, Delay, lag_ms
from streamer.monitor.messages import Report
from streamer.settings.monitor import MonitorSettings


@pytest.mark.parametrize("late_ms", [0, 5, 37.5, 180])
def test_the_lag_is_found_behind_a_filter_and_noise(late_ms):
    random = np.random.default_rng(0)
    sent = random.standard_normal(RATE).astype(np.float32) * 0.1
    late = round(late_ms * RATE / 1000)
    came = np.concatenate([np.zeros(late, np.float32), np.convolve(sent, [1.0, 0.5, -0.3])])[: len(sent)]
    came = np.tanh(3 * came) + 0.05 * random.standard_normal(len(sent))
    assert lag_ms(sent, came.astype(np.float32)) == pytest.approx(late_ms, abs=0.1)


def test_where_nothing_came_there_is_no_lag():
    random = np.random.default_rng(0)
    sent, other = random.standard_normal((2, RATE)).astype(np.float32)
    with pytest.raises(InputError, match="nothing of what the microphone heard"):
        lag_ms(sent, other)
    with pytest.raises(InputError):
        lag_ms(sent, np.zeros(RATE, np.float32))


def test_the_doctor_says_what_is_too_late_too_full_of_holes_and_too_dear():
    good = Report(1_000, 0, 0, 0, 0, "real time", 0.04, 0.08, 9.0)
    assert [one.verdict for one in verdicts(Delay(40.0, 10.0, good))] == [Verdict.OK] * 3
    bad = Report(1_000, 3, 2, 0, 0, "normal", 0.2, 0.3, 39.0)
    late, holes, dear = verdicts(Delay(70.0, 40.0, bad))
    assert {late.verdict, holes.verdict, dear.verdict} == {Verdict.WARN}
    assert late.detail.startswith("40.0 ms besides the devices' own (30.0 ms")
    assert holes.detail == "3 underruns, 2 blocks dropped, of 1000"
    assert dear.detail == "20.0 % of one core for the sound, 30.0 % with the audio drivers' threads"
    assert all(one.mend for one in (late, holes, dear))


def test_the_doctor_says_the_most_that_comes_out():
    assert _most(MonitorSettings()).detail.startswith("-12 dBFS; how loud that is in the ear is not known")
    known = MonitorSettings(output_full_scale_db_spl=110, limit_db_spl=95)
    assert _most(known).detail == "-15 dBFS; 95 dB SPL in the ear"

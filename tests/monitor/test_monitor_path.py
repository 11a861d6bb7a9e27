"""The monitor's thread with an output that the test drives: what comes out, what is counted, who waits for whom."""

import threading
import time

import numpy as np
import pytest

from streamer.audio.portaudio import Device, SharedAudio
from streamer.errors import DeviceLost, InputError
from streamer.monitor.chain import FADE_IN_S
from streamer.monitor.messages import Steer
from streamer.monitor.path import INBOX_BLOCKS, Monitor
from streamer.settings.monitor import MonitorSettings

RATE, BLOCK = 16_000, 80
EARS = Device(0, "USB Headset: Audio (hw:1,0)", "ALSA", 2, RATE, default=True)


class Output:
    """What was opened: the test calls `play`."""

    latency = 0.01

    def __init__(self, play, ended):
        self.play, self.ended, self.closed = play, ended, threading.Event()

    def close(self):
        self.closed.set()


class Backend:
    """PortAudio with one output."""

    def __init__(self):
        self.opened = []
        self.refuses = 0
        self.news = threading.Condition()

    def devices(self):
        return (EARS,)

    def outputs(self):
        return (EARS,)

    def open_output(self, device, rate, block_s, play, ended):
        with self.news:
            self.news.notify_all()
            if self.refuses:
                self.refuses -= 1
                raise DeviceLost("busy")
            self.opened.append(Output(play, ended))
            return self.opened[-1]

    def output(self, count=1):
        with self.news:
            assert self.news.wait_for(lambda: len(self.opened) >= count, 10)
        return self.opened[count - 1]


def until(condition):
    """The monitor's thread is a real one: give it its turn."""
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


class Running:
    """A monitor that plays, fed and emptied in step."""

    def __init__(self, **given):
        self.backend = Backend()
        settings = MonitorSettings(output="usb", headphones=True, noise_reduction=False, **given)
        self.monitor = Monitor(settings, SharedAudio(self.backend))
        self.monitor.start()
        self.monitor.begin(RATE, 0.01)
        self.output = self.backend.output()
        self.blocks = 0

    def through(self, sound):
        """[n, 2] of what played while this was heard."""
        played = []
        for at in range(0, len(sound), BLOCK):
            self.monitor.hear(sound[at : at + BLOCK, None].astype(np.float32))
            self.blocks += 1
            until(lambda: self.monitor.report.blocks >= self.blocks)
            frames = np.full((BLOCK, 2), np.nan, np.float32)
            self.output.play(frames, False)
            played.append(frames)
        return np.concatenate(played)


@pytest.fixture
def running():
    started = []

    def start(**given):
        started.append(Running(**given))
        return started[-1]

    yield start
    for one in started:
        one.monitor.stop()


def test_it_starts_silent_and_fades_in_to_the_level_that_came(running):
    noise = np.random.default_rng(0).standard_normal(round(RATE * (FADE_IN_S + 1))) * 0.02
    played = running().through(noise)
    level = [float(np.sqrt(np.mean(part**2))) for part in np.split(played[:, 0], 12)]
    assert level[0] < 0.001
    assert level == sorted(level[:-4]) + level[-4:]
    assert level[-1] == pytest.approx(0.02, rel=0.1)
    assert np.array_equal(played[:, 0], played[:, 1])


def test_the_microphone_never_waits_and_the_oldest_block_goes(running):
    """The monitor's thread is kept from working: what the device says takes no time all the same."""
    one = running()
    one.monitor.stop()
    for number in range(50):
        one.monitor.hear(np.full((BLOCK, 1), number, np.float32))
    assert one.monitor.report.dropped == 50 - INBOX_BLOCKS


def test_an_output_that_wants_more_than_there_is_gets_silence_and_is_counted(running):
    one = running()
    one.through(np.zeros(RATE))
    for _ in range(5):
        one.output.play(np.zeros((BLOCK, 2), np.float32), True)
    one.through(np.zeros(BLOCK))
    report = one.monitor.report
    assert report.underruns >= 3
    assert report.device_underruns == 5


def test_when_the_microphone_goes_so_does_the_output_and_it_fades_in_again(running):
    one = running()
    one.through(np.full(RATE, 0.1))
    one.monitor.end()
    assert one.output.closed.wait(10)
    one.monitor.begin(RATE, 0.01)
    one.output = one.backend.output(2)
    noise = np.random.default_rng(0).standard_normal(RATE // 10) * 0.1
    assert np.abs(one.through(noise)).max() < 0.01


def test_an_output_that_goes_away_is_opened_again(running, monkeypatch):
    monkeypatch.setattr("streamer.monitor.path.AGAIN_S", 0.0)
    one = running()
    one.backend.refuses = 2
    one.output.ended()
    assert one.output.closed.wait(10)
    one.output = one.backend.output(2)
    one.through(np.zeros(BLOCK * 4))


def test_the_report_says_why_nothing_comes_out_of_the_headphones_until_it_does(running, monkeypatch):
    monkeypatch.setattr("streamer.monitor.path.AGAIN_S", 0.01)
    one = running()
    assert one.monitor.report.silent == ""
    one.backend.refuses = 1_000_000
    one.output.ended()
    until(lambda: one.monitor.report.silent == "busy")
    one.backend.refuses = 0
    one.output = one.backend.output(2)
    one.through(np.zeros(BLOCK * 4))
    assert one.monitor.report.silent == ""


def test_the_alarm_s_signal_sounds_as_long_as_it_is_told_to(running):
    one = running(alarm={"pause_s": 1})

    def sounds(seconds):
        return np.abs(one.through(np.zeros(round(RATE * seconds)))).max() > 0.03

    assert not sounds(1)
    one.monitor.steer(Steer(None, alarm=True))
    assert sounds(1)
    assert sounds(3.5)  # again
    one.monitor.steer(Steer(None, alarm=False, seen=True))
    one.through(np.zeros(BLOCK * 4))
    assert not sounds(2)


def test_an_alarm_that_is_over_before_the_next_block_sounds_all_the_same(running):
    one = running()
    one.through(np.zeros(BLOCK * 4))
    one.monitor.steer(Steer(None, alarm=True))
    one.monitor.steer(Steer(None, alarm=False))
    played = np.abs(one.through(np.zeros(RATE * 4)))[:, 0].reshape(-1, RATE // 10).max(axis=1) > 0.03
    assert np.count_nonzero(np.diff(played.astype(int), prepend=0) > 0) == 3


def test_it_is_told_which_program_to_use(running):
    one = running()
    one.through(np.zeros(RATE * 3))
    noise = np.random.default_rng(0).standard_normal(RATE) * 0.02

    def level():
        return 20 * np.log10(np.sqrt(np.mean(one.through(noise)[RATE // 2 :] ** 2)))

    plain = level()
    one.monitor.steer(Steer("noise", alarm=False))
    assert level() == pytest.approx(plain - 4, abs=0.3)
    one.monitor.steer(Steer("music", alarm=False))
    assert level() == pytest.approx(plain, abs=0.3)


def test_no_such_output_is_refused_in_one_line():
    with pytest.raises(
        InputError, match=r"^--monitor speakers: no output's name contains that; there are 0 'USB Headset"
    ):
        Monitor(MonitorSettings(output="speakers"), SharedAudio(Backend()))
    none = Backend()
    none.outputs = tuple
    with pytest.raises(InputError, match=r"^--monitor: this machine shows no output; see `streamer doctor --monitor`$"):
        Monitor(MonitorSettings(output="speakers"), SharedAudio(none))

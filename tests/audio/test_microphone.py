"""The microphone's watch over its device, with a scripted device and a scripted clock."""

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import ScriptedClock

from streamer.audio.block import Clock
from streamer.audio.microphone import FULL, OVERFLOW, SLEPT, CaptureBuffer, Microphone, Missing
from streamer.audio.portaudio import Device
from streamer.audio.resample import BlockMaker
from streamer.errors import DeviceLost, InputError

USB = Device(3, "Snowball (hw:1,0)", "ALSA", 2, 48_000)
BUILT_IN = Device(0, "Built-in", "ALSA", 1, 16_000, default=True)
CALLBACK_S = 0.02


class FakeAudio:
    """An audio system whose devices come and go by script; an open one calls back every 20 ms of the clock."""

    def __init__(self, clock: ScriptedClock, *devices: Device) -> None:
        self.clock, self.plugged, self.listed = clock, list(devices), list(devices)
        self.opened: list[Device] = []
        self.running = None
        self.refreshed_while_running = False

    def devices(self) -> tuple[Device, ...]:
        return tuple(self.listed)

    def refresh(self) -> None:
        self.refreshed_while_running |= self.running is not None
        self.listed = list(self.plugged)

    def native_format(self, device: Device) -> tuple[int, int]:
        if device not in self.plugged:
            raise DeviceLost(f"{device.name!r} cannot be opened")
        return device.rate, device.channels

    def open(self, device, rate, channels, hear, ended, block_s=0.02):
        if device not in self.plugged:
            raise DeviceLost(f"{device.name!r} cannot be opened")
        self.opened.append(device)
        self.running = FakeStream(self, rate, channels, hear, ended)
        return self.running

    def unplug(self, device: Device, *, tells: bool) -> None:
        self.plugged.remove(device)
        stream, self.running = self.running, None
        stream.alive = False
        if tells:
            stream.ended()


class FakeStream:
    def __init__(self, audio, rate, channels, hear, ended) -> None:
        self.audio, self.hear, self.ended, self.alive = audio, hear, ended, True
        self.block = np.full((round(rate * CALLBACK_S), channels), 0.25, np.float32)
        self.next_s = audio.clock.now() + CALLBACK_S
        audio.clock.at(self.next_s, self.call)

    def call(self) -> None:
        if self.alive:
            self.hear(self.block, False)
            self.next_s += CALLBACK_S
            self.audio.clock.at(self.next_s, self.call)

    def close(self) -> None:
        self.alive = False
        if self.audio.running is self:
            self.audio.running = None


class OppositeChannels(FakeAudio):
    """Both channels have the same tone, one of them upside down."""

    def open(self, device, rate, channels, hear, ended, block_s=0.02):
        stream = super().open(device, rate, channels, hear, ended)
        tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(round(rate * CALLBACK_S)) / rate)
        stream.block = np.stack([tone, -tone], axis=1).astype(np.float32)
        return stream


def listen(microphone: Microphone, clock: ScriptedClock, until_s: float):
    clock.at(until_s, microphone.close)
    return list(microphone.blocks())


def clock_samples(blocks) -> int:
    return sum(len(block.samples) + block.lost_samples for block in blocks)


def test_sound_comes_at_16_khz_mono_and_every_sample_is_there():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN, USB)
    microphone = Microphone("snow", backend=audio, clock=clock)
    assert (microphone.name, microphone.live) == (USB.name, True)
    blocks = listen(microphone, clock, 1.999)
    # 99 callbacks of 20 ms, less what the resampler's filter still holds
    assert 0 <= 99 * 320 - clock_samples(blocks) < 16 * 100
    assert {block.state for block in blocks} == {"listening"}
    assert np.concatenate([block.samples for block in blocks])[1_000:] == pytest.approx(0.25, abs=1e-3)
    assert audio.running is None


def test_channels_that_cancel_are_heard_and_told_once():
    clock = ScriptedClock()
    blocks = listen(Microphone("snow", backend=OppositeChannels(clock, USB), clock=clock), clock, 2.0)
    sound = np.concatenate([block.samples for block in blocks])
    assert np.abs(sound[4_000:]).max() > 0.25
    (notice,) = [block.notice for block in blocks if block.notice]
    assert "channel 1 of 2 is heard alone" in notice


def test_what_was_not_heard_while_the_machine_slept_is_a_loss_though_the_device_tells_nothing():
    """A laptop whose lid was closed for a night: the session's clock, and with it the times of day, stay right."""
    buffer = CaptureBuffer(48_000, 10.0)
    block = np.zeros((960, 1), np.float32)
    arrivals = [0.02 * number for number in range(1, 50)]
    for arrived_s in [*arrivals, *(arrivals[-1] + 28_800 + late_s for late_s in arrivals)]:
        buffer.push(block, arrived_s)
    (missing,) = [piece for piece in buffer.pop() if isinstance(piece, Missing)]
    assert missing.reason == SLEPT
    assert missing.frames == pytest.approx(28_800 * 48_000, abs=960)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs Linux' clock that goes on while it sleeps")
def test_the_clock_goes_on_while_the_machine_sleeps():
    before_s, now_s, after_s = (
        time.clock_gettime(time.CLOCK_BOOTTIME),
        Clock().now(),
        time.clock_gettime(time.CLOCK_BOOTTIME),
    )
    assert before_s <= now_s <= after_s


@pytest.mark.parametrize("fails_again", [False, True])
def test_whatever_fails_on_the_way_from_the_device_is_started_again(monkeypatch, caplog, fails_again):
    """Not only a device that goes: somebody relies on it for months."""
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN, USB)
    microphone = Microphone("snow", backend=audio, clock=clock)
    real, mixed, refresh = BlockMaker.mix, [], audio.refresh

    def mix(self, frames):
        mixed.append(len(frames))
        if len(mixed) == 51:
            raise IndexError("a block that nobody expected")
        return real(self, frames)

    def failing_refresh():
        if fails_again and len(mixed) == 51 and clock.now() < 2:
            raise OSError("the sound server is gone")
        refresh()

    monkeypatch.setattr(BlockMaker, "mix", mix)
    monkeypatch.setattr(audio, "refresh", failing_refresh)
    blocks = listen(microphone, clock, 4.999)
    away = [block for block in blocks if block.state == "no_audio"]
    assert len(away) == 1
    assert sum(len(block.samples) for block in blocks) > (2 if fails_again else 3) * 16_000
    assert 0 <= 5 * 16_000 - clock_samples(blocks) < 16 * 200  # what was missed is a loss, by the clock
    assert caplog.text.count("IndexError: a block that nobody expected") == 1


@pytest.mark.parametrize("tells", [True, False])
def test_unplugged_and_back_under_another_index(tells):
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN, USB)
    back = Device(1, "Snowball (hw:4,0)", "ALSA", 2, 48_000)
    clock.at(1.005, lambda: audio.unplug(USB, tells=tells))
    clock.at(9.0, lambda: audio.plugged.append(back))
    blocks = listen(Microphone("snow", backend=audio, clock=clock), clock, 20.0)
    states = [state for state, _ in itertools.groupby(block.state for block in blocks)]
    assert states == ["listening", "no_audio", "listening"]
    silent = [block for block in blocks if block.state == "no_audio"]
    assert len(silent) == 1
    assert "Snowball" in silent[0].reason
    losses = [block for block in blocks if block.lost_samples]
    assert len(losses) == 1
    assert "was away" in losses[0].reason
    assert audio.opened == [USB, back]
    assert not audio.refreshed_while_running
    # The clock of the samples is the wall clock again, but for the last callback and the resampler's filter.
    assert 0 <= 20 * 16_000 - clock_samples(blocks) < 16 * 120


def test_the_time_away_is_exact_to_the_sample():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN)
    clock.at(1.0001, lambda: audio.unplug(BUILT_IN, tells=True))
    clock.at(4.3217, lambda: audio.plugged.append(BUILT_IN))
    blocks = listen(Microphone(backend=audio, clock=clock), clock, 10.0)
    opened_again_s = 1.0001 + 0.25 + 0.5 + 1.0 + 2.0
    # The last callback was at 1.00 s; the first sound after it was recorded from the moment of the opening on.
    assert [block.lost_samples for block in blocks if block.lost_samples] == [round((opened_again_s - 1.0) * 16_000)]


def test_a_new_rate_after_the_replug_is_taken_up():
    clock = ScriptedClock()
    audio = FakeAudio(clock, USB)
    back = Device(2, "Snowball", "ALSA", 1, 16_000)
    clock.at(1.005, lambda: audio.unplug(USB, tells=True))
    clock.at(2.0, lambda: audio.plugged.append(back))
    blocks = listen(Microphone("snow", backend=audio, clock=clock), clock, 12.0)
    assert abs(clock_samples(blocks) - 12 * 16_000) <= 320 + 1


def test_retries_become_rarer_and_close_ends_them():
    clock = ScriptedClock()
    audio = FakeAudio(clock, USB)
    clock.at(1.005, lambda: audio.unplug(USB, tells=True))
    blocks = listen(Microphone(backend=audio, clock=clock), clock, 600.0)
    assert clock.now() == 600.0
    assert [block.state for block in blocks].count("no_audio") == 1
    assert len(clock.waits) < 51 + 320
    assert max(clock.waits[-100:]) == 2.0


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("away_s", [0.3, 2.0, 3600.0])
def test_it_is_missed_within_a_second_and_heard_within_three_of_its_return(tells, away_s):
    clock = ScriptedClock()
    audio = FakeAudio(clock, USB)
    clock.at(1.0051, lambda: audio.unplug(USB, tells=tells))
    clock.at(1.0051 + away_s, lambda: audio.plugged.append(USB))
    microphone = Microphone("snow", backend=audio, clock=clock)
    clock.at(4000.0, microphone.close)
    times = {}
    for block in microphone.blocks():
        if block.state == "no_audio":
            times["missed"] = clock.now()
        elif "missed" in times:
            times["back"] = clock.now()
            break
    assert times["missed"] - 1.0 <= 1.0
    assert times["back"] - max(1.0051 + away_s, times["missed"]) <= 3.0


def test_a_device_that_never_says_a_word_is_no_audio_and_costs_no_time():
    clock = ScriptedClock()
    audio = FakeAudio(clock, USB)
    microphone = Microphone(backend=audio, clock=clock)
    blocks = microphone.blocks()
    audio_open = audio.open

    def open_silent(*arguments):
        stream = audio_open(*arguments)
        stream.alive = False
        return stream

    audio.open = open_silent
    first = next(blocks)
    assert (first.state, len(first.samples), clock.now()) == ("no_audio", 0, 5.25)
    audio.open = audio_open
    heard = next(blocks)
    assert (heard.state, heard.lost_samples) == ("listening", 0)
    assert len(heard.samples) > 0
    blocks.close()
    assert audio.running is None


def test_without_a_wish_the_next_default_takes_over():
    clock = ScriptedClock()
    headset = Device(5, "Headset", "ALSA", 1, 16_000, default=True)
    audio = FakeAudio(clock, headset, Device(0, "Built-in", "ALSA", 1, 16_000))
    clock.at(1.0001, lambda: audio.unplug(headset, tells=True))
    microphone = Microphone(backend=audio, clock=clock)
    listen(microphone, clock, 3.0)
    assert microphone.name == "Built-in"


def test_a_wish_is_never_replaced_by_another_device():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN, USB)
    clock.at(1.0001, lambda: audio.unplug(USB, tells=True))
    listen(Microphone(3, backend=audio, clock=clock), clock, 30.0)
    assert audio.opened == [USB]


def test_a_consumer_that_is_too_slow_loses_exactly_what_did_not_fit():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN)
    microphone = Microphone(backend=audio, clock=clock)
    blocks = microphone.blocks()
    got = [next(blocks)]
    clock.wait(microphone._closed, 30.0)  # the consumer sleeps while the device goes on
    clock.at(40.0001, microphone.close)
    got += list(blocks)
    assert sum(block.lost_samples for block in got) > 15 * 16_000
    assert abs(clock_samples(got) - 40 * 16_000) <= 320


def test_waking_up_late_is_no_stall():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN)
    microphone = Microphone(backend=audio, clock=clock)
    blocks = microphone.blocks()
    got = [next(blocks)]
    clock.now_s += 5.0  # the process was suspended; the sound server kept everything
    clock.at(10.0001, microphone.close)
    got += list(blocks)
    assert audio.opened == [BUILT_IN]
    assert {block.state for block in got} == {"listening"}
    assert clock_samples(got) == 10 * 16_000


def test_a_device_that_cannot_record_is_refused_by_name():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN, USB)
    audio.plugged.remove(USB)
    with pytest.raises(InputError, match="--device 3: 'Snowball"):
        Microphone(3, backend=audio, clock=clock)
    microphone = Microphone(0, backend=audio, clock=clock)
    audio.plugged.clear()
    with pytest.raises(InputError, match="--device 0: 'Built-in"):
        next(microphone.blocks())


def test_closed_before_it_began_it_gives_nothing():
    clock = ScriptedClock()
    audio = FakeAudio(clock, BUILT_IN)
    microphone = Microphone(backend=audio, clock=clock)
    microphone.close()
    assert list(microphone.blocks()) == []
    assert audio.running is None


RATE = 1_000


def frames(first: int, count: int, channels: int = 1) -> np.ndarray:
    return np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], channels, axis=1)


def timeline(pieces) -> np.ndarray:
    """What came out, with NaN for what was missing."""
    parts = [np.full(p.frames, np.nan, np.float32) if isinstance(p, Missing) else p[:, 0] for p in pieces]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@given(st.integers(5, 60), st.lists(st.one_of(st.integers(0, 30), st.none()), max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_frame_comes_out_or_is_counted_in_its_place(capacity, script):
    buffer = CaptureBuffer(RATE, capacity / RATE)
    sent, out = 0, []
    for count in script:
        if count is None:
            out += buffer.pop()
        else:
            buffer.push(frames(sent, count), sent / RATE)
            sent += count
    out += buffer.pop()
    found = timeline(out)
    assert len(found) == sent
    heard = ~np.isnan(found)
    assert np.array_equal(found[heard], np.arange(sent, dtype=np.float32)[heard])
    assert {piece.reason for piece in out if isinstance(piece, Missing)} <= {FULL}


def test_the_callers_array_may_be_reused():
    buffer, block = CaptureBuffer(RATE, 1.0), frames(0, 10)
    buffer.push(block, 0.01)
    block[:] = -1
    assert buffer.pop()[0][:, 0].tolist() == list(range(10))


def test_an_overflow_is_measured_once_the_burst_is_over():
    buffer = CaptureBuffer(RATE, 10.0)
    for n in range(10):
        buffer.push(frames(20 * n, 20), 0.02 * (n + 1))
    buffer.pop()
    # Nothing for two seconds; the device kept the last 60 frames and delivers them at once, then goes on.
    lost = 2_000 - 60
    at = 200 + lost
    buffer.push(frames(at, 20), 2.2, overflowed=True)
    assert buffer.pop() == []  # not measured yet
    buffer.push(frames(at + 20, 20), 2.2)
    buffer.push(frames(at + 40, 20), 2.2)
    assert buffer.pop() == []
    buffer.push(frames(at + 60, 20), 2.22)
    first, *rest = buffer.pop()
    assert first == Missing(lost, OVERFLOW)
    assert timeline(rest).tolist() == list(range(at, at + 80))


def test_an_overflow_flag_without_missing_time_is_no_loss():
    buffer = CaptureBuffer(RATE, 10.0)
    for n in range(5):
        buffer.push(frames(20 * n, 20), 0.02 * (n + 1), overflowed=n == 2)
    assert timeline(buffer.pop()).tolist() == list(range(100))


def test_the_time_before_a_successor_hears_is_a_loss_with_its_reason():
    buffer = CaptureBuffer(RATE, 10.0, silent_since_s=5.0, away="unplugged")
    buffer.push(frames(0, 20), 9.0)
    buffer.push(frames(20, 20), 9.02)
    assert buffer.pop()[0] == Missing(4_020 - 40, "unplugged")


def test_settling_hands_out_what_waited_behind_a_gap():
    buffer = CaptureBuffer(RATE, 10.0, silent_since_s=5.0, away="unplugged")
    buffer.settle()
    assert buffer.pop() == []
    buffer.push(frames(0, 20), 9.0)
    assert buffer.pop() == []
    buffer.settle()
    assert buffer.pop()[0] == Missing(3_980, "unplugged")


def test_a_device_that_never_finds_its_pace_is_measured_all_the_same():
    buffer = CaptureBuffer(RATE, 10.0, silent_since_s=0.0, away="away")
    for n in range(120):
        buffer.push(frames(20 * n, 20), 10.0 + n * 1e-4)
    pieces = buffer.pop()
    assert isinstance(pieces[0], Missing)
    assert sum(len(piece) for piece in pieces[1:]) == 2_400


def test_a_full_buffer_during_a_gap_keeps_the_order():
    buffer = CaptureBuffer(RATE, 0.03, silent_since_s=0.0, away="away")
    buffer.push(frames(0, 20), 1.0)
    buffer.push(frames(20, 20), 1.0)
    pieces = buffer.pop()
    assert [piece.reason for piece in pieces if isinstance(piece, Missing)] == ["away", FULL]
    assert sum(piece.frames for piece in pieces if isinstance(piece, Missing)) == 980
    assert len(timeline(pieces)) == 1_000


def test_one_thread_pushes_while_another_pops():
    buffer, out, done = CaptureBuffer(RATE, 1.0), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            out.extend(buffer.pop())

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(5_000):
        buffer.push(frames(7 * n, 7), 0.007 * n)
    done.set()
    reader.join()
    out.extend(buffer.pop())
    found = timeline(out)
    assert len(found) == 35_000
    heard = ~np.isnan(found)
    assert np.array_equal(found[heard], np.arange(35_000, dtype=np.float32)[heard])

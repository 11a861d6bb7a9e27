"""One audio system for several microphones: looking for devices must not kill the ones that record."""

import pytest
from media_files import ScriptedClock
from test_microphone import BUILT_IN, USB, FakeAudio

from streamer.audio.microphone import Microphone
from streamer.audio.portaudio import SharedAudio
from streamer.errors import DeviceLost


class TwoDevices(FakeAudio):
    """As PortAudio: looking for devices again ends every stream that runs."""

    def __init__(self, clock, *devices) -> None:
        super().__init__(clock, *devices)
        self.streams = {}
        self.refreshes = 0

    def refresh(self) -> None:
        self.refreshes += 1
        super().refresh()
        for stream in self.streams.values():
            stream.alive = False

    def open(self, device, rate, channels, hear, ended, block_s=0.02):
        self.streams[device] = super().open(device, rate, channels, hear, ended)
        return self.streams[device]

    def pull(self, device) -> None:
        self.plugged.remove(device)
        self.streams.pop(device).alive = False


def test_a_microphone_that_is_lost_does_not_end_the_other():
    clock = ScriptedClock()
    audio = TwoDevices(clock, BUILT_IN, USB)
    shared = SharedAudio(audio)
    heard = []
    other = shared.open(BUILT_IN, 16_000, 1, lambda frames, overflowed: heard.append(clock.now()), lambda: None)
    lost = Microphone("snow", backend=shared, clock=clock)
    clock.at(2.0, lambda: audio.pull(USB))
    clock.at(9.0, lambda: audio.plugged.append(USB))
    clock.at(15.0, lost.close)
    blocks = list(lost.blocks())
    assert [block.state for block in blocks if block.state != "listening"] == ["no_audio"]
    assert len([block for block in blocks if block.lost_samples]) == 1
    assert blocks[-1].state == "listening"
    assert audio.refreshes == 0
    assert len(heard) >= 15 / 0.02 - 2
    other.close()


def test_without_another_that_records_devices_are_looked_for_anew():
    clock = ScriptedClock()
    audio = TwoDevices(clock, BUILT_IN, USB)
    shared = SharedAudio(audio)
    stream = shared.open(USB, 48_000, 2, lambda frames, overflowed: None, lambda: None)
    audio.plugged.remove(BUILT_IN)
    shared.refresh()
    assert (audio.refreshes, len(shared.devices())) == (0, 2)
    stream.close()
    stream.close()
    shared.refresh()
    assert (audio.refreshes, shared.devices()) == (1, (USB,))
    assert shared.native_format(USB) == (48_000, 2)
    with pytest.raises(DeviceLost, match="Built-in"):
        shared.open(BUILT_IN, 16_000, 1, lambda frames, overflowed: None, lambda: None)

"""Opening the sources that the settings name: every refusal says which entry it is about."""

import os
import sys

import numpy as np
import pytest
from program import write_wav

from streamer.audio.portaudio import Device
from streamer.errors import UsageError
from streamer.runtime import inputs
from streamer.runtime.inputs import for_model, named_senders, open_inputs, origin, session_name
from streamer.settings.config import validate


class Machine:
    """An audio system with two devices, one of which several names fit."""

    def devices(self):
        return (Device(0, "Built-in", "ALSA", 1, 16_000, default=True), Device(4, "Snowball USB", "ALSA", 2, 48_000))

    def native_format(self, device):
        return device.rate, device.channels


@pytest.fixture
def sound(tmp_path):
    return str(write_wav(tmp_path / "sound.wav", np.zeros(1600, np.float32)))


def refused(says, *entries, **audio):
    with pytest.raises(UsageError) as caught:
        open_inputs(validate({"sources": list(entries), "audio": audio}).plans())
    assert str(caught.value).startswith(says), caught.value
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_heard_are_named_by_their_entry(sound, tmp_path):
    good = {"name": "a", "input": sound}
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    refused(f"sources[1].input: {tmp_path}/no.wav: no such file", good, {"name": "b", "input": f"{tmp_path}/no.wav"})
    refused(f"sources[0].input: {broken}: is damaged", {"name": "b", "input": str(broken)}, good)
    refused("sources[1].input: is empty", good, {"name": "b", "input": ""})


def test_microphones_that_cannot_be_are_named_by_their_entry(monkeypatch):
    monkeypatch.setattr("streamer.audio.portaudio.PortAudio", Machine)
    first = {"name": "a", "device": "Snowball"}
    refused("sources[1].device: 'Snowball USB' is the device of sources[0]", first, {"name": "b", "device": 4})
    refused("sources[1].device: 'Built-in' is the device of", {"name": "a", "device": 0}, {"name": "b"})
    refused("sources[1].device 7: is no microphone", first, {"name": "b", "device": 7})
    refused("sources[0].device: a microphone cannot be heard at --speed 0", first, speed=0)


def test_two_microphones_share_one_audio_system(monkeypatch):
    monkeypatch.setattr("streamer.audio.portaudio.PortAudio", Machine)
    opened = open_inputs(validate({"sources": [{"name": "a", "device": 0}, {"name": "b", "device": 4}]}).plans())
    assert [(item.name, item.source.name, item.path) for item in opened] == [
        ("a", "Built-in", "sources[0]"),
        ("b", "Snowball USB", "sources[1]"),
    ]


def test_what_was_opened_is_closed_when_the_next_is_refused(monkeypatch, sound):
    closed = []
    monkeypatch.setattr(inputs.FileSource, "close", lambda self: closed.append(self.name))
    refused("sources[1].input", {"name": "a", "input": sound}, {"name": "b", "input": "/no/where.wav"})
    assert closed == ["sound.wav"]


def test_one_source_keeps_the_name_it_always_had(sound):
    for speed, name in ((0, "s1"), (1, "s1-")):
        (item,) = open_inputs(validate({"audio": {"input": sound, "speed": speed}}).plans())
        assert item.name.startswith(name)
        assert (item.name == "s1") == (speed == 0)
        item.source.close()
    assert session_name("x", fixed=True) == "x"


def test_alerts_of_files_and_the_demo_are_not_live_those_of_a_pipe_are_in_real_time(tmp_path, sound):
    os.mkfifo(pipe := str(tmp_path / "pipe"))
    given = (None, "-", pipe, sound, "demo", str(tmp_path / "missing"))
    assert [origin(one, False) for one in given] == ["live", "live", "live", "file", "demo", "file"]
    assert [origin(one, True) for one in given[1:]] == ["file", "file", "file", "demo", "file"]
    (item,) = open_inputs(validate({"audio": {"input": sound, "speed": 1}}).plans())
    assert item.origin == "file"
    item.source.close()


def test_with_ingest_as_the_input_nothing_is_opened_and_senders_are_waited_for():
    plans = validate({"audio": {"input": "ingest"}}).plans()
    assert open_inputs(plans) == ()
    assert named_senders(plans) == {}  # all have the common settings
    with pytest.raises(UsageError, match=r"^--input ingest: senders need the server; leave --no-server out$"):
        open_inputs(plans, server=False)
    with pytest.raises(UsageError, match=r"^--input ingest: senders cannot be heard at --speed 0; "):
        open_inputs(validate({"audio": {"input": "ingest", "speed": 0}}).plans())


def test_standard_input_is_for_one_source(monkeypatch, sound):
    with open(sound, "rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file})())
        entries = [{"name": "a", "input": "-"}, {"name": "b", "input": sound}]
        opened = open_inputs(validate({"sources": entries, "audio": {"speed": 0}}).plans())
        assert [item.source.name for item in opened] == ["stdin", "sound.wav"]
        assert sum(len(block.samples) for block in opened[0].source.blocks()) == 1600  # the header is none


def test_nano_plays_its_own_demo_and_every_other_model_the_one_with_people(sound):
    (demo,) = open_inputs(validate({"audio": {"input": "demo", "speed": 0}}).plans())
    assert demo.source.name == "demo_voices.ogg"
    assert for_model(demo, "tiny.en") is demo
    assert for_model(demo, "tiny.en").origin == "demo"
    fallback = for_model(demo, "nano")
    assert (fallback.source.name, fallback.name, fallback.origin) == ("demo.flac", demo.name, "demo")
    fallback.source.close()
    (file,) = open_inputs(validate({"audio": {"input": sound, "speed": 0}}).plans())
    assert for_model(file, "nano") is file
    file.source.close()

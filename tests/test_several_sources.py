"""Several sources through the real program: the same bytes as each alone, ends, failures, two real microphones."""

import asyncio
import json
import signal

import numpy as np
import pytest
from program import Program, events_of, write_wav
from protocol import check_session
from virtmic import RATE, VirtualMicrophone, needs_pulseaudio
from websockets.asyncio.client import connect

import streamer.commands.cli
from streamer.audio.files import demo_path, read_audio

GUARDS = ("silence", "speech_tag")  # what matters here is that there is text to compare
PLAIN = ("--model", "nano", *(part for guard in GUARDS for part in ("--set", f"guards.{guard}=false")))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Talk from the bundled demo, and a recording of another length with a tone in it."""
    folder, talk = tmp_path_factory.mktemp("recordings"), read_audio(demo_path())
    t = np.arange(4 * 16_000) / 16_000
    beeps = 0.2 * np.sin(2 * np.pi * 3100 * t) * (t % 1 < 0.5)
    mixed = np.concatenate([beeps, talk[64_000 : 64_000 + 3 * 16_000 + 777]]).astype(np.float32)
    return write_wav(folder / "talk.wav", talk[: 6 * 16_000]), write_wav(folder / "mixed.wav", mixed)


def sources(folder, *entries) -> str:
    path = folder / "sources.yaml"
    path.write_text(json.dumps({"sources": list(entries)}))
    return str(path)


def by_session(events) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for event in events:
        found.setdefault(event["session"], []).append(event)
    return found


def test_as_fast_as_it_goes_each_session_has_the_bytes_that_its_file_has_alone(recordings, tmp_path):
    given = {"window": {"hop_s": 0.2}}
    entries = (
        {"name": "kitchen", "input": str(recordings[0])},
        {"name": "hall", "input": str(recordings[1]), "settings": given},
    )
    common = ("run", "--speed", "0", "--no-server", "--quiet", "--dtype", "bfloat16", *PLAIN)
    together = tmp_path / "both.jsonl"
    config = sources(tmp_path, *entries)
    captions = ("--srt", str(tmp_path / "talk.srt"))
    assert streamer.commands.cli.main([*common, "--config", config, "--jsonl", str(together), *captions]) == 0
    lines = together.read_text().splitlines()
    for entry, change in zip(entries, ((), ("--set", "window.hop_s=0.2")), strict=True):
        alone, name = tmp_path / f"{entry['name']}.jsonl", entry["name"]
        caption = tmp_path / f"{name}.srt"
        options = ("--input", entry["input"], *change, "--jsonl", str(alone), "--srt", str(caption))
        assert streamer.commands.cli.main([*common, *options]) == 0
        renamed = alone.read_text().replace('"session":"s1"', f'"session":"{name}"').splitlines()
        assert [line for line in lines if f'"session":"{name}"' in line] == renamed
        check_session([json.loads(line) for line in renamed])
        assert (tmp_path / f"talk.{name}.srt").read_text() == caption.read_text()
    assert any('"type":"transcript"' in line for line in lines)


def test_live_files_end_each_at_its_own_time_and_clients_see_both(recordings, tmp_path):
    silence = write_wav(tmp_path / "short.wav", np.zeros(16_000, np.float32))
    entries = ({"name": "long", "input": str(recordings[0])}, {"name": "short", "input": str(silence)})
    arguments = ("--config", sources(tmp_path, *entries), "--port", "0", "--jsonl", "-", *PLAIN)
    with Program(*arguments) as program:
        address = program.wait_for_stderr("captions and sounds: http://").split("http://")[1].split()[0].rstrip("/")
        program.wait_for_stderr("listening with")

        async def greeting() -> dict:
            async with connect(f"ws://{address}/ws") as client:
                return json.loads(await client.recv())

        hello = asyncio.run(greeting())
        assert [session["session"] for session in hello["sessions"]] == ["long", "short"]
        events = list(program.events())
        assert program.wait() == 0
    found = by_session(events)
    assert set(found) == {"long", "short"}
    for session in found.values():
        check_session(session)
    assert found["long"][-1]["audio_t"] == 6.0
    assert found["short"][-1]["audio_t"] == 1.0
    ends = [event["session"] for event in events if event.get("state") == "stopped"]
    assert ends == ["short", "long"]


def test_a_source_that_is_cut_short_by_a_signal_is_flushed_with_the_others(recordings, tmp_path):
    entries = ({"name": "a", "input": str(recordings[0])}, {"name": "b", "input": "demo"})
    arguments = ("--config", sources(tmp_path, *entries), "--no-server", "--jsonl", "-", *PLAIN)
    with Program(*arguments) as program:
        events = []
        for event in program.events():
            events.append(event)
            if event["type"] == "tags":
                program.signal(signal.SIGINT)
                break
        events += list(program.events())
        assert program.wait(30) == 0
    found = by_session(events)
    assert set(found) == {"a", "b"}
    for session in found.values():
        check_session(session)


def test_wrong_entries_are_one_line_and_status_2(recordings, tmp_path, capfd):
    good = {"name": "a", "input": str(recordings[0])}
    for entry, says in (
        ({"name": "b", "input": "no.wav"}, "sources[1].input: no.wav: no such file"),
        ({**good, "name": "A"}, "sources[1].name: must be another"),
        ({**good, "name": "b", "settings": {"speech": {"language": "xx"}}}, "sources[1].settings.speech.language"),
    ):
        config = sources(tmp_path, good, entry)
        assert streamer.commands.cli.main(["run", "--config", config, "--no-server", "--speed", "0", *PLAIN]) == 2
        said = capfd.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_one_source_that_fails_is_status_1_and_the_other_is_whole(recordings, tmp_path, monkeypatch, capfd):
    from streamer.audio.files import FileSource
    from streamer.errors import DeviceLost

    blocks = FileSource.blocks

    def breaking(self):
        for block in blocks(self):
            yield block
            if self.name == "talk.wav":
                raise DeviceLost("the disk went away")

    monkeypatch.setattr(FileSource, "blocks", breaking)
    entries = ({"name": "a", "input": str(recordings[0])}, {"name": "b", "input": str(recordings[1])})
    out = tmp_path / "all.jsonl"
    common = ("run", "--config", sources(tmp_path, *entries), "--no-server", "--quiet", "--jsonl", str(out), *PLAIN)
    for speed in ("0", "1"):
        assert streamer.commands.cli.main([*common, "--speed", speed]) == 1
        assert "streamer: a: the disk went away" in capfd.readouterr().err
        found = by_session(events_of(out.read_text()))
        assert [event["state"] for event in found["a"] if event["type"] == "status"][-2:] == ["degraded", "stopped"]
        assert found["b"][-1]["audio_t"] > 6
        check_session(found["b"])


class TwoMicrophones(VirtualMicrophone):
    """Two null sinks of one server, as the ALSA devices `kitchen` and `hall`."""

    def plug_in(self) -> None:
        devices = "".join(
            f"pcm.{name} {{ type pulse device {sink}.monitor hint {{ show on description {name} }} }}\n"
            for name, sink in (("kitchen", "virtmic"), ("hall", "second"))
        )
        asoundrc = self._home / ".asoundrc"
        asoundrc.write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n" + devices)
        super().plug_in()
        self.command("load-module", "module-null-sink", "sink_name=second", f"rate={RATE}", "channels=1")


@needs_pulseaudio
def test_two_real_microphones_hear_each_its_own_room(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(60 * RATE) / RATE)
    played = write_wav(tmp_path / "tone.wav", tone.astype(np.float32))
    entries = ({"name": "Kitchen", "device": "kitchen"}, {"name": "Hall", "device": "hall"})
    loud = {"id": "loud", "loud_dbfs": -40}
    config = tmp_path / "two.yaml"
    config.write_text(json.dumps({"sources": entries, "alerts": {"defaults": False, "rules": [loud]}}))
    arguments = ("--config", str(config), "--model", "nano", "--no-server", "--jsonl", "-")
    with TwoMicrophones(tmp_path) as room, Program(*arguments, env=room.env) as program:
        seconds, player, raised = {"Kitchen": 0.0, "Hall": 0.0}, None, False
        events = []
        for event in program.events():
            events.append(event)
            seconds[event["session"]] = event["audio_t"]
            if player is None and min(seconds.values()) >= 1:
                player = room.start_playing(played)
            raised |= event["type"] == "alert"
            if raised and seconds["Hall"] >= 3:
                break
        program.signal(signal.SIGINT)
        events += list(program.events())
        assert program.wait(30) == 0
        if player is not None:
            player.kill()
            player.wait()
    found = by_session(events)
    assert set(found) == {"Kitchen", "Hall"}
    for session in found.values():  # on a machine that is busy elsewhere tags may be left out
        check_session([event for event in session if event["type"] != "tags"], merged=True)
    assert [event["rule"] for event in found["Kitchen"] if event["type"] == "alert"][:1] == ["loud"]
    assert not [event for event in found["Hall"] if event["type"] == "alert"]


async def send(address: str, start: dict, pcm: bytes) -> dict:
    """What the server answers to the start of a sender."""
    async with connect(f"ws://{address}/ingest") as sender:
        await sender.send(json.dumps({"type": "start", "sample_rate": 16_000, **start}))
        answer = {"type": "hello"}
        while answer["type"] not in ("started", "error"):
            answer = json.loads(await sender.recv())
        if answer["type"] == "started":
            await sender.send(pcm)
            await sender.send('{"type":"stop"}')
            await sender.wait_closed()
    return answer


def test_senders_have_the_settings_of_the_source_that_they_name(tmp_path):
    """A program without a microphone: it listens to senders only, and stays until it is asked to end."""
    settings = {"tags": {"min_score": 1}}
    entries = ({"name": "stage", "input": "ingest", "settings": settings}, {"name": "foyer", "input": "ingest"})
    arguments = ("--config", sources(tmp_path, *entries), "--model", "nano", "--port", "0", "--jsonl", "-")
    pcm = (np.random.default_rng(0).standard_normal(32_000) * 3000).astype("<i2").tobytes()
    with Program(*arguments) as program:
        address = program.wait_for_stderr("captions and sounds: http://").split("http://")[1].split()[0].rstrip("/")
        program.wait_for_stderr("listening with")
        answers = [asyncio.run(send(address, start, pcm)) for start in ({"source": "stage"}, {}, {"source": "attic"})]
        events = []
        for event in program.events():
            events.append(event)
            if sum(one.get("state") == "stopped" for one in events) == 2:
                break
        program.signal(signal.SIGINT)
        assert program.wait(30) == 0
    stage, other = (answer["session"] for answer in answers[:2])
    assert stage.startswith("stage1-")
    assert other.startswith("in2-")
    assert "'attic' is no source" in answers[2]["detail"]
    assert "stage, foyer" in answers[2]["detail"]
    found = by_session(events)
    for session in (stage, other):
        check_session(found[session])
    assert max(len(event["tags"]) for event in found[stage] if event["type"] == "tags") == 0
    assert max(len(event["tags"]) for event in found[other] if event["type"] == "tags") > 0


def test_senders_need_a_server_and_real_time(recordings, tmp_path, capfd):
    config = sources(tmp_path, {"name": "stage", "input": "ingest"}, {"name": "a", "input": str(recordings[0])})
    for option, says in (
        (("--no-server",), "sources[0].input: senders need the server"),
        (("--speed", "0"), "sources[0].input: senders cannot be heard at --speed 0"),
    ):
        assert streamer.commands.cli.main(["run", "--config", config, *option]) == 2
        said = capfd.readouterr().err
        assert says in said
        assert said.count("\n") == 1


async def send_and_interrupt(address: str, pcm: bytes, program: Program) -> None:
    """Send faster than anybody can speak; ask for the end as soon as all of it has arrived, without a `stop`."""
    async with connect(f"ws://{address}/ingest") as sender:
        await sender.send('{"type":"start","sample_rate":16000}')
        for begin in range(0, len(pcm), 8000):
            await sender.send(pcm[begin : begin + 8000])
        await sender.send('{"type":"dance"}')
        answer = {"type": ""}
        while answer["type"] != "error":
            answer = json.loads(await sender.recv())
        program.signal(signal.SIGINT)
        await sender.wait_closed()


def test_what_a_sender_sent_before_ctrl_c_is_transcribed(tmp_path):
    config = sources(tmp_path, {"name": "stage", "input": "ingest"})
    arguments = ("--config", config, "--model", "nano", "--port", "0", "--jsonl", "-")
    talk = read_audio(demo_path())[24_000 : 24_000 + 6 * 16_000]
    with Program(*arguments) as program:
        address = program.wait_for_stderr("captions and sounds: http://").split("http://")[1].split()[0].rstrip("/")
        program.wait_for_stderr("listening with")
        asyncio.run(send_and_interrupt(address, np.round(talk * 32767).astype("<i2").tobytes(), program))
        events = list(program.events())
        assert program.wait(30) == 0
    check_session([event for event in events if event["type"] != "tags"], merged=True)
    assert (events[-1]["state"], events[-1]["audio_t"]) == ("stopped", 6.0)
    finals = [event for event in events if event["type"] == "transcript" and event["final"]]
    assert {word for event in finals for word in event["text"].split()} >= {"good", "morning", "maria"}

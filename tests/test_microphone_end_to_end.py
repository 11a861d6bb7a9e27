"""The main job: somebody speaks into a real microphone, captions arrive at two websocket clients at once."""

import asyncio
import json
import signal
import wave
from pathlib import Path

import pytest
from program import Program
from protocol import check_session
from virtmic import VirtualMicrophone, needs_pulseaudio
from websockets.asyncio.client import connect

from streamer.audio.files import read_audio
from streamer.errors import CheckpointError, InputError
from streamer.model.catalog import bundled_path

SHARED_NANO = Path(__file__).resolve().parents[2] / "shared" / "models" / "nano.pt"
HEARD_S = 14


def recognising_model() -> str:
    """The bundled nano, or the reference one of the development machines."""
    try:
        return str(bundled_path())
    except CheckpointError:
        if not SHARED_NANO.exists():
            pytest.skip("no model that recognises anything is here")
        return str(SHARED_NANO)


def speech(directory: Path) -> Path:
    """The start of the bundled demo as a wav file."""
    from streamer.audio.files import demo_path

    try:
        samples = read_audio(demo_path())[: 12 * 16_000]
    except InputError:
        samples = read_audio(str(SHARED_NANO.parents[1] / "scenes" / "speech_clean_0.flac"))[: 12 * 16_000]
    path = directory / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


async def listen(address: str, ready: asyncio.Event, started: asyncio.Event) -> list[dict]:
    """Everything a client gets until a final transcript, or for a while."""
    messages = []
    async with connect(address + "/ws?since_seq=0") as client:
        ready.set()
        await started.wait()
        async with asyncio.timeout(HEARD_S + 20):
            async for text in client:
                messages.append(json.loads(text))
                if messages[-1].get("final"):
                    return messages
    return messages


@needs_pulseaudio
def test_captions_of_a_real_microphone_reach_two_clients_at_once(tmp_path):
    arguments = ("--model", recognising_model(), "--port", "0", "--jsonl", str(tmp_path / "events.jsonl"))
    # What matters here is that text arrives; the bundled nano is half-trained and the guards rightly doubt it.
    for guard in ("silence", "speech_tag"):
        arguments += ("--set", f"guards.{guard}=false")
    with VirtualMicrophone(tmp_path) as microphone, Program(*arguments, env=microphone.env) as program:
        line = program.wait_for_stderr("captions and sounds: http://")
        address = line.split("captions and sounds: http")[1].split()[0].rstrip("/")
        program.wait_for_stderr("listening with")

        async def both() -> list[list[dict]]:
            ready, started = [asyncio.Event(), asyncio.Event()], asyncio.Event()
            clients = [asyncio.create_task(listen("ws" + address, one, started)) for one in ready]
            for one in ready:
                await one.wait()
            await asyncio.sleep(3)  # PulseAudio's null sink buffers its first seconds
            microphone.start_playing(speech(tmp_path))
            started.set()
            return list(await asyncio.gather(*clients))

        heard = asyncio.run(both())
        program.signal(signal.SIGINT)
        assert program.wait(10) == 0
    for messages in heard:
        assert messages[0]["type"] == "hello"
        transcripts = [message for message in messages if message["type"] == "transcript"]
        assert transcripts[-1]["final"]
        assert transcripts[-1]["text"]
        assert [message for message in messages if message["type"] == "tags"]
    finals = [[m["text"] for m in messages if m.get("final")] for messages in heard]
    assert finals[0] == finals[1]
    check_session([json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()])

"""The running program and the published clients of other protocols, with recordings of people: `openai`, `wyoming`.

Needs `tiny.en`, which is fetched once, and those clients; skipped where they cannot be had.
"""

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soxr
from program import for_senders, write_wav
from websockets.asyncio.client import connect

from streamer.audio.files import read_audio
from streamer.client import Ingest
from streamer.commands.cli import main
from streamer.events import Status, Transcript
from streamer.measure.word_errors import plain_text, word_errors

openai = pytest.importorskip("openai")
pytest.importorskip("aiohttp")
asr = pytest.importorskip("wyoming.asr")

RECORDINGS = Path(__file__).parent / "recordings"
SPEECH = RECORDINGS / "LJ001-0081.flac"
SAID = "type cast from his matrices is still in everyday use"
TOKEN = "a-token-for-tests"
LIMIT_S = 240  # of everything that waits for the model: machines that run tests are busy
pytestmark = pytest.mark.timeout(900)  # the first time the weights are fetched


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program with no source of its own, for senders and uploads alone."""
    config = tmp_path_factory.mktemp("others") / "streamer.yaml"
    config.write_text(
        "sources: [{name: phone, input: ingest}]\n"
        f"server: {{port: 0, token: {TOKEN}, openai: true, upload_max_mb: 1, upload_max_min: 1, wyoming_port: 0}}\n"
    )
    with for_senders(config) as running:
        running.wyoming = running.wait_for_stderr("Wyoming: tcp://").split("tcp://")[1].strip()
        yield running


@pytest.fixture
def client(program):
    with openai.OpenAI(
        base_url=f"http://{program.address}/v1", api_key=TOKEN, max_retries=0, timeout=LIMIT_S
    ) as client:
        yield client


def errors(said: str, text: str) -> float:
    found = word_errors(plain_text(said), plain_text(text)).rate
    assert found is not None
    return found


def pcm(rate: int, *, silence_s: float = 0.0) -> bytes:
    samples = np.concatenate([read_audio(str(SPEECH)), np.zeros(round(16_000 * silence_s), np.float32)])
    return np.round(soxr.resample(samples, 16_000, rate) * 32767).astype("<i2").tobytes()


# ---- uploads


def test_a_recording_as_json_text_srt_and_vtt(client):
    def ask(kind: str):
        return client.audio.transcriptions.create(model="whisper-1", file=SPEECH, response_format=kind)

    answer = ask("json")
    assert errors(SAID, answer.text) <= 0.2
    assert answer.streamer == {"sounds": [], "alerts": [], "unclear": []}
    assert ask("text").strip() == answer.text
    srt, vtt = ask("srt"), ask("vtt")
    assert srt.startswith("1\n00:00:0")
    assert vtt.startswith("WEBVTT\n")
    assert "matrices" in srt.replace("\n", " ")
    assert "matrices" in vtt.replace("\n", " ")


def test_a_recording_as_verbose_json_with_words(client):
    answer = client.audio.transcriptions.create(
        model="tiny.en",
        file=SPEECH,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        prompt="The history of printing.",
    )
    length_s = len(read_audio(str(SPEECH))) / 16_000
    assert answer.language == "english"
    assert abs(answer.duration - length_s) < 0.05
    assert "".join(f" {word.word}" for word in answer.words).strip() == answer.text
    assert all(0 <= word.start <= word.end <= length_s for word in answer.words)
    assert " ".join(one.text for one in answer.segments) == answer.text
    assert all(-1 < one.avg_logprob < 0 and one.no_speech_prob < 0.5 for one in answer.segments)


def test_a_recording_as_a_stream(client):
    events = list(client.audio.transcriptions.create(model="whisper-1", file=SPEECH, stream=True))
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert errors(SAID, events[-1].text) <= 0.2


def test_what_is_said_is_what_transcribe_says(client, capfd):
    """Not to the letter: live weights have differences for short windows, and products of 8 bits on some CPUs."""
    assert main(["transcribe", str(SPEECH), "--model", "tiny.en", "--head", "none", "--format", "text"]) == 0
    answer = client.audio.transcriptions.create(model="whisper-1", file=SPEECH)
    assert errors(capfd.readouterr().out, answer.text) <= 0.1


def test_the_model_is_named(client):
    assert [model.id for model in client.models.list()] == ["tiny.en"]


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"language": "de"}, "language"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"temperature": 0.5}, "temperature"),
        ({"prompt": "<|endoftext|>"}, "prompt"),
        ({"stream": True, "response_format": "srt"}, "stream"),
        ({"file": ("a.m3u8", b"#EXTM3U\n/etc/passwd\n")}, "file"),
        ({"file": ("a.wav", b"")}, "file"),
        ({"file": ("a.wav", b"RIFF\x00\x00\x00\x00WAVEfmt \x10")}, "file"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(client, wish, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(**{"model": "whisper-1", "file": SPEECH, **wish})
    assert refused.value.param == param
    assert refused.value.body["type"] == "invalid_request_error"
    assert "/tmp" not in refused.value.body["message"]


def test_an_english_model_translates_nothing(client):
    with pytest.raises(openai.BadRequestError, match="cannot translate"):
        client.audio.translations.create(model="whisper-1", file=SPEECH)


def test_what_is_too_large_or_too_long_is_refused(client, tmp_path):
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", bytes(2_000_000)))
    assert refused.value.status_code == 413
    long = write_wav(tmp_path / "long.wav", np.zeros(61 * 8_000, np.float32), 8_000)
    with pytest.raises(openai.BadRequestError, match="longer than 1 minutes"):
        client.audio.transcriptions.create(model="whisper-1", file=long)


def test_without_the_token_nobody_is_served(program):
    stranger = openai.OpenAI(base_url=f"http://{program.address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.audio.transcriptions.create(model="whisper-1", file=SPEECH)
    assert refused.value.code == "invalid_api_key"
    page = {"Origin": "https://elsewhere.example", "Authorization": f"Bearer {TOKEN}"}
    with pytest.raises(openai.PermissionDeniedError):
        stranger.models.list(extra_headers=page)


# ---- Realtime


async def realtime(program, session: dict, sound: bytes, *, commit: bool):
    """What comes until the first item is completed."""
    told = []
    client = openai.AsyncOpenAI(base_url=f"http://{program.address}/v1", api_key=TOKEN)
    async with (
        asyncio.timeout(LIMIT_S),
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await connection.session.update(session=session)
        for at in range(0, len(sound), 48_000):
            await connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 48_000]).decode())
        if commit:
            await connection.input_audio_buffer.commit()
        async for event in connection:
            told.append(event)
            if event.type in ("conversation.item.input_audio_transcription.completed", "error"):
                return told
    raise AssertionError(told)


@pytest.mark.parametrize("turns", [True, False])
def test_realtime_transcription(program, turns):
    session = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad"} if turns else None,
            }
        },
    }
    sound = pcm(24_000, silence_s=4.0 if turns else 0.0)
    told = asyncio.run(realtime(program, session, sound, commit=not turns))
    kinds = [event.type for event in told]
    assert kinds[:2] == ["session.created", "session.updated"]
    assert told[1].session.audio.input.transcription.language == "en"
    deltas = [event.delta for event in told if event.type.endswith(".delta")]
    assert len(deltas) > 1  # as it is committed, not all at the end
    assert "".join(deltas) == told[-1].transcript
    assert errors(SAID, told[-1].transcript) <= 0.2
    assert "input_audio_buffer.committed" in kinds
    assert len({event.item_id for event in told[2:] if hasattr(event, "item_id")}) == 1
    if turns:
        assert kinds[2] == "input_audio_buffer.speech_started"
        assert kinds[-3:-1] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]


def test_realtime_as_of_2024(program):
    """`transcription_session.update`, by hand: the published client no longer says it."""

    async def scenario():
        headers = {"Authorization": f"Bearer {TOKEN}", "OpenAI-Beta": "realtime=v1"}
        address = f"ws://{program.address}/v1/realtime?intent=transcription"
        told = []
        async with asyncio.timeout(LIMIT_S), connect(address, additional_headers=headers) as client:

            async def say(**message):
                await client.send(json.dumps(message))
                told.append(json.loads(await client.recv()))

            told.append(json.loads(await client.recv()))
            session = {"input_audio_format": "pcm16", "input_audio_transcription": {"language": "en"}}
            await say(type="transcription_session.update", session={**session, "turn_detection": None})
            await say(type="transcription_session.update", session={"input_audio_transcription": {"language": "de"}})
            await say(type="input_audio_buffer.commit", event_id="mine")
            await say(type="input_audio_buffer.append", audio="***")
            await say(type="response.create")
            await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
            await say(type="input_audio_buffer.clear")
        return told

    told = asyncio.run(scenario())
    assert [one["type"] for one in told] == [
        *("transcription_session.created", "transcription_session.updated"),
        *(["error"] * 4),
        "input_audio_buffer.cleared",
    ]
    assert told[1]["session"]["turn_detection"] is None
    assert told[3]["error"]["event_id"] == "mine"


def test_realtime_wants_the_token(program):
    async def scenario():
        address = f"ws://{program.address}/v1/realtime?intent=transcription"
        async with connect(address) as client:
            await client.wait_closed()
            return client.close_code

    assert asyncio.run(scenario()) == 1008


# ---- /ingest


def test_a_sender_gets_its_sessions_events_on_the_same_socket(program):
    async def scenario():
        address = f"http://{program.address}"
        async with asyncio.timeout(LIMIT_S), Ingest(address, sample_rate=16_000, token=TOKEN) as sender:
            sound = pcm(16_000)
            for at in range(0, len(sound), 16_000):
                await sender.send_audio(sound[at : at + 16_000])
            await sender.stop()
            return sender.session, [event async for event in sender.events()]  # raises where it is not closed with 1000

    session, events = asyncio.run(scenario())
    assert {one.session for one in events} == {session}
    assert events[0].seq == 1
    assert isinstance(events[-1], Status)
    assert events[-1].state == "stopped"
    final = [one for one in events if isinstance(one, Transcript)][-1]
    assert final.final
    assert errors(SAID, final.text) <= 0.2


# ---- Wyoming


def test_wyoming_tells_what_it_is_and_transcribes(program):
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncClient
    from wyoming.info import Describe, Info
    from wyoming.ping import Ping, Pong

    async def scenario():
        told = []
        async with asyncio.timeout(LIMIT_S), AsyncClient.from_uri(f"tcp://{program.wyoming}") as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            await client.write_event(Ping(text="there?").event())
            assert Pong.from_event(await client.read_event()).text == "there?"
            for _ in range(2):  # one recording after the other
                await client.write_event(asr.Transcribe(language="en-US").event())
                await client.write_event(AudioStart(rate=22_050, width=2, channels=1).event())
                sound = pcm(22_050)
                for at in range(0, len(sound), 4096):
                    chunk = AudioChunk(rate=22_050, width=2, channels=1, audio=sound[at : at + 4096])
                    await client.write_event(chunk.event())
                await client.write_event(AudioStop().event())
                told.append([await client.read_event()])
                while not asr.TranscriptStop.is_type(told[-1][-1].type):
                    told[-1].append(await client.read_event())
        return info, told

    info, told = asyncio.run(scenario())
    (service,) = info.asr
    assert service.supports_transcript_streaming
    assert [(model.name, model.languages) for model in service.models] == [("tiny.en", ["en"])]
    for events in told:
        assert asr.TranscriptStart.from_event(events[0]).language == "en"
        chunks = [asr.TranscriptChunk.from_event(event).text for event in events[1:-2]]
        text = asr.Transcript.from_event(events[-2]).text
        assert len(chunks) > 1
        assert "".join(chunks) == text
        assert errors(SAID, text) <= 0.2
        assert events[-2].data["streamer"] == {"sounds": [], "alerts": []}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"POST / HTTP/1.1\r\n", "no event of Wyoming"),
        (b'{"type":"audio-chunk","payload_length":99999999}\n', "payload_length"),
        (b'{"type":"transcribe","data":{"language":"de"}}\n', "does not know 'de'"),
        (b'{"type":"audio-start","data":{"rate":16000,"width":4,"channels":1}}\n', "width"),
        (b'{"type":"audio-start","data":{"rate":1,"width":2,"channels":1}}\n', "sample_rate"),
    ],
)
def test_what_wyoming_cannot_use_is_an_error(program, line, says):
    async def scenario():
        host, port = program.wyoming.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        return answer

    head, data = asyncio.run(scenario()).split(b"\n", 1)
    assert json.loads(head)["type"] == "error"
    assert says in json.loads(data)["text"]

"""The running program and Deepgram's published client, with a recording of a person.

Needs `tiny.en`, which is fetched once, and `deepgram-sdk`; skipped where they cannot be had.
"""

import asyncio
import io
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from program import for_senders
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from streamer.audio.files import read_audio
from streamer.measure.word_errors import plain_text, word_errors

deepgram = pytest.importorskip("deepgram")

from deepgram.core.api_error import ApiError  # noqa: E402
from deepgram.environment import DeepgramClientEnvironment  # noqa: E402

SPEECH = Path(__file__).parent / "recordings" / "LJ001-0081.flac"
SAID = "type cast from his matrices is still in everyday use"
TOKEN = "a-token-for-tests"
LIMIT_S = 240  # of everything that waits for the model: machines that run tests are busy
pytestmark = pytest.mark.timeout(900)  # the first time the weights are fetched


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program with no source of its own, for senders alone."""
    config = tmp_path_factory.mktemp("deepgram") / "streamer.yaml"
    config.write_text(
        "sources: [{name: phone, input: ingest}]\n"
        f"server: {{port: 0, token: {TOKEN}, deepgram: true}}\n"
        "alerts: {rules: [{id: said, phrases: [matrices]}]}\n"
    )
    with for_senders(config) as running:
        yield running


def client(program, key: str = TOKEN):
    place = DeepgramClientEnvironment(
        base=f"http://{program.address}", production=f"ws://{program.address}", agent="", agent_rest=""
    )
    return deepgram.AsyncDeepgramClient(api_key=key, environment=place)


def samples(rate: int = 16_000, *, silence_s: float = 0.0) -> np.ndarray:
    sound = np.concatenate([read_audio(str(SPEECH)), np.zeros(round(16_000 * silence_s), np.float32)])
    return np.round(soxr.resample(sound, 16_000, rate) * 32767).astype("<i2")


def pcm(rate: int = 16_000, **more) -> list[bytes]:
    sound = samples(rate, **more).tobytes()
    return [sound[at : at + 8000] for at in range(0, len(sound), 8000)]


def opus_packets() -> list[bytes]:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples(48_000)[None], format="s16", layout="mono")
    frame.sample_rate = 48_000
    return [bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]]


def contained(format_name: str, codec: str) -> list[bytes]:
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples(48_000)[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    data = file.getvalue()
    return [data[at : at + 1000] for at in range(0, len(data), 1000)]


async def listen(program, sound: list[bytes], *, finalize: bool = False, **wishes):
    """All messages of a connection. `finalize`: the sound is sent twice, with a Finalize in between."""
    told = []
    async with (
        asyncio.timeout(LIMIT_S),
        client(program).listen.v1.connect(model="nova-3", **wishes) as connection,
    ):

        async def send() -> None:
            for piece in sound:
                await connection.send_media(piece)
            if finalize:
                await connection.send_finalize()
                await connection.send_keep_alive()
                for piece in sound:
                    await connection.send_media(piece)
            await connection.send_close_stream()

        sending = asyncio.create_task(send())
        async for message in connection:
            told.append(message)
        await sending
    return told


def finals(told) -> list:
    return [one for one in told if one.type == "Results" and one.is_final and one.channel.alternatives[0].transcript]


def check(text: str) -> None:
    rate = word_errors(plain_text(SAID), plain_text(text)).rate
    assert rate is not None
    assert rate <= 0.2, text


def test_what_was_said_with_interim_results_and_the_end_of_the_utterance(program):
    sound = pcm(silence_s=4.0)
    wishes = {"encoding": "linear16", "sample_rate": 16_000, "language": "en-US", "interim_results": True}
    wishes |= {"utterance_end_ms": 1000, "vad_events": True, "smart_format": True, "punctuate": True}
    told = asyncio.run(listen(program, sound, **wishes))
    check(" ".join(one.channel.alternatives[0].transcript for one in finals(told)))
    kinds = [one.type for one in told]
    assert kinds[0] == "SpeechStarted"
    assert kinds[-1] == "Metadata"
    assert told[-1].duration == pytest.approx(len(samples(silence_s=4.0)) / 16_000, abs=0.001)
    assert kinds.count("UtteranceEnd") == 1
    interim = [one for one in told if one.type == "Results" and not one.is_final]
    assert len(interim) > 1
    last = finals(told)[-1]
    assert last.speech_final
    assert last.metadata.model_info.name == "tiny.en"
    end = next(one for one in told if one.type == "UtteranceEnd")
    assert end.last_word_end == last.channel.alternatives[0].words[-1].end
    spans = [(one.start, one.start + one.duration) for one in finals(told)]
    assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(spans))


def test_a_finalize_makes_all_that_was_sent_final(program):
    told = asyncio.run(listen(program, pcm(8000), finalize=True, encoding="linear16", sample_rate=8000))
    marked = [number for number, one in enumerate(told) if one.type == "Results" and one.from_finalize]
    assert len(marked) == 1
    first, second = told[: marked[0] + 1], told[marked[0] + 1 :]
    for half in (first, second):
        check(" ".join(one.channel.alternatives[0].transcript for one in finals(half)))
    length_s = len(samples(8000)) / 8000
    assert finals(second)[0].start >= length_s - 0.01
    assert told[-1].duration == pytest.approx(2 * length_s, abs=0.001)


@pytest.mark.parametrize("kind", ["opus", "ogg", "webm", "wav", "mulaw"])
def test_coded_sound(program, kind):
    wishes, sound = {}, []
    if kind == "opus":
        wishes, sound = {"encoding": "opus", "sample_rate": 48_000}, opus_packets()
    elif kind == "mulaw":
        wishes = {"encoding": "mulaw", "sample_rate": 8000}
        sound = [mulaw(piece) for piece in pcm(8000)]
    else:
        sound = contained(kind, "pcm_s16le" if kind == "wav" else "libopus")
    told = asyncio.run(listen(program, sound, **wishes))
    check(" ".join(one.channel.alternatives[0].transcript for one in finals(told)))
    assert told[-1].duration == pytest.approx(len(samples()) / 16_000, abs=0.1)


def mulaw(piece: bytes) -> bytes:
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(np.frombuffer(piece, "<i2")[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


async def by_hand(program, query: str, sound: list[bytes]):
    """The published client gives None for messages that it does not know, and raises at a close that is no 1000."""
    told = []
    address, headers = f"ws://{program.address}/v1/listen?{query}", {"Authorization": f"Token {TOKEN}"}
    async with asyncio.timeout(LIMIT_S), connect(address, additional_headers=headers) as connection:
        for piece in sound:
            await connection.send(piece)
        await connection.send('{"type":"CloseStream"}')
        with suppress(ConnectionClosed):
            while True:
                told.append(json.loads(await connection.recv()))
        return told, connection.close_code


def test_alerts_come_along_as_messages_of_their_own(program):
    told, _ = asyncio.run(by_hand(program, "encoding=linear16&sample_rate=16000&streamer=true", pcm()))
    alerts = [one for one in told if one["type"] == "Alert"]
    assert [(one["rule"], one["state"]) for one in alerts] == [("said", "raised"), ("said", "cleared")]


@pytest.mark.parametrize(
    ("query", "sound", "says"),
    [
        ("", b"#EXTM3U\n/etc/passwd\n" * 10, "no container"),
        ("", b"fLaC\x00\x00\x00\x22" + bytes(5000), "damaged"),
        ("encoding=opus", bytes(5000), "no packet of opus"),
    ],
)
def test_what_is_no_sound_is_an_error(program, query, sound, says):
    (told,), code = asyncio.run(by_hand(program, query, [sound]))
    assert code == 1008
    assert told["type"] == "Error"
    assert says in told["description"]


def test_a_wrong_key_or_wish_is_refused(program):
    async def scenario(key: str, **wishes):
        async with client(program, key).listen.v1.connect(model="nova-3", **wishes):
            raise AssertionError

    with pytest.raises(ApiError) as refused:
        asyncio.run(scenario("wrong"))
    assert refused.value.status_code == 401
    with pytest.raises(ApiError) as refused:
        asyncio.run(scenario(TOKEN, language="de"))
    assert refused.value.status_code == 400

"""The running program and its clients: pages, replay, acknowledging, senders on /ingest, a wrong token."""

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from program import Program, write_wav
from protocol import check_session
from random_whisper import ENGLISH, random_whisper
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from streamer.model.head import HeadKind, HeadModule, HeadShape

sys.path.append(str(Path(__file__).parent / "model"))
from backbones import save_whisper

TOKEN = "a token for tests"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A file of noise, and a small random model with a head."""
    folder = tmp_path_factory.mktemp("server")
    model = save_whisper(folder / "small.pt", random_whisper(3, vocabulary=ENGLISH, ending=2.0))
    model.with_suffix(".json").write_text(json.dumps({"variable_context": True, "min_context_s": 1}))
    head = HeadModule(HeadShape(HeadKind.LAST_MLP, 64)).state_dict()
    torch.save({f"at_model.{key}": value for key, value in head.items()}, folder / "small_at.pth")
    sound = write_wav(folder / "noise.wav", (np.random.default_rng(0).standard_normal(48_000) * 0.1).astype(np.float32))
    return str(sound), str(model)


@pytest.fixture(scope="module")
def program(parts):
    """The program on a file, in real time, staying up afterwards."""
    sound, model = parts
    arguments = ("--input", sound, "--model", model, "--port", "0", "--stay", "--token", TOKEN)
    arguments += ("--set", "server.allow_set=true")
    with Program(*arguments) as running:
        line = running.wait_for_stderr("captions and sounds: http://")
        running.address = line.split("captions and sounds: http://")[1].split("/")[0]
        running.wait_for_stderr("listening with small (")
        yield running
        running.signal(signal.SIGTERM)
        assert running.wait(10) == 0


def fetch(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def until(client, wanted, limit_s=30):
    messages = []
    async with asyncio.timeout(limit_s):
        async for text in client:
            messages.append(json.loads(text))
            if wanted(messages[-1]):
                return messages
    raise AssertionError(messages)


def test_pages_want_the_token(program):
    for path in ("/", "/overlay"):
        assert fetch(program.address, f"{path}?token={TOKEN.replace(' ', '%20')}") == 200
        assert fetch(program.address, path) == 401
    assert fetch(program.address, "/nothing") in (401, 404)


def test_a_stranger_is_closed_with_1008(program):
    async def scenario():
        with pytest.raises(ConnectionClosed) as closed:
            async with connect(f"ws://{program.address}/ws?token=wrong%20token") as client:
                await client.recv()
        return closed.value.rcvd.code

    assert asyncio.run(scenario()) == 1008


def test_a_late_client_gets_the_whole_session_by_since_seq(program):
    async def scenario():
        address = f"ws://{program.address}/ws?since_seq=0&token={TOKEN.replace(' ', '%20')}"
        async with connect(address) as client:
            return await until(client, lambda message: message.get("state") == "stopped")

    hello, *messages = asyncio.run(scenario())
    program.wait_for_stderr("all was heard; the pages stay up, Ctrl-C ends")
    assert hello["type"] == "hello"
    assert hello["sessions"][0]["model"] == "small"
    assert hello["sessions"][0]["head"] == "small_at"
    events = [message for message in messages if "seq" in message]
    check_session(events, merged=True)
    starting = [event for event in events if event["type"] == "status" and event["state"] == "starting"]
    assert [(event["seq"], event["detail"]) for event in starting[:2]] == [
        (1, "loading small.pt"),
        (2, "warming up small"),
    ]


def test_a_sender_on_ingest_is_a_session_of_its_own(program):
    samples = (np.random.default_rng(1).standard_normal(2 * 44_100) * 8000).astype("<i2")
    token = f"token={TOKEN.replace(' ', '%20')}"

    async def scenario():
        async with connect(f"ws://{program.address}/ws?{token}") as listener:
            await listener.recv()
            async with connect(f"ws://{program.address}/ingest?{token}") as sender:
                start = {"type": "start", "sample_rate": 44_100, "encoding": "pcm_s16le", "channels": 1}
                await sender.send(json.dumps(start))
                pcm = samples.tobytes()
                for index in range(0, len(pcm), 8191):  # odd pieces
                    await sender.send(pcm[index : index + 8191])
                await sender.send(json.dumps({"type": "stop"}))
                return await until(listener, lambda message: message.get("state") == "stopped")

    messages = [message for message in asyncio.run(scenario()) if "seq" in message]
    names = {message["session"] for message in messages}
    assert len(names) == 1
    assert names.pop().startswith("in1-")
    check_session(messages, merged=True)
    assert messages[-1]["audio_t"] == 2.0
    assert [message["end"] for message in messages if message["type"] == "tags"] == [1.0, 2.0]


def test_who_holds_the_token_sets_the_language_of_a_session(program):
    token = f"token={TOKEN.replace(' ', '%20')}"

    async def scenario():
        async with connect(f"ws://{program.address}/ws?{token}&types=status") as client:
            hello = json.loads(await client.recv())
            async with connect(f"ws://{program.address}/ingest?{token}") as sender:
                await sender.send(json.dumps({"type": "start", "sample_rate": 16_000, "source": None}))
                session = (await until(client, lambda message: message["type"] == "status"))[-1]["session"]
                answers = []
                for language in ("German, English", "auto", "klingon", "de"):
                    wish = {"type": "set", "session": session, "language": language}
                    await client.send(json.dumps(wish))
                    answers += await until(client, lambda message: message["type"] in ("set", "error"))
                await client.send(json.dumps({"type": "set", "session": "nobody", "language": "en"}))
                answers += await until(client, lambda message: message["type"] == "error")
                await sender.send(json.dumps({"type": "stop"}))
                return hello, session, [one for one in answers if one["type"] in ("set", "error")]

    hello, session, answers = asyncio.run(scenario())
    assert "set" in hello["capabilities"]
    assert answers[:2] == [
        {"v": 1, "type": "set", "session": session, "language": language} for language in ("de,en", "auto")
    ]
    assert [one["type"] for one in answers[2:]] == ["error"] * 3
    assert "'klingon' is no language" in answers[2]["detail"]
    assert "the model small knows English only" in answers[3]["detail"]
    assert "'nobody' is over or never was" in answers[4]["detail"]


def test_wrong_messages_get_an_error_and_the_connection_stays(program):
    async def scenario():
        async with connect(f"ws://{program.address}/ws?token={TOKEN.replace(' ', '%20')}") as client:
            await client.recv()
            answers = []
            for message in ("{", '{"type":"dance"}', '{"type":"ack","id":1,"session":"nobody"}', '{"type":"ping"}'):
                await client.send(message)
                answers += await until(client, lambda found: found["type"] in ("error", "pong"))
            return [answer["type"] for answer in answers if answer["type"] in ("error", "pong")]

    assert asyncio.run(scenario()) == ["error", "error", "error", "pong"]


@pytest.mark.parametrize("given", ["environment", "file"])
def test_the_token_is_in_no_list_of_processes_no_address_and_no_log(parts, tmp_path, given):
    """With everything logged: the printed link lets one browser in, and the live program says how it does."""
    sound, model = parts
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    arguments = ["--debug", "--input", sound, "--model", model, "--port", "0", "--stay"]
    arguments += ["--token-file", str(file)] if given == "file" else []
    with Program(*arguments, env={"STREAMER_TOKEN": TOKEN} if given == "environment" else None) as running:
        line = running.wait_for_stderr("captions and sounds: http://")
        link = line.split("captions and sounds: ")[1].split()[0]
        address = link.removeprefix("http://").split("/")[0]
        running.wait_for_stderr("listening with small (")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(link, timeout=10) as page:  # through the redirection, with the cookie
            assert page.status == 200
            assert page.url == f"http://{address}/"
        assert fetch(address, link.removeprefix(f"http://{address}")) == 401
        assert fetch(address, f"/?token={TOKEN.replace(' ', '%20')}") == 200
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as metrics:
            text = metrics.read().decode()
        assert 'streamer_events_total{type="status"}' in text
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        said = "".join(running.stderr)
    assert "GET /?token=" in said
    for shown in (TOKEN, TOKEN.replace(" ", "%20"), TOKEN.replace(" ", "+")):
        assert shown not in said

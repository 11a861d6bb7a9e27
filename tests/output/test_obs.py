"""Stream captions through obs-websocket 5, against a server that holds to the published protocol."""

import itertools
import json
import logging
import socket
import threading
import time

import pytest
from obs_stub import CHALLENGE, SALT, obs
from websockets.sync.server import serve

from streamer.errors import Rests
from streamer.output.caption_sender import CaptionSender, Line, NotTakenError, NotWantedError
from streamer.output.obs import BYTES_PER_S, CONTROL_BYTES, ObsCaptions, authentication

PASSWORD = "supersecretpassword"
LINES = [
    "The quick brown fox jumps over",
    "the lazy dog, and then it runs",
    "away into the dark forest where",
    "nobody will ever see it again.",
]


def line(text: str, age_s: float = 0.0) -> Line:
    return Line(text, time.time() - age_s, time.monotonic() - age_s)


def to(stub, password=PASSWORD, bytes_per_s=1e6) -> ObsCaptions:
    return ObsCaptions(stub.url, password, path="output.obs", bytes_per_s=bytes_per_s)


def wait_until(true, timeout_s=10.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_the_answer_to_the_challenge_is_that_of_the_protocol_document():
    # Its example's password, salt and challenge; the answer is the one that its clients' own tests have.
    assert authentication(PASSWORD, SALT, CHALLENGE) == "1Ct943GAT+6YQUUX47Ia/ncufilbe6+oD6lY+5kaCu4="


def test_captions_roll_up_in_two_lines():
    with obs(PASSWORD) as stub:
        captions = to(stub)
        for text in LINES[:3]:
            captions.send((line(text),))
        captions.close()
    assert stub.texts == [LINES[0], "\n".join(LINES[:2]), "\n".join(LINES[1:3])]
    assert stub.identified[0]["eventSubscriptions"] == 0


def test_without_a_password_none_is_sent():
    with obs() as stub:
        captions = to(stub, None)
        assert captions.idle()
        captions.close()
    assert "authentication" not in stub.identified[0]


@pytest.mark.parametrize(("password", "says"), [("wrong one", "password is wrong"), (None, "wants its password")])
def test_a_password_that_is_wrong_or_missing_is_said_without_it(password, says):
    with obs(PASSWORD) as stub, pytest.raises(NotTakenError, match=says) as caught:
        to(stub, password).idle()
    assert "output.obs.password" in str(caught.value)
    assert "wrong one" not in str(caught.value)


def test_what_answers_and_is_no_obs_is_said():
    with serve(lambda connection: connection.send(json.dumps({"hello": 1})), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with pytest.raises(NotTakenError, match="obs-websocket 5"):
            ObsCaptions(url, None, path="output.obs").idle()
        server.shutdown()


def test_letters_that_cea_608_has_not_are_written_with_those_that_it_has():
    with obs() as stub:
        captions = to(stub, None)
        captions.send((line("„Nein…“ – 3‑mal"),))
        captions.close()
    assert stub.texts == ['"Nein...“ - 3-mal']


def test_while_obs_does_not_stream_nothing_is_kept():
    with obs() as stub:
        captions = to(stub, None)
        stub.codes = [501]
        with pytest.raises(NotWantedError, match="does not stream"):
            captions.send((line(LINES[0]),))
        captions.send((line(LINES[1]),))
        captions.close()
    assert stub.texts == [LINES[1]]


def test_the_last_caption_goes_away_after_a_while(monkeypatch):
    monkeypatch.setattr("streamer.output.obs.CLEAR_S", 0.0)
    with obs() as stub:
        captions = to(stub, None)
        captions.send((line(LINES[0]),))
        assert captions.idle()
        assert captions.idle()
        captions.close()
    assert stub.texts == [LINES[0], ""]


def test_a_paragraph_comes_no_faster_than_cea_608_carries_it():
    speed = BYTES_PER_S * 10  # so that the test is ten times as quick
    with obs() as stub:
        sender = CaptionSender(to(stub, None, bytes_per_s=speed))
        for text in LINES * 2:
            sender.put(line(text))
        sender.start()
        wait_until(lambda: len(stub.captions) == 4)
        sender.finish()
        assert sender.join(5)
    assert stub.texts == ["\n".join(LINES[:2]), "\n".join(LINES[2:])] * 2  # two new lines at a time
    for (sent_s, text), (next_s, _) in itertools.pairwise(stub.captions):
        assert next_s - sent_s >= (len(text) + CONTROL_BYTES) / speed - 0.02


def test_it_comes_back_by_itself_and_says_each_thing_once(caplog, monkeypatch):
    monkeypatch.setattr("streamer.errors.RESTS", Rests(first_s=0.05, longest_s=0.05))
    monkeypatch.setattr("streamer.output.caption_sender.LOOK_S", 0.1)
    port, told = free_port(), []
    sender = CaptionSender(ObsCaptions(f"ws://127.0.0.1:{port}", PASSWORD, path="output.obs"), told.append)
    with caplog.at_level(logging.DEBUG):
        sender.start()
        wait_until(lambda: told)
        with obs(PASSWORD, port) as stub:
            wait_until(lambda: len(told) == 2)
            sender.put(line(LINES[0]))
            wait_until(lambda: stub.texts == [LINES[0]])
        wait_until(lambda: len(told) == 3)
        with obs(PASSWORD, port) as again:
            sender.put(line(LINES[1]))
            wait_until(lambda: again.captions)
        sender.finish()
        assert sender.join(5)
    assert again.texts == ["\n".join(LINES[:2])]
    assert told[0] == (
        "OBS: captions are not taken: OBS does not listen (Tools, WebSocket Server Settings) "
        f"at 127.0.0.1:{port}; trying again"
    )
    assert told[1] == "OBS: it is there"
    assert told[2] == "OBS: captions are not taken: OBS closed the connection; trying again"
    assert told[-1] in ("OBS: it is there", "OBS: captions are taken")
    said = caplog.text
    assert PASSWORD not in said
    assert authentication(PASSWORD, SALT, CHALLENGE) not in said
    assert said.count("does not listen") <= 2


def test_lines_that_are_too_old_are_left_out(caplog):
    with obs() as stub:
        sender = CaptionSender(to(stub, None))
        for text, age_s in [("long ago", 60), ("a while ago", 11), ("now", 0)]:
            sender.put(line(text, age_s))
        sender.start()
        wait_until(lambda: stub.captions)
        sender.finish()
        assert sender.join(5)
    assert stub.texts == ["now"]
    assert sender.left_out == 2

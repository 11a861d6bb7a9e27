"""From a session's events to Deepgram's messages: what a client may rely on, and what it may ask for."""

import asyncio
import itertools
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from streamer.server.access import Allowance
from streamer.server.actions import Actions, ModelFacts
from streamer.server.deepgram import Listening
from streamer.server.deepgram_results import About, Results, Wishes, wishes_of
from streamer.server.messages import IngestStart, MessageError
from streamer.server.other_protocols import Client

ACTIONS = Actions(model=lambda: ModelFacts("tiny", {"en": "english", "de": "german"}))
TOKEN = "a-long-token"


def results(began_ms: int = 0, **wishes) -> Results:
    return Results(Wishes(**{"language": "en", **wishes}), About("request", "tiny"), began_ms)


def transcript(segment: int, text: str, partial: str = "", *, final: bool = False, start: float = 1.0, **more) -> dict:
    """Words of half a second each, from `start` on."""
    words = [
        {"word": f" {word}", "start": start + 0.5 * at, "end": start + 0.5 * at + 0.4, "probability": 0.5}
        for at, word in enumerate(text.split())
    ]
    end = words[-1]["end"] if words else start
    said = {"type": "transcript", "segment": segment, "text": text, "partial": partial, "final": final, "words": words}
    return said | {"start": start, "end": end, "audio_t": end + 0.6, "language": "en"} | more


def stopped(audio_t: float = 9.0) -> dict:
    return {"type": "status", "state": "stopped", "audio_t": audio_t}


def short(messages: list[dict]) -> list[tuple]:
    """(F final, S utterance over, Z of a Finalize; start, end, transcript), or the type and its time."""
    told = []
    for one in messages:
        if one["type"] == "Results":
            flags = (("F", one["is_final"]), ("S", one["speech_final"]), ("Z", one["from_finalize"]))
            kind = "".join(flag for flag, on in flags if on) or "-"
            end = round(one["start"] + one["duration"], 3)
            told.append((kind, one["start"], end, one["channel"]["alternatives"][0]["transcript"]))
        else:
            told.append((one["type"], one.get("timestamp", one.get("last_word_end"))))
    return told


def test_interim_results_hold_what_is_not_final_and_finals_what_is_committed():
    of = results(interim=True, vad_events=True, began_ms=2000)
    told = [
        *of.step(transcript(0, "", "Good mourning")),
        *of.step(transcript(0, "Good", "morning,")),
        *of.step(transcript(0, "Good", "morning,")),
        *of.step(transcript(0, "Good morning,", "I am here because of", end=2.0)),
        *of.step(transcript(0, "Good morning, I am here because", "of you.")),
        *of.step(transcript(0, "Good morning, I am here because of you.", final=True)),
        *of.step(stopped()),
    ]
    assert short(told) == [
        ("SpeechStarted", 3.0),
        ("-", 3.0, 3.0, "Good mourning"),
        ("-", 3.0, 3.4, "Good morning,"),
        ("-", 3.0, 4.0, "Good morning, I am here because of"),
        ("-", 3.0, 5.9, "Good morning, I am here because of you."),
        ("FS", 3.0, 6.9, "Good morning, I am here because of you."),
    ]


def test_a_long_utterance_becomes_final_piece_by_piece():
    of = results(interim=True)
    told = [
        *of.step(transcript(0, "one two three four five six seven", "eight")),
        *of.step(transcript(0, "one two three four five six seven eight nine", final=True)),
        *of.step(transcript(1, "ten", final=True, start=7.0)),
    ]
    assert short(told) == [
        ("F", 1.0, 4.4, "one two three four five six seven"),
        ("-", 4.4, 4.4, "eight"),
        ("FS", 4.4, 5.4, "eight nine"),
        ("FS", 7.0, 7.4, "ten"),
    ]
    words = told[2]["channel"]["alternatives"][0]["words"]
    assert words[1] == {"word": "nine", "start": 5.0, "end": 5.4, "confidence": 0.5, "punctuated_word": "nine"}


def test_a_word_is_told_plainly_and_as_it_is_written():
    (told,) = results().step(transcript(0, "“Don't!” 6 .", final=True))
    words = told["channel"]["alternatives"][0]["words"]
    assert [(one["word"], one["punctuated_word"]) for one in words] == [("don't", "“Don't!”"), ("6", "6.")]


def test_without_interim_results_only_finals_come():
    of = results()
    assert of.step(transcript(0, "Good", "morning")) == []
    assert short(of.step(transcript(0, "Good morning", final=True))) == [("FS", 1.0, 1.9, "Good morning")]


def test_a_partial_that_was_nothing_is_taken_back():
    of = results(interim=True)
    told = [*of.step(transcript(0, "", "Thank you")), *of.step(transcript(0, "", final=True))]
    assert short(told) == [("-", 1.0, 1.0, "Thank you"), ("FS", 1.0, 1.0, "")]
    assert of.step(transcript(1, "", final=True)) == []  # of which nobody was told anything


def test_an_utterance_ends_when_it_was_quiet_for_long_enough():
    of = results(utterance_end_ms=1000)
    assert short(of.step(transcript(0, "Yes.", final=True))) == [("FS", 1.0, 1.4, "Yes.")]
    assert of.waits
    assert of.heard(2399) == []
    assert short(of.heard(2400)) == [("UtteranceEnd", 1.4)]
    assert not of.waits
    assert of.step({"type": "tags", "audio_t": 9.0}) == []


@pytest.mark.parametrize(("start", "ended"), [(2.3, False), (2.5, True)])
def test_who_goes_on_in_time_did_not_end(start, ended):
    of = results(utterance_end_ms=1000, interim=True)
    of.step(transcript(0, "Yes.", final=True))
    told = short(of.step(transcript(1, "", "and", start=start)))
    assert (("UtteranceEnd", 1.4) in told) is ended


def test_the_last_result_of_a_finalize_says_so():
    of = results()
    of.finalize()
    told = [*of.step(transcript(0, "Yes.", final=True)), *of.step(transcript(1, "No.", final=True, start=4.0))]
    assert short([*told, *of.step(stopped())]) == [("FS", 1.0, 1.4, "Yes."), ("FSZ", 4.0, 4.4, "No.")]
    silent = results(began_ms=500)
    silent.finalize()
    assert short(silent.step(stopped())) == [("FSZ", 0.5, 0.5, "")]


def test_sounds_come_along_where_they_are_asked_for():
    siren = {"v": 1, "type": "sound", "session": "in1", "seq": 4, "audio_t": 3.0, "id": 1, "label": "Siren"}
    siren |= {"state": "start", "start": 2.0, "end": None, "score": 0.5}
    assert results().step(siren) == []
    (told,) = results(extended=True, began_ms=1000).step(siren)
    assert told == {
        **{"type": "Sound", "session": "in1", "id": 1, "label": "Siren", "state": "start"},
        **{"start": 3.0, "end": None, "score": 0.5},
    }


@given(st.lists(st.tuples(st.lists(st.integers(0, 12), max_size=5), st.booleans()), max_size=5), st.booleans())
def test_finals_never_overlap_and_are_all_that_was_said(segments, interim):
    """Merged or not: superseded transcripts may be missing, and a segment's final too where the session broke off."""
    of, told, said, start = results(interim=interim, utterance_end_ms=1000), [], [], 0.0
    for number, (counts, closed) in enumerate(segments):
        words = [f"w{number}.{at}" for at in range(max(counts, default=0))]
        for count in sorted(counts):
            told += of.step(transcript(number, " ".join(words[:count]), "perhaps", start=start))
        if closed:
            told += of.step(transcript(number, " ".join(words), final=True, start=start))
            said += words
        start += 0.5 * len(words) + 1
    finals = [one for one in told if one["type"] == "Results" and one["is_final"]]
    spans = [(one["start"], round(one["start"] + one["duration"], 3)) for one in finals]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    written = " ".join(one["channel"]["alternatives"][0]["transcript"] for one in finals).split()
    assert [word for word in written if word in said] == said
    assert len(written) == len(set(written))
    for one, (begin, end) in zip(finals, spans, strict=True):
        assert all(begin <= word["start"] <= word["end"] <= end for word in one["channel"]["alternatives"][0]["words"])


def test_a_query_is_read():
    query = "model=nova-3&encoding=linear16&sample_rate=16000&language=en-US&interim_results=true&smart_format=true"
    query += "&utterance_end_ms=1000&vad_events=true&punctuate=true&diarize=true&keyterm=Streamer&multichannel=false"
    assert wishes_of(query, ACTIONS) == Wishes(
        encoding="linear16", language="en", interim=True, utterance_end_ms=1000, vad_events=True
    )
    assert wishes_of("language=multi&streamer=true", ACTIONS) == Wishes(extended=True)
    assert wishes_of("encoding=opus&sample_rate=16000&channels=2", ACTIONS).start.sample_rate == 48_000


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("encoding=g729", "^encoding: .*'linear16'"),
        ("encoding=linear16", "^sample_rate: is missing"),
        ("encoding=linear16&sample_rate=100", "^sample_rate: .*8000"),
        ("encoding=linear16&sample_rate=8000&channels=9", "^channels: .*8"),
        ("encoding=opus&channels=3", "^channels: raw Opus"),
        ("sample_rate=16000", "^encoding: is missing"),
        ("language=tlh", "^language: .*does not know 'tlh'"),
        ("interim_results=maybe", "^interim_results: "),
        ("utterance_end_ms=soon", "^utterance_end_ms: "),
        ("multichannel=true", "^multichannel: "),
        ("callback=https%3A%2F%2Felsewhere.example", "^callback: "),
        ("redact=pii", "^redact: "),
        ("&".join(f"tag{number}=1" for number in range(70)), "60 parameters"),
    ],
)
def test_what_cannot_be_is_named(query, says):
    with pytest.raises(MessageError, match=says):
        wishes_of(query, ACTIONS)


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?encoding=linear16", {"Authorization": f"Token {TOKEN}"}, 400, "Bad Request"),
        ("", {"Authorization": "Token wrong"}, 401, "INVALID_AUTH"),
        ("", {}, 401, "INVALID_AUTH"),
        ("", {"Authorization": f"Token {TOKEN}", "Origin": "https://elsewhere.example"}, 403, "FORBIDDEN"),
    ],
)
def test_a_refusal_is_an_http_answer(serve, query, headers, status, code):
    server = serve(ACTIONS, token=TOKEN, deepgram=True)
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}/v1/listen{query}", additional_headers=headers)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["err_code"] == code


def test_a_token_may_come_as_a_subprotocol(serve):
    server = serve(ACTIONS, token=TOKEN, deepgram=True)
    address = f"ws://127.0.0.1:{server.port}"
    with connect(f"{address}/v1/listen", subprotocols=["token", TOKEN]) as client:
        assert client.subprotocol == "token"
        client.send('{"type":"KeepAlive"}')
        client.send('{"type":"Dance"}')
        told = json.loads(client.recv(10))
        assert (told["type"], told["variant"], told["message"]) == ("Error", "SchemaError", '{"type":"Dance"}')
        client.send('{"type":"CloseStream"}')
        assert json.loads(client.recv(10))["type"] == "Metadata"
    with pytest.raises(InvalidStatus):
        connect(f"{address}/v1/listen", subprotocols=["token", "wrong"])
    with connect(f"{address}/ws", subprotocols=["bearer", TOKEN]) as client:
        assert json.loads(client.recv(10))["type"] == "hello"


def test_sound_that_is_decoded_behind_the_end_opens_no_session():
    opened: list[IngestStart] = []

    async def scenario():
        async def send(message: str) -> None:
            pass

        async def nothing():
            for message in ():
                yield message

        actions = replace(ACTIONS, open_ingest=opened.append)
        listening = Listening(Client(send, actions, lambda session: nothing(), Allowance(1, 1, time.monotonic)), "")
        await listening.run(nothing())
        await listening._deliver(bytes(320))  # as the thread of a container may, which is told of the end meanwhile

    asyncio.run(scenario())
    assert opened == []


def test_it_is_off_unless_it_is_wanted(serve):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{serve(ACTIONS).port}/v1/listen")
    assert refused.value.response.status_code == 404

"""The transcript of a whole session: what is kept of it, in every format, and who gets it."""

import gzip
import http.client
import json
import threading
from dataclasses import replace

import pytest
from test_page_server import TOKEN, Answer

from streamer.events import Alert, Event, Sound, Span, Status, Tags, Transcript, Word
from streamer.output.captions import layout_of
from streamer.server.messages import SessionInfo
from streamer.server.transcripts import FORMATS, Kept


def said(seq: int, segment: int, text: str, start: float, final: bool = True, partial: str = "") -> Transcript:
    words = tuple(Word(word, start + 0.4 * i, start + 0.4 * (i + 1), 0.9) for i, word in enumerate(text.split()))
    return Transcript(
        session="kitchen",
        seq=seq,
        audio_t=start + 0.4 * len(words),
        segment=segment,
        start=start,
        end=start + 0.4 * len(words),
        text=text,
        partial=partial,
        final=final,
        words=words,
        language="en",
        speech_probability=0.9,
    )


def hour(count: int = 200) -> list[Event]:
    events: list[Event] = [Status(session="kitchen", seq=1, audio_t=0.0, state="listening")]
    for number in range(count):
        at, seq = 10.0 * number, 10 * number + 2
        text = f"This is the sentence number {number} of the evening."
        events.append(said(seq, number, "This is", at, final=False, partial="the sentence"))
        events.append(replace(said(seq + 1, number, text, at), unclear=(Span(at + 4, at + 5),) if number == 3 else ()))
        events.append(Tags(session="kitchen", seq=seq + 2, audio_t=at + 5, start=at, end=at + 5, tags=()))
        sound = Sound(session="kitchen", seq=seq + 3, audio_t=at + 6, id=number, label="Doorbell", state="start",
                      start=at + 5, end=None, score=0.8)  # fmt: skip
        events += [sound, replace(sound, seq=seq + 4, audio_t=at + 7, state="end", end=at + 6)]
    return events


@pytest.mark.parametrize("name", ["txt", "srt", "vtt"])
def test_it_is_what_the_programs_own_file_holds_at_every_moment(name):
    kept, layout = Kept(), layout_of(FORMATS[name])
    written = layout.header
    for event in hour(5):
        kept.step(event)
        written += layout.step(event)
        assert kept.text(name).startswith(written)
    assert kept.text(name) == written + layout.finish()
    assert kept.text(name) == kept.text(name)  # to look changes nothing


def test_what_is_being_said_is_in_it_as_far_as_it_is_committed():
    kept = Kept()
    kept.step(said(1, 0, "Good evening.", 0.0))
    kept.step(said(2, 1, "Please sit", 2.0, final=False, partial="down now"))
    assert kept.text("txt") == "Good evening.\nPlease sit\n"
    assert "Please sit" in kept.text("srt")
    assert [json.loads(line)["seq"] for line in kept.text("jsonl").splitlines()] == [1, 2]
    kept.step(said(3, 1, "Please sit down.", 2.0))
    assert kept.text("txt") == "Good evening.\nPlease sit down.\n"
    assert [json.loads(line)["seq"] for line in kept.text("jsonl").splitlines()] == [1, 3]


def test_the_lines_hold_what_is_settled_and_no_tags():
    kept = Kept()
    alert = Alert(session="kitchen", seq=900, audio_t=99.0, id=1, rule="siren", severity="critical", state="raised",
                  start=98.0, end=None, score=0.9, labels=("Siren",), heard=(), text="")  # fmt: skip
    for event in [
        *hour(2)[:-1],
        alert,
        replace(alert, seq=901, state="updated"),
        replace(alert, seq=902, state="cleared"),
    ]:
        kept.step(event)
    events = [json.loads(line) for line in kept.text("jsonl").splitlines()]
    assert [event["type"] for event in events] == [
        *("status", "transcript", "sound", "sound", "transcript", "sound", "alert", "alert")
    ]  # fmt: skip
    assert [event["state"] for event in events if event["type"] == "alert"] == ["raised", "cleared"]
    assert all(event["final"] for event in events if event["type"] == "transcript")


@pytest.mark.parametrize("name", list(FORMATS))
def test_it_is_bounded_and_says_what_is_gone(name):
    kept, all_of_it = Kept(max_bytes=5000), Kept()
    for event in hour():
        kept.step(event)
        all_of_it.step(event)
    text = kept.text(name)
    assert len(text) < 6000
    assert "the beginning is no longer kept" in text[:200]
    assert "sentence number 199" in " ".join(text.split())
    assert all_of_it.text(name).endswith(text[-1000:])
    assert "no longer kept" not in all_of_it.text(name)
    if name == "jsonl":
        gap, first = (json.loads(line) for line in text.splitlines()[:2])
        assert (gap["type"], gap["kind"], gap["from_seq"], gap["to_seq"]) == ("gap", "events", 1, first["seq"] - 1)


def test_the_server_gives_it_to_whoever_may_read_captions(serve):
    server = serve(token=TOKEN)
    server.open_session(SessionInfo("kitchen", "nano", None, 16_000))
    for event in hour():
        server.publish(event)
    path = "/transcript?session=kitchen&format="
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert Answer(server, f"{path}txt").status == 401
    assert Answer(server, f"{path}txt&token=wrong").status == 401
    answer = Answer(server, f"{path}srt", **bearer)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-subrip; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="kitchen.srt"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text.startswith("1\n00:00:00,000 --> ")
    assert answer.headers["Content-Encoding"] is None
    head = Answer(server, f"{path}srt", "HEAD", **bearer)
    assert (head.status, head.headers["Content-Length"], head.text) == (200, answer.headers["Content-Length"], "")
    assert Answer(server, "/transcript", **bearer).text.startswith("This is the sentence number 0 of the evening.\n")
    assert Answer(server, f"{path}pdf", **bearer).status == 400
    missing = Answer(server, "/transcript?session=hall", **bearer)
    assert (missing.status, missing.text) == (
        404,
        "session: there is none of this name (any more); there are: kitchen\n",
    )
    server.open_session(SessionInfo("hall", "nano", None, 16_000))
    assert "there are: kitchen, hall" in Answer(server, "/transcript", **bearer).text
    evil = Answer(server, f"{path}txt", Host="evil.example", **bearer)
    assert evil.status == 403


def test_a_long_one_is_packed_for_who_can_unpack_it(serve):
    server = serve()
    server.open_session(SessionInfo("küche; x", "nano", None, 16_000))
    for event in hour():
        server.publish(replace(event, session="küche; x"))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/transcript?format=jsonl&session=k%C3%BCche%3B%20x", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Disposition"] == 'attachment; filename="k_che_x.jsonl"'
    packed = response.read()
    text = gzip.decompress(packed).decode()
    assert len(packed) < len(text) / 5
    assert len(text.splitlines()) == 1 + 200 * 3
    connection.close()


def test_while_one_is_packed_the_server_answers_others(serve, monkeypatch):
    """Whatever packs it may take as long as it likes: here until the other answer has come."""
    others_answered, real = threading.Event(), gzip.compress
    packers = []

    def compress(data, **options):
        packers.append(threading.current_thread().name)
        assert others_answered.wait(20)
        return real(data, **options)

    monkeypatch.setattr(gzip, "compress", compress)
    server = serve()
    server.open_session(SessionInfo("kitchen", "nano", None, 16_000))
    for event in hour():
        server.publish(event)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/transcript?format=jsonl", headers={"Accept-Encoding": "gzip"})
    assert Answer(server, "/healthz").status == 200
    others_answered.set()
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
    assert "sentence number 199" in gzip.decompress(answer.read()).decode()
    assert "streamer-server" not in packers
    connection.close()

"""YouTube's and Zoom's caption endpoints: `seq` grows by one, stays for a retry, and goes on after a restart."""

import logging
import time
from datetime import UTC, datetime

import pytest
from caption_receiver import CaptionReceiver, caption_receiver

from streamer.errors import Rests
from streamer.output import caption_posts
from streamer.output.caption_posts import Counter, PostedCaptions, YouTubeCaptions, ZoomCaptions, with_query
from streamer.output.caption_sender import CaptionSender, Line, NotTakenError

SECRETS = ("topsecret", "GZHkEA", "127.0.0.1")


def line(text: str, said_at: float = 1_700_000_000.25, age_s: float = 0.0) -> Line:
    return Line(text, said_at, time.monotonic() - age_s)


def send_all(service: PostedCaptions, texts: list[str], timeout_s: float = 20.0) -> CaptionSender:
    """Each line in a post of its own, tried until it is taken."""
    service.at_once = 1
    sender = CaptionSender(service)
    for text in texts:
        sender.put(line(text))
    sender.start()
    until = time.monotonic() + timeout_s
    while sender._waiting or sender._batch:
        assert time.monotonic() < until
        time.sleep(0.01)
    sender.finish()
    assert sender.join(5)
    return sender


def youtube(server: CaptionReceiver, folder) -> YouTubeCaptions:
    return YouTubeCaptions(server.url, folder)


def zoom(server: CaptionReceiver, folder) -> ZoomCaptions:
    return ZoomCaptions(server.url, folder, "de-DE")


@pytest.fixture(autouse=True)
def short_rests(monkeypatch) -> None:
    monkeypatch.setattr("streamer.errors.RESTS", Rests(first_s=0.02, longest_s=0.02))


BOTH = pytest.mark.parametrize("service_of", [youtube, zoom])


@BOTH
def test_seq_grows_by_one_and_the_address_is_kept(service_of, tmp_path):
    with caption_receiver() as server:
        send_all(service_of(server, tmp_path), ["one", "zwölf", "three"])
    assert server.seqs == server.tried == [1, 2, 3]
    assert "zwölf" in server.text
    assert {(query["id"], query["ns"], query["signature"]) for query in server.queries} == {
        ("42", "GZHkEA==", "topsecret")
    }
    assert set(server.types) == {"text/plain"}


@BOTH
def test_a_retry_has_the_same_seq(service_of, tmp_path, caplog):
    with caption_receiver() as server, caplog.at_level(logging.DEBUG):
        server.next = [500, 503, 200, "lose", 429]
        send_all(service_of(server, tmp_path), ["one", "two", "three"])
    assert server.tried == [1, 1, 1, 2, 2, 2, 3]
    assert server.seqs == [1, 2, 3]
    assert [server.text.count(word) for word in ("one", "two", "three")] == [1, 1, 1]
    assert not [secret for secret in SECRETS if secret in caplog.text]


@BOTH
def test_no_answer_in_time_is_a_retry_with_the_same_seq(service_of, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_posts, "TIMEOUT_S", 0.3)
    with caption_receiver() as server:
        server.next = ["hang"]
        send_all(service_of(server, tmp_path), ["one", "two"])
    assert server.tried == [1, 1, 2]
    assert server.seqs == [1, 2]


@BOTH
def test_another_run_goes_on_with_the_numbers_also_after_the_power_failed(service_of, tmp_path):
    with caption_receiver() as server:
        send_all(service_of(server, tmp_path), ["one", "two"])
        server.next = ["lose"]
        with pytest.raises(NotTakenError):
            service_of(server, tmp_path).send((line("three"),))  # and then the power fails
        server.next = []
        send_all(service_of(server, tmp_path), ["four"])
    assert server.seqs == [1, 2, 3, 4]
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not [secret for secret in SECRETS if secret in kept.read_text()]


@BOTH
def test_what_was_given_up_takes_its_number_along_unless_it_was_refused(service_of, tmp_path):
    with caption_receiver() as server:
        service = service_of(server, tmp_path)
        server.next = ["lose", 400]
        for text in ("perhaps", "refused"):
            with pytest.raises(NotTakenError):
                service.send((line(text),))
        service.send((line("taken"),))
    assert server.tried == [1, 2, 2]
    assert server.seqs == [1, 2]
    assert "refused" not in server.text


@BOTH
@pytest.mark.parametrize("unanswered", ["lose", "hang"])
def test_a_refusal_after_a_post_without_an_answer_does_not_free_its_number(
    service_of, unanswered, tmp_path, monkeypatch
):
    """It may have arrived, and be refused because it is there: the next lines would be taken for a retry of it."""
    monkeypatch.setattr(caption_posts, "TIMEOUT_S", 0.3)
    with caption_receiver() as server:
        service, first = service_of(server, tmp_path), (line("perhaps"),)
        server.next = [unanswered, 429, 400]
        for _ in range(3):
            with pytest.raises(NotTakenError):
                service.send(first)
        service.send((line("another"),))
        assert service_of(server, tmp_path)._counter.next == 3
    assert server.tried == [1, 1, 1, 2]
    assert ["perhaps" in server.taken[0][1], "another" in server.taken[1][1]] == [True, True]


def test_zoom_is_asked_for_the_number_of_what_others_sent(tmp_path):
    with caption_receiver() as server:
        server.taken = [(7, "from another program")]
        send_all(zoom(server, tmp_path), ["one", "two"])
        assert server.seqs == [7, 8, 9]
        assert server.asked == 1
    assert {query["lang"] for query in server.queries} == {"de-DE"}
    assert [text for _, text in server.taken[1:]] == ["one\n", "two\n"]


def test_a_meeting_that_has_not_begun_is_said(tmp_path):
    with caption_receiver() as server:
        server.next = [400]
        with pytest.raises(NotTakenError, match="the meeting has not started"):
            zoom(server, tmp_path).send((line("one"),))


def test_youtube_gets_the_time_at_which_each_line_was_said(tmp_path):
    with caption_receiver() as server:
        youtube(server, tmp_path).send((line("Good evening"), line("everyone", 1_700_000_001.5)))
    assert server.text == "2023-11-14T22:13:20.250\nGood evening\n2023-11-14T22:13:21.500\neveryone\n"


@pytest.mark.parametrize(("shift_s", "says"), [(0.0, 0), (-200.0, 1)])
def test_a_clock_that_is_off_is_said_once(tmp_path, caplog, shift_s, says):
    with caption_receiver() as server:
        server.shift_s = shift_s
        send_all(youtube(server, tmp_path), ["one", "two"])
    assert caplog.text.count("this machine's clock is +200 s off") == says


def test_several_lines_that_waited_go_out_together(tmp_path):
    with caption_receiver() as server:
        sender = CaptionSender(youtube(server, tmp_path))
        for text in ("one", "two", "three", "four", "five"):
            sender.put(line(text))
        sender.start()
        sender.finish()
        assert sender.join(5)
    assert server.seqs == [1, 2]
    assert [text.count("\n") // 2 for _, text in server.taken] == [4, 1]


def test_a_service_that_is_away_at_the_end_does_not_keep_the_program(tmp_path, caplog):
    with caption_receiver() as server:
        server.next = [500] * 9
        sender = CaptionSender(youtube(server, tmp_path))
        sender.start()
        sender.put(line("one"))
        sender.finish()
        assert sender.join(5)
    assert len(server.tried) <= 2
    assert "YouTube: the last 1 lines were not taken" in caplog.text


def test_counters_of_old_addresses_are_forgotten(tmp_path):
    for number in range(caption_posts.KEPT + 5):
        Counter(tmp_path, "zoom", f"https://zoom.example/{number}").keep(number + 2)
    assert Counter(tmp_path, "zoom", "https://zoom.example/0").next == 1
    assert Counter(tmp_path, "zoom", "https://zoom.example/54").next == 56


def test_a_counter_that_cannot_be_kept_is_said_and_captions_go_on(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    counter = Counter(tmp_path / "file", "youtube", "https://youtube.example/?cid=secret")
    counter.keep(2)
    counter.keep(3)
    assert counter.next == 3
    assert caplog.text.count("cannot be written") == 1
    assert "cid" not in caplog.text


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://x/cc?cid=a-b", "http://x/cc?cid=a-b&seq=5"),
        ("http://x/cc", "http://x/cc?seq=5"),
        ("http://x/cc?seq=9&id=a%2Cb&ns==", "http://x/cc?id=a%2Cb&ns==&seq=5"),
        ("http://x/cc?id=1&seq=9", "http://x/cc?id=1&seq=5"),
    ],
)
def test_the_number_is_added_to_the_address_as_it_is(url, there):
    assert with_query(url, "seq=5") == there


def test_stamps_are_utc():
    now = time.time()
    stamp = datetime.fromisoformat(caption_posts._stamp(now)).replace(tzinfo=UTC)
    assert abs(stamp.timestamp() - now) < 0.002

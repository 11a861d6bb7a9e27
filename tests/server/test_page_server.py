"""Links that let in once, cookies, readiness and metrics, asked for over real sockets."""

import http.client
import json
import logging
import time
from dataclasses import asdict

from websockets.sync.client import connect

from streamer.events import Status
from streamer.monitor.fitting import fitting_of
from streamer.server.actions import Actions
from streamer.server.keys import Keys
from streamer.server.messages import SessionHealth, SessionInfo
from streamer.server.websocket import ServerThread
from streamer.settings.monitor import MonitorSettings

TOKEN = "a-long-token"


class Answer:
    def __init__(self, server: ServerThread, path: str, method: str = "GET", **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()
        connection.close()

    @property
    def cookie(self) -> str:
        return (self.headers["Set-Cookie"] or "").partition(";")[0]


def test_a_link_lets_one_browser_in_and_the_token_is_in_no_address(serve):
    server = serve(token=TOKEN)
    link = server.link("/overlay")
    assert TOKEN not in link
    path = link.removeprefix(server.url) + "&lines=3&align=left"
    assert Answer(server, path, "HEAD").status == 401  # a preview does not use it up
    assert Answer(server, path, **{"Sec-Purpose": "prefetch;prerender"}).status == 401
    first = Answer(server, path)
    assert (first.status, first.headers["Location"]) == (303, "overlay?lines=3&align=left")
    assert {"HttpOnly", "SameSite=Lax"} <= set(first.headers["Set-Cookie"].split("; "))
    assert TOKEN not in first.cookie
    assert Answer(server, "/overlay?lines=3", Cookie=first.cookie).status == 200
    assert Answer(server, path, Cookie=first.cookie).status == 303  # reloaded by who is in already
    second = Answer(server, path)
    assert second.status == 401
    assert "used already" in second.text
    assert not second.cookie
    with connect(f"ws://127.0.0.1:{server.port}/ws", additional_headers={"Cookie": f"x=y; {first.cookie}"}) as one:
        assert "hello" in one.recv(10)
    assert Answer(server, "/", Cookie=first.cookie + "0").status == 401


def test_who_comes_with_a_spent_link_makes_the_program_print_a_new_one(serve, caplog):
    server = serve(token=TOKEN)
    path = server.link().removeprefix(server.url)
    assert Answer(server, path).headers["Location"] == "./"
    with caplog.at_level(logging.WARNING):
        assert [Answer(server, path).status for _ in range(3)] == [401] * 3
        assert Answer(server, "/?code=never-was-one").status == 401
    (record,) = caplog.records
    new = record.getMessage().split()[-1]
    assert Answer(server, new.removeprefix(server.url)).status == 303


def test_codes_cannot_be_guessed_without_end(serve):
    server = serve(token=TOKEN)
    statuses = [Answer(server, f"/?code=guess-{number}").status for number in range(40)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    link = server.link().removeprefix(server.url)
    assert Answer(server, link).status == 429


def test_a_token_in_an_address_still_works_and_gives_a_cookie(serve):
    server = serve(token=TOKEN)
    page = Answer(server, f"/?token={TOKEN}")
    assert page.status == 200
    assert Answer(server, "/", Cookie=page.cookie).status == 200
    again = serve(token=TOKEN, port=0)  # another start, another port, so another name
    name, _, value = page.cookie.partition("=")
    assert name != f"streamer-{again.port}"
    assert Answer(again, "/", Cookie=f"streamer-{again.port}={value}").status == 200
    assert Answer(serve(token="another-token"), "/", Cookie=f"{name}={value}").status == 401


def test_whoever_keeps_using_a_page_gets_a_new_cookie_before_the_old_one_runs_out(serve):
    """A tablet on the wall: nobody is there to open a link after 30 days. HEAD is what a page asks that stays open."""
    server = serve(token=TOKEN)
    name = f"streamer-{server.port}"
    old, fresh = (f"{name}={Keys(TOKEN, lambda ago_s=ago_s: time.time() - ago_s).cookie()}" for ago_s in (90_000, 60))
    for method in ("GET", "HEAD"):
        page = Answer(server, "/", method, Cookie=old)
        assert page.status == 200
        assert page.cookie != old
        assert Answer(server, "/", Cookie=page.cookie).status == 200
        assert not Answer(server, "/", method, Cookie=fresh).cookie
        assert not Answer(server, "/", method, Cookie=f"{name}=1800000000.{'0' * 64}").cookie


def test_without_a_token_links_are_plain(serve):
    server = serve()
    assert server.link("/overlay") == f"{server.url}/overlay"
    page = Answer(server, "/?code=x")
    assert page.status == 200
    assert not page.cookie


def test_what_is_logged_of_requests_holds_no_secret(serve, caplog):
    with (
        caplog.at_level(logging.DEBUG),
        caplog.at_level(logging.DEBUG, "websockets"),
    ):  # a command line may have muted it
        server = serve(token=TOKEN)
        link = server.link()
        code = link.partition("code=")[2]
        cookie = Answer(server, link.removeprefix(server.url)).cookie
        Answer(server, "/", Cookie=cookie)
        Answer(server, f"/?token={TOKEN}")
        Answer(server, "/", Authorization=f"Bearer {TOKEN}")
        options = {"compression": None, "logger": logging.getLogger("quiet")}
        logging.getLogger("quiet").propagate = False
        with connect(f"ws://127.0.0.1:{server.port}/ws?token={TOKEN}&types=alert", **options) as one:
            one.recv(10)
        server.stop()
    assert "GET /ws?token=…&types=alert" in caplog.text
    for secret in (TOKEN, code, cookie.partition("=")[2]):
        assert secret not in caplog.text


def test_ready_once_sound_arrives_and_not_when_it_is_gone(serve):
    health = {"main": SessionHealth(0.1, 0.0)}
    server = serve(Actions(health=lambda: health))
    assert json.loads(Answer(server, "/readyz").text) == {
        "ready": False,
        "troubles": {"": "nothing is listened to yet"},
    }
    server.open_session(SessionInfo("main", "nano", None, 16_000))
    for seq, (state, detail, ready) in enumerate(
        [
            ("starting", "loading", False),
            ("listening", "", True),
            ("no_audio", "unplugged", False),
            ("listening", "", True),
        ]
    ):
        server.publish(Status(session="main", seq=seq + 1, audio_t=0.0, state=state, detail=detail))
        answer = Answer(server, "/readyz")
        assert (answer.status, json.loads(answer.text)["ready"]) == (200 if ready else 503, ready)
    health["main"] = SessionHealth(0.1, 9.0)
    assert json.loads(Answer(server, "/readyz").text)["troubles"] == {"main": "9.0 s behind"}
    assert Answer(server, "/readyz", Host="evil.example").status == 403
    assert Answer(server, "/healthz").status == 200


def test_metrics_are_for_this_machine_and_for_who_has_the_token(serve):
    server = serve(Actions(health=lambda: {"main": SessionHealth(0.5, 0.25)}), token=TOKEN)
    server.open_session(SessionInfo("main", "nano", None, 16_000))
    server.publish(Status(session="main", seq=1, audio_t=0.0, state="listening"))
    with connect(f"ws://127.0.0.1:{server.port}/ws?token={TOKEN}", compression=None) as one:
        one.recv(10)
        answer = Answer(server, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'streamer_clients{kind="reader"} 1' in lines
    assert 'streamer_session_lag_seconds{session="main"} 0.25' in lines
    assert 'streamer_events_total{type="status"} 1' in lines
    for forwarded in (
        {"X-Forwarded-For": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
        {"X-Forwarded-For": "127.0.0.1"},
    ):
        assert Answer(server, "/metrics", **forwarded).status == 401
        assert Answer(server, "/metrics", Authorization=f"Bearer {TOKEN}", **forwarded).status == 200


def test_only_the_microphone_page_may_ask_for_a_microphone(serve):
    server = serve(token=TOKEN)
    for path, allowed in (("/", "()"), ("/overlay", "()"), ("/mic", "(self)"), ("/static/mic.js", "()")):
        answer = Answer(server, path, Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200
        assert f"microphone={allowed}" in answer.headers["Permissions-Policy"], path
        assert len(answer.headers.get_all("Permissions-Policy")) == 1
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
    assert Answer(server, "/mic").status == 401
    assert Answer(server, "/certificate").status == 404  # none was made here


def test_who_comes_to_the_microphone_page_with_a_spent_link_gets_one_for_other_machines(serve, caplog):
    server = serve(token=TOKEN, host="0.0.0.0")
    path = server.link("/mic?source=hall").removeprefix(server.url)
    assert Answer(server, path).headers["Location"] == "mic?source=hall"
    with caplog.at_level(logging.WARNING):
        assert Answer(server, path).status == 401
    assert f"{server.outside_url}/mic?source=hall&code=" in caplog.text


def test_the_audiogram_in_use_is_for_those_who_are_let_in(serve):
    server = serve(Actions(fitting=asdict(fitting_of(MonitorSettings(output=0, audiogram="mild")))), token=TOKEN)
    refused = Answer(server, "/fitting.json")
    assert refused.status == 401
    assert "audiogram" not in refused.text
    shown = json.loads(Answer(server, "/fitting.json", Authorization=f"Bearer {TOKEN}").text)["hearing_aid"]
    assert shown["audiogram"]["left"]["4000"] == 45
    assert [gains["speech_db"] for gains in shown["gains"]] == [50, 65, 80]
    at_1_khz = shown["at_hz"].index(1000)
    soft, average, loud = (gains["left"][at_1_khz] for gains in shown["gains"])
    assert soft > average > loud
    assert json.loads(Answer(serve(), "/fitting.json").text) == {"hearing_aid": None}

"""The microphone page in a real browser with Chromium's own made-up microphone, and the real server without a model."""

import re
import time

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, eventually, texts  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402
from scene import Scene  # noqa: E402

from streamer.errors import UsageError  # noqa: E402
from streamer.server.actions import Actions, IngestFullError  # noqa: E402
from streamer.server.ingest import PcmQueue  # noqa: E402
from streamer.server.messages import IngestStart, SessionHealth, SessionInfo  # noqa: E402

FAKE = ["--use-fake-device-for-media-stream", "--host-resolver-rules=MAP mic.test 127.0.0.1"]  # it beeps every second
TWENTY_TIMES_THE_SOUND = """async () => {
  const { Sender } = await import("./static/mic_sender.js");
  const push = Sender.prototype.push;
  window.sounds = (times) => {
    Sender.prototype.push = function (piece) {
      for (let time = 0; time < times; time++) push.call(this, piece);
    };
  };
  window.sounds(20);
}"""
PHONE = {"width": 390, "height": 844}
ALLOWED = {"viewport": PHONE, "permissions": ["microphone"]}
RATE = 16_000


@pytest.fixture(scope="module")
def browser_arguments():
    return FAKE


class Senders:
    """What the server opens for senders: real queues, and the sound that came through them."""

    def __init__(self) -> None:
        self.queues: list[PcmQueue] = []
        self.starts: list[IngestStart] = []
        self.refusals: list[str] = []
        self.unknown = ""
        self.server = None

    def open(self, start: IngestStart) -> PcmQueue:
        self.starts.append(start)
        if self.unknown:
            raise UsageError(self.unknown)
        if self.refusals:
            raise IngestFullError(self.refusals.pop(0))
        queue = PcmQueue(start, f"in{len(self.queues) + 1}")
        self.server.open_session(SessionInfo(queue.session, "nano", None, RATE))
        self.queues.append(queue)
        return queue

    def hear(self, seconds: float, number: int = -1) -> np.ndarray:
        """So much of what comes next from a sender."""
        pcm, until = b"", time.monotonic() + 20
        while len(pcm) < 2 * seconds * RATE and time.monotonic() < until:
            piece = self.queues[number].read(0.2)
            pcm += piece.pcm if piece else b""
        return np.frombuffer(pcm, "<i2")


@pytest.fixture
def senders():
    return Senders()


@pytest.fixture
def listening(serve, senders):
    """Starts a server that takes senders."""

    def start(**options):
        actions = Actions(open_ingest=senders.open, health=lambda: {"in1": SessionHealth(0.0, 0.2)})
        senders.server = serve(actions, **options)
        return senders.server

    return start


def speak(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_text("Listening")


def test_its_sound_arrives_and_its_captions_come_back(listening, senders, opened):
    server = listening()
    page = opened(**ALLOWED)
    speak(page, f"{server.url}/mic?source=hall")
    assert senders.starts == [IngestStart(RATE, 1, "hall", "pcm_s16le", True)]
    assert page.inner_text("h1") == "Microphone hall"
    sound = senders.hear(1.2)
    assert np.abs(sound).max() > 1000  # it beeps
    eventually(page, "document.getElementById('meter').value > -60")
    scene = Scene(session="in1")
    server.publish(scene.status("degraded", "clipping"))
    expect(page.locator("#hint")).to_have_text("clipping")
    server.publish(scene.status())
    server.publish(scene.say("Good morning", partial="every"))
    expect(page.locator("#now")).to_have_text("Good morning every")
    server.publish(scene.say("Good morning everyone.", final=True, unclear=(3.0,)))
    server.publish(scene.sound("Dog", 1))
    server.publish(scene.alert(1, "smoke_alarm", "critical"))
    expect(page.locator("#alerts .critical")).to_have_text("Critical: Smoke alarm")
    assert texts(page, "#captions span") == ["Good morning everyone.", "[unclear]", "[Dog]", "Smoke alarm"]
    server.publish(scene.alert(1, "smoke_alarm", "critical", "cleared"))
    expect(page.locator("#alerts .alert")).to_have_count(0)

    page.get_by_role("button", name="Mute").click()
    expect(page.locator("#state")).to_have_text("Muted")
    senders.hear(senders.queues[0].held_frames / RATE + 0.4)  # what was said before
    assert not senders.hear(1.1).any()  # it goes on, so that nobody takes it for lost
    page.get_by_role("button", name="Muted").click()

    server.publish(scene.say("And now", partial="it ends"))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("Waiting for the last words …")
    while not senders.queues[0].ended:
        senders.queues[0].read(0.1)
    server.publish(scene.say("And now it ends.", final=True))
    server.publish(scene.status("stopped"))
    server.close_session("in1")
    expect(page.locator("#state")).to_have_text("Off")
    assert texts(page, "#captions span")[-1] == "And now it ends."


def test_who_is_not_let_in_is_told_and_tries_again(listening, senders, opened):
    server = listening()
    senders.refusals = ["ingest: not listening to senders (yet)", "full: this machine carries 3 streams; try in 2 s"]
    page = opened(**ALLOWED)
    page.goto(f"{server.url}/mic")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_contain_text("Streamer is still starting")
    expect(page.locator("#trouble")).to_contain_text(
        "No place for one more microphone: this machine carries 3 streams."
    )
    expect(page.locator("#state")).to_have_text("Full")
    expect(page.locator("#hint")).to_contain_text("Trying again in")
    expect(page.locator("#state")).to_have_text("Listening")
    expect(page.locator("#trouble")).to_be_empty()
    page.get_by_role("button", name="Stop").click()
    senders.refusals = ["off: files at --speed 0 are all that is heard; start with --input ingest"]
    senders.queues[0].stop()
    server.close_session("in1")
    expect(page.locator("#state")).to_have_text("Off")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_contain_text("start with --input ingest")


def test_a_name_that_the_server_does_not_know(listening, senders, opened):
    server = listening()
    senders.unknown = "source: 'hall' is no source with `input: ingest` here; there are: table"
    page = opened(**ALLOWED)
    page.goto(f"{server.url}/mic?source=hall")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_have_text(f"The server refused this microphone: {senders.unknown}")
    expect(page.locator("#state")).to_have_text("Off")


def test_an_iphone_that_opens_no_socket_is_told_of_the_certificate(listening, opened):
    pytest.importorskip("cryptography")
    server = listening(tls="self-signed")
    page = opened(**ALLOWED, ignore_https_errors=True)
    page.route_web_socket("**/ingest", lambda socket: socket.close(code=1006))
    page.goto(f"{server.url}/mic")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_contain_text("iPhones connect only after this certificate was installed")
    with page.expect_download() as got:
        page.locator("#trouble a").click()
    assert got.value.path().read_text() == server.tls.certificate


def test_a_lost_connection_is_made_anew_and_what_is_missing_is_said(listening, senders, opened):
    first = listening()
    page = opened(**ALLOWED)
    speak(page, f"{first.url}/mic")
    first.publish(Scene(session="in1").say("Said before", partial="it broke"))
    expect(page.locator("#now")).to_have_text("Said before it broke")
    first.stop()
    expect(page.locator("#state")).to_have_text("Not connected")
    expect(page.locator("#trouble")).to_contain_text("The connection is lost.")
    assert texts(page, "#captions span") == ["Said before"]  # what was committed stays
    page.evaluate(TWENTY_TIMES_THE_SOUND)
    expect(page.locator("#hint")).to_contain_text(re.compile("[1-9][0-9]* s of sound not sent so far"))
    page.evaluate("sounds(1)")
    listening(port=first.port)
    expect(page.locator("#state")).to_have_text("Listening")
    assert len(senders.hear(4.9)) >= 4.9 * RATE  # the last five seconds were kept
    (note,) = texts(page, "#captions .note")
    missing_s = float(note.removeprefix("There was no connection: ").removesuffix(" s of sound was not sent."))
    assert 1 <= missing_s < 100


def test_a_device_that_goes_away(listening, senders, opened):
    server = listening()
    page = opened(**ALLOWED)
    page.add_init_script(
        "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = async (wish) => {"
        "  if (window.broken) throw new DOMException('', 'NotFoundError');"
        "  return (window.streams ??= []).push(await ask(wish)) && streams.at(-1); };"
        "window.lose = () => streams.at(-1).getAudioTracks()[0].dispatchEvent(new Event('ended'));"
    )
    speak(page, f"{server.url}/mic")
    page.evaluate("lose()")
    expect(page.locator("#captions .note")).to_have_text("The microphone is gone; trying the usual one.")
    eventually(page, "streams.length === 2")
    assert len(senders.hear(0.5)) >= RATE / 2  # in the same session
    page.evaluate("broken = true; lose()")
    expect(page.locator("#trouble")).to_contain_text("The microphone is gone. Connect it again or choose another one")
    page.get_by_role("button", name="Stop").click()  # the last words are not waited for
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_contain_text("No microphone was found.")
    assert len(senders.queues) == 1


def test_no_microphone_stays_open_that_is_not_used(listening, senders, opened):
    """Other processing is chosen twice, and Stop is pressed twice, before the browser gave what was asked for first."""
    server = listening()
    page = opened(**ALLOWED)
    page.add_init_script(
        "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "window.tracks = []; window.given = Promise.resolve();"
        "navigator.mediaDevices.getUserMedia = async (wish) => {"
        "  await given; const stream = await ask(wish); tracks.push(...stream.getTracks()); return stream; };"
    )
    speak(page, f"{server.url}/mic")
    page.evaluate(
        """() => {
          window.given = new Promise((give) => { window.give = give; });
          document.getElementById("noiseSuppression").click();
          document.getElementById("echoCancellation").click();
          document.getElementById("start").click();
          document.getElementById("start").click();
          give();
        }"""
    )
    expect(page.locator("#state")).to_have_text("Waiting for the last words …")
    assert page.evaluate("tracks.map((track) => track.readyState)") == ["ended"] * 3
    senders.queues[0].stop()
    server.close_session("in1")
    expect(page.locator("#state")).to_have_text("Off")


def test_what_a_busy_or_sleeping_device_did_not_record_is_said_in_one_line(listening, senders, opened):
    server = listening()
    page = opened(**ALLOWED)
    page.add_init_script(
        "window.asleep = 0; const now = performance.now.bind(performance); performance.now = () => now() + asleep;"
    )
    speak(page, f"{server.url}/mic")
    page.evaluate("asleep = 3000")
    expect(page.locator("#captions .note")).to_contain_text(re.compile(r"^[23]\.\d s were not recorded"))
    page.evaluate("asleep = 13000")
    expect(page.locator("#captions .note")).to_contain_text(re.compile(r"^1[234]\.\d s were not recorded"))


def test_a_refused_permission(listening, opened):
    server = listening()
    page = opened(viewport=PHONE)
    page.goto(f"{server.url}/mic")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#trouble")).to_contain_text("This browser did not give the page its microphone. Allow it")
    expect(page.locator("#state")).to_have_text("Off")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


def test_a_page_that_came_by_http_from_elsewhere_says_what_to_start(listening, browser):
    server = listening(hosts=["mic.test"])
    page = browser.new_page()
    page.goto(f"http://mic.test:{server.port}/mic")
    expect(page.locator("#trouble")).to_contain_text("Start Streamer with --tls self-signed")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    page.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_is_legible_on_a_phone_and_can_be_used_by_keyboard(listening, opened, scheme):
    server = listening()
    page = opened(**ALLOWED, color_scheme=scheme, reduced_motion="reduce")
    page.goto(f"{server.url}/mic")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("Listening")
    scene = Scene(session="in1")
    for event in [
        scene.say("x" * 200, partial="and more"),
        scene.alert(1, "siren", "warning"),
        scene.alert(2, "smoke_alarm", "critical"),
        scene.say("A sentence that is long enough to need more than one line on a telephone.", final=True),
        scene.gap(1.0),
        scene.say("What is not over yet", partial="is here"),
    ]:
        server.publish(event)
    expect(page.locator("#now")).to_have_text("What is not over yet is here")
    page.locator("summary").click()
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('input, select, button')].every((one) => one.labels?.length || one.textContent)"
    )


def test_every_rate_becomes_16_khz_without_aliases_however_it_is_cut(listening, opened):
    page = opened()
    page.goto(f"{listening().url}/mic")
    results = page.evaluate(
        """async () => {
          const { Resampler } = await import("./static/mic_resampler.js");
          const found = {};
          const tone = (hz, rate, seconds) =>
            Float32Array.from({ length: rate * seconds }, (_, n) => Math.sin(2 * Math.PI * hz * n / rate));
          const whole = (samples, rate, cuts) => {
            const one = new Resampler(rate, 16000);
            const out = [];
            let from = 0;
            for (const to of [...cuts, samples.length]) out.push(...one.push(samples.subarray(from, from = to)));
            return [...out, ...one.finish()];
          };
          for (const rate of [8000, 16000, 22050, 44100, 48000, 96000]) {
            const level = (hz) => {
              const out = whole(tone(hz, rate, 0.5), rate, []).slice(2000, 6000);
              return 10 * Math.log10(2 * out.reduce((sum, x) => sum + x * x, 0) / out.length + 1e-12);
            };
            const mixed = tone(440, rate, 0.3);
            const parts = whole(mixed, rate, [1, 2, 3, 130, 258, 1000, 1001, 2000]);
            const plain = whole(mixed, rate, []);
            const ideal = tone(440, 16000, 0.3);
            const worst = Math.max(...plain.slice(400, 4000).map((x, n) => Math.abs(x - ideal[n + 400])));
            found[rate] = {
              same: parts.length === plain.length && parts.every((x, n) => x === plain[n]),
              samples: plain.length,
              low: level(1000),
              high: rate > 16000 ? level(6500) : 0,
              alias: rate > 16000 ? level(8100) : -99,
              worst,
            };
          }
          return found;
        }"""
    )
    for rate, one in results.items():
        assert one["same"], rate
        assert abs(one["samples"] - 0.3 * RATE) <= 1, rate
        assert abs(one["low"]) < 0.05, (rate, one)
        assert abs(one["high"]) < 0.1, (rate, one)
        assert one["alias"] < -70, (rate, one)
        assert one["worst"] < 1e-3, (rate, one)

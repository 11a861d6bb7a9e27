"""What is around the viewer's captions: settings, keyboard, states, language, notifications, the installed page."""

import re
import time

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from browsing import eventually, join, received, texts  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from scene import Scene, minute  # noqa: E402

from streamer import events  # noqa: E402
from streamer.server import websocket  # noqa: E402
from streamer.server.actions import Actions  # noqa: E402
from streamer.server.messages import MessageError, SessionHealth, SessionInfo, SetLanguage  # noqa: E402

SIZES = [{"width": 390, "height": 844}, {"width": 1280, "height": 800}]
TOKEN = "a-long-token"
# What is really at an element's middle, so that nothing lies over it.
ON_TOP = """element => {
  const box = element.getBoundingClientRect();
  return element.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
}"""


@pytest.mark.parametrize("size", SIZES, ids=["phone", "laptop"])
@pytest.mark.parametrize("path", ["", "overlay?lines=3"])
def test_axe_finds_nothing_serious(serve, opened, size, path):
    server = serve()
    for event in minute():
        server.publish(event)
    page = opened(viewport=size)
    join(page, f"{server.url}/{path}")
    if not path:
        expect(page.locator("#alerts .alert")).to_have_count(1)
    for panel in (None, "Save", "Speak", "Settings") if not path and size is SIZES[0] else (None,):
        if panel:
            page.get_by_role("button", name=panel, exact=True).click()
        violations = Axe().run(page).response["violations"]
        assert [item["id"] for item in violations if item["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("size", SIZES, ids=["phone", "laptop"])
def test_the_scene_is_one_line_and_a_program_is_held_by_who_may(serve, opened, size):
    held = []
    server = serve(Actions(set_program=held.append), token=TOKEN, allow_set=True)
    page = opened(viewport=size)
    join(page, f"{server.url}/?token={TOKEN}")
    scores = events.SceneScores(0, 0, 0, 0, 1, 0)
    server.publish(events.Scene(session="kitchen", seq=1, audio_t=3.0, scene="music", start=2.0, scores=scores))
    expect(page.locator("#scene")).to_have_text("It sounds like music")
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("Hearing aid").select_option("music")
    received(page, held, 1)
    expect(page.locator("#program-said")).to_have_text("Held.")
    page.get_by_label("Hearing aid").select_option("auto")
    received(page, held, 2)
    expect(page.locator("#program-said")).to_have_text("The surroundings choose.")
    assert held == ["music", "auto"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_a_hearing_aid_there_is_no_such_line_and_without_leave_nothing_to_hold(serve, opened):
    server, page = serve(token=TOKEN, allow_set=True), opened()
    join(page, f"{server.url}/?token={TOKEN}")
    expect(page.locator("#scene")).to_have_text("")
    page.get_by_role("button", name="Settings", exact=True).click()
    expect(page.get_by_label("Language spoken")).to_be_visible()
    expect(page.get_by_label("Hearing aid")).to_be_hidden()
    server, page = serve(Actions(set_program=lambda program: None)), opened()
    join(page, server.url)
    scores = events.SceneScores(0, 1, 0, 0, 0, 0)
    server.publish(events.Scene(session="kitchen", seq=1, audio_t=3.0, scene="speech", start=2.0, scores=scores))
    expect(page.locator("#scene")).to_have_text("It sounds like speech")
    expect(page.get_by_label("Hearing aid")).to_be_hidden()


@pytest.mark.parametrize("size", SIZES, ids=["phone", "laptop"])
def test_panels_never_cover_an_alert_and_escape_closes_them(serve, opened, size):
    server, scene = serve(Actions(mark=lambda mark: None)), Scene()
    server.publish(scene.alert(1, "smoke_alarm", "critical", text="w" * 100))
    page = opened(viewport=size)
    join(page, server.url)
    expect(page.locator("#alerts .alert")).to_have_count(1)
    for name in ("Find", "Save", "Speak", "Settings"):
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        assert page.locator(".panel:visible").count() == 1
        for inside in page.locator("#alerts button").all():
            assert inside.evaluate(ON_TOP)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("Escape")
        expect(page.locator(".panel:visible")).to_have_count(0)
        expect(button).to_be_focused()


def test_the_keyboard_alone_reaches_everything(serve, opened):
    server = serve(Actions(mark=lambda mark: None))
    for event in minute():
        server.publish(event)
    page = opened()
    join(page, server.url)
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Size")).to_be_focused()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    wanted = {"pause", "Find", "Save", "Speak", "Settings", "side-button", "Acknowledge", "False alarm", "captions"}
    assert wanted <= reached
    controls = page.evaluate(
        "[...document.querySelectorAll('#settings-panel :is(input, select, #full)')]"
        ".filter(one => one.checkVisibility()).map(one => one.id)"
    )
    assert {"text-size", "font", "spacing", "theme", "times", "unsure", "awake", "notify", "keywords"} <= set(controls)
    assert set(controls) <= reached
    assert {"timeline", "timeline-sounds"} <= reached


def test_on_a_phone_the_captions_have_the_height(serve, opened):
    server = serve()
    for event in minute():
        server.publish(event)
    page = opened(viewport=SIZES[0])
    join(page, server.url)
    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator("#alerts .alert")).to_have_count(1)
    assert page.evaluate("captions.getBoundingClientRect().height") > 480
    page.get_by_role("button", name="Sounds", exact=True).click()
    expect(page.locator("#sounds")).to_be_visible()
    page.reload()
    expect(page.locator("#sounds")).to_be_visible()  # as it was left


def test_two_numbers_never_say_how_far_it_is_behind(serve, opened, monkeypatch):
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.2)
    health = {"kitchen": SessionHealth(0.1, 6.2)}
    server, scene = serve(Actions(health=lambda: health)), Scene()
    page = opened()
    join(page, server.url)
    server.publish(scene.status())
    expect(page.locator("#lag")).to_have_text("6.2 s behind")
    server.publish(scene.status("degraded", "4 s behind: captions come late, some tags are left out"))
    expect(page.locator("#state")).to_contain_text("4 s behind")
    assert page.inner_text("#lag") == ""
    health["kitchen"] = SessionHealth(0.1, 15.8)
    expect(page.locator("#state")).to_have_text("16 s behind")
    assert page.inner_text("#lag") == ""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("microphone", "its microphone delivers nothing"),
        ("input", "nothing comes from its input"),
        ("sender", "sends nothing"),
    ],
)
def test_what_brings_no_sound_is_called_what_it_is(serve, opened, source, says):
    server, scene = serve(session=None), Scene()
    server.open_session(SessionInfo("kitchen", "nano", None, 16_000, source=source))
    page = opened()
    join(page, server.url)
    server.publish(scene.status("no_audio", "nothing comes"))
    expect(page.locator("#trouble")).to_contain_text(says)


def test_an_empty_page_says_what_is_missing_and_how_to_begin(serve, opened):
    server, scene = serve(session=None), Scene()
    page = opened()
    join(page, server.url)
    expect(page.locator("#state")).to_have_text("Waiting for a sender")
    expect(page.locator("#empty")).to_contain_text("Waiting for a sender on /ingest: Streamer listens to no microphone")
    expect(page.locator("#empty")).to_contain_text(f"ws://127.0.0.1:{server.port}/ingest")
    server.open_session(SessionInfo("kitchen", "nano", None, 16_000, time.time(), "sender"))
    server.publish(scene.status())
    expect(page.locator("#empty")).to_contain_text("Nothing was said yet")
    expect(page.locator("#state")).to_have_text("Listening")
    for event in scene.speak("hello there"):
        server.publish(event)
    expect(page.locator("#empty")).to_be_hidden()
    server.publish(scene.status("stopped"))
    expect(page.locator("#state")).to_have_text("Waiting for a sender")
    assert page.inner_text("#trouble") == ""


def test_the_language_is_set_by_whoever_may(serve, opened):
    said = []

    def set_language(message: SetLanguage) -> SetLanguage:
        said.append(message)
        if "xx" in message.language:
            raise MessageError("language: 'xx' is not known to the model")
        return SetLanguage(message.language, "kitchen")

    actions = Actions(set_language=set_language)
    page = opened()
    join(page, serve(actions).url)
    page.get_by_role("button", name="Settings").click()
    expect(page.locator("#language-form")).to_be_hidden()

    page = opened()
    join(page, f"{serve(actions, token=TOKEN, allow_set=True).url}/?token={TOKEN}")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Language spoken").fill("en, de")
    page.keyboard.press("Enter")
    expect(page.locator("#language-said")).to_have_text("Set: en, de.")
    page.get_by_label("Language spoken").fill("fi")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator("#language-said")).to_have_text("Set: fi.")
    received(page, said, 2)
    assert [message.language for message in said] == [("en", "de"), ("fi",)]


def test_one_of_several_sessions_is_chosen(serve, opened):
    server, one, other = serve(), Scene(), Scene(session="hall")
    server.open_session(SessionInfo("hall", "nano", None, 16_000))
    for event in (*one.speak("in the kitchen"), *other.speak("in the hall")):
        server.publish(event)
    page = opened()
    join(page, server.url)
    expect(page.locator("#lines p")).to_have_count(2)
    assert sorted(texts(page, "#lines .who")) == ["hall", "kitchen"]
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Show").select_option("hall")
    expect(page.locator("#lines .said")).to_have_text("in the hall")
    assert page.url == f"{server.url}/?session=hall"
    assert texts(page, "#lines .who") == [""]


def test_what_is_typed_is_spoken_by_the_browser(serve, opened):
    page = opened()
    page.add_init_script(
        "spoken = []; speechSynthesis.speak = one => { spoken.push(one.text); one.onstart(); one.onend(); };"
    )
    page.goto(serve().url)
    page.get_by_role("button", name="Speak").click()
    expect(page.get_by_label("What your device should say")).to_be_focused()
    page.keyboard.type("One coffee, please")
    page.keyboard.press("Enter")
    expect(page.locator("#spoken")).to_have_text("Said: One coffee, please")
    assert page.evaluate("spoken") == ["One coffee, please"]


SCREEN = """
locks = 0;
const request = async () => { locks += 1; return {released: false, release: () => { locks -= 1; }}; };
Object.defineProperty(navigator, "wakeLock", {value: {request}});
"""


def test_the_screen_is_kept_on_while_that_is_wanted(serve, opened):
    page = opened()
    page.add_init_script(SCREEN)
    page.goto(serve().url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Keep the screen on").check()
    eventually(page, "locks === 1")
    page.get_by_label("Keep the screen on").uncheck()
    eventually(page, "locks === 0")


BACKGROUND = """
shown = [];
Object.defineProperty(document, "hidden", {get: () => true});
const show = ServiceWorkerRegistration.prototype.showNotification;
ServiceWorkerRegistration.prototype.showNotification = async function (title, options) {
  await show.call(this, title, options); // the browser takes it; whether it has a place to show it is its affair
  shown.push(title);
};
"""


def test_an_alert_in_the_background_is_a_notification(serve, opened):
    server, scene = serve(), Scene()
    page = opened(permissions=["notifications"])
    page.add_init_script(BACKGROUND)
    join(page, server.url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Notify me").check()
    server.publish(scene.alert(1, "smoke_alarm", "critical"))
    eventually(page, "shown.join() === 'Critical: Smoke alarm'")
    server.publish(scene.alert(1, "smoke_alarm", "critical", "cleared"))
    standing = "navigator.serviceWorker.ready.then(worker => worker.getNotifications())"
    eventually(page, f"{standing}.then(all => all.length === 0)")


KEPT = """async () => {
  const kept = [];
  for (const name of await caches.keys()) {
    for (const request of await (await caches.open(name)).keys()) kept.push(new URL(request.url).href);
  }
  return kept;
}"""


def test_the_installed_page_opens_without_its_server_and_keeps_no_captions(serve, opened):
    server = serve(token=TOKEN)
    for event in (*Scene().speak("a secret word"),):
        server.publish(event)
    page = opened()
    page.goto(f"{server.url}/?token={TOKEN}")
    expect(page.locator("#lines .said")).to_have_text("a secret word")
    eventually(page, "navigator.serviceWorker.ready.then(worker => Boolean(worker.active))")
    page.reload()
    expect(page.locator("#lines .said")).to_have_text("a secret word")
    page.get_by_role("button", name="Save").click()
    with page.expect_download():
        page.get_by_role("button", name="Text", exact=True).click()
    eventually(page, "caches.keys().then(names => names.length === 1)")
    kept = page.evaluate(KEPT)
    assert f"{server.url}/" in kept
    assert f"{server.url}/static/viewer.css" in kept
    assert all(re.fullmatch(rf"{server.url}/(static/[a-z]+\.(js|css|svg|webmanifest))?", address) for address in kept)
    bodies = page.evaluate(
        "async () => { const out = []; for (const name of await caches.keys()) { const store = await caches.open(name);"
        " for (const one of await store.keys()) out.push(await (await store.match(one)).text()); } return out.join(); }"
    )
    assert "secret" not in bodies
    assert TOKEN not in bodies
    manifest = page.request.get(f"{server.url}/static/viewer.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    assert manifest.json()["start_url"] == "../"
    server.stop()
    page.reload()
    expect(page.locator("#state")).to_have_text("Connecting …")
    assert page.locator("#lines p").count() == 0


def test_nobody_relies_on_the_toy_model_without_being_told(serve, opened):
    """Where nothing could be fetched `auto` is nano: who opens the page has not seen the terminal."""
    for model, told in (("nano", True), ("tiny.en", False)):
        server, page = serve(session=None), opened()
        server.open_session(SessionInfo("kitchen", model, model, 16_000, time.time()))
        server.publish(Scene().status())
        page.goto(server.url)
        expect(page.locator("#empty")).to_contain_text("Nothing was said yet")
        assert ("misses most alarms" in page.locator("#empty").inner_text()) == told

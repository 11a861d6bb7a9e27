"""The pages in a real browser, served by the real server, fed with a made-up minute."""

import itertools
import re

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, PHONE, join, received, texts  # noqa: E402
from playwright.sync_api import WebSocketRoute, expect  # noqa: E402
from scene import SIREN_TAGS, Scene, minute  # noqa: E402

from streamer.server.actions import Actions  # noqa: E402
from streamer.server.messages import Ack, SessionHealth, SessionInfo  # noqa: E402


def test_viewer_shows_the_minute(serve, opened):
    said: list[Ack] = []
    server = serve(Actions(ack=said.append, health=lambda: {"kitchen": SessionHealth(0.1, 0.4, -20.0)}))
    events = list(minute())
    for event in events[:-1]:
        server.publish(event)
    page = opened()
    page.goto(server.url)
    expect(page.locator("#lines .said").last).to_have_text("Is that the smoke alarm?")
    server.publish(events[-1])
    expect(page.locator("#lines .said").last).to_have_text("Yes, it is coming from the kitchen, can you")
    expect(page.locator("#lines .partial")).to_have_text("kitchen, can you")
    assert page.locator("#captions").get_attribute("role") == "log"
    assert page.locator("#captions").get_attribute("aria-live") == "off"  # what grows is not read out word by word
    assert texts(page, "#lines p")[0].endswith("Good evening everyone, and thank you for coming.")
    assert texts(page, "#lines .heard .said") == ["[Doorbell]", "[Smoke detector]"]
    assert "0.4 s of sound was lost" in page.inner_text("#lines .note")
    assert texts(page, "#sounds li") == ["[Smoke detector]"]
    assert page.locator("#tags li").count() == len(SIREN_TAGS)
    assert page.inner_text("#state") == "Listening"
    expect(page.locator("#level")).to_be_visible()

    banner = page.locator("#alerts .alert")
    assert banner.count() == 1
    assert "Critical: Smoke alarm" in banner.inner_text()
    page.get_by_role("button", name="Acknowledge").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Acknowledge")).to_be_disabled()
    scene = Scene(seq=events[-1].seq, at=40.0, alerts={2: next(e for e in events if e.type == "alert" and e.id == 2)})
    server.publish(scene.alert(2, "smoke_alarm", "critical", "acknowledged"))
    expect(banner.locator(".seen")).to_have_text("Acknowledged")
    received(page, said, 1)
    assert said == [Ack(2, "kitchen")]
    scene.at = 45.0
    server.publish(scene.alert(2, "smoke_alarm", "critical", "cleared"))
    expect(banner).to_have_count(0)
    newest = texts(page, "#timeline li.alert-entry")[0]
    assert texts(page, "#timeline li:first-child .head > *") == ["0:31", "Smoke alarm", "Critical"]
    assert "lasted 14 s · score 88 % · acknowledged" in newest
    assert "Heard: Smoke detector, smoke alarm 88 %; Beep, bleep 61 %" in newest
    assert "Said meanwhile: “the bread is in the oven”" in newest
    doorbell = texts(page, "#timeline li.sound")[-1]
    assert "Heard: Speech 93 %; Music 21 %; Inside, small room 15 %" in doorbell
    assert "Said meanwhile: “Good evening everyone, and thank you for coming.”" in doorbell
    assert texts(page, "#timeline li.sound .facts") == ["still on · score 80 %", "lasted 2 s · score 80 %"]


@pytest.mark.parametrize("theme", ["dark", "light", "contrast"])
def test_viewer_is_legible_also_on_a_phone(serve, opened, theme):
    server = serve()
    scene = Scene()
    for event in [
        scene.status("degraded", "clipping"),
        *scene.speak("A sentence that is long enough to need more than one line on the screen of a telephone."),
        scene.say("", final=True, unclear=(0.0,)),
        scene.speak("x" * 200).__next__(),
        scene.gap(1.0),
        scene.sound("Siren", 1),
        scene.tags(*SIREN_TAGS),
        scene.alert(1, "siren", "warning"),
        scene.alert(2, "doorbell", "info"),
        scene.alert(3, "smoke_alarm", "critical", text="w" * 300),
    ]:
        server.publish(event)
    page = opened(viewport=PHONE, reduced_motion="reduce")
    page.goto(server.url)
    expect(page.locator("#alerts .alert")).to_have_count(3)
    page.get_by_role("button", name="Sounds").click()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Colours").select_option(theme)
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getAnimations().length") == 0
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_have_text("Degraded: clipping")


def test_text_is_never_markup(serve, opened):
    server = serve()
    nasty = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;'
    scene = Scene()
    for event in [
        scene.status("degraded", nasty),
        *scene.speak(nasty),
        scene.sound(nasty, 1),
        scene.alert(1, nasty, "critical", text=nasty),
        scene.say(nasty, nasty),
    ]:
        server.publish(event)
    for path in ("", "overlay?lines=4"):
        page = opened()
        join(page, f"{server.url}/{path}")
        if path:
            server.publish(scene.say(nasty, nasty))
            expect(page.locator("#captions")).to_contain_text("<img src=x")
        else:
            expect(page.locator("#captions")).to_contain_text(nasty)
            expect(page.locator("#alerts")).to_contain_text(nasty)
        assert page.locator("img, body script").count() == 0
        assert page.title() not in "12"


def test_after_a_break_nothing_comes_twice_and_nothing_is_missing(serve, opened):
    server, scene, routes = serve(), Scene(), []

    def relay(route: WebSocketRoute) -> None:
        routes.append((route, route.connect_to_server()))

    page = opened()
    page.route_web_socket(re.compile("/ws"), relay)
    page.goto(server.url)
    for event in scene.speak("before the break"):
        server.publish(event)
    expect(page.locator("#lines .said")).to_have_text("before the break")
    for side in routes[0]:
        side.close(code=3000)
    for event in [*scene.speak("during the break"), *scene.speak("after it")]:
        server.publish(event)
    expect(page.locator("#lines p")).to_have_count(3)
    assert texts(page, "#lines .said") == ["before the break", "during the break", "after it"]
    assert len(routes) == 2


def test_a_new_run_of_the_server_starts_anew_and_says_so(serve, opened):
    first = serve()
    scene = Scene()
    for event in scene.speak("one two three four five six"):
        first.publish(event)
    page = opened()
    page.goto(first.url)
    expect(page.locator("#lines .said")).to_have_text("one two three four five six")
    port = first.port
    first.stop(1012, "restarting")
    second = serve(port=port)
    for event in Scene().speak("seven"):
        second.publish(event)
    expect(page.locator("#lines p").last).to_contain_text("seven")
    assert texts(page, "#lines .note") == ["The server was started anew."]
    assert texts(page, "#lines .who") == ["", ""]
    assert page.locator("#lines .partial").count() == 0


def test_silence_of_the_server_is_said_big_and_plain(serve, opened):
    server = serve()
    server.publish(Scene().status())
    page = opened()
    page.clock.install()
    page.goto(server.url)
    expect(page.locator("#state")).to_have_text("Listening")
    page.clock.fast_forward(16_000)
    expect(page.locator("#trouble")).to_contain_text("Not listening")
    assert page.locator("#trouble").get_attribute("role") == "alert"
    server.publish(Scene(seq=1).status())
    expect(page.locator("#trouble")).to_have_text("")


def test_no_audio_is_said_too(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    page.goto(server.url)
    for event in (scene.status(), scene.status("no_audio", "unplugged")):
        server.publish(event)
    expect(page.locator("#trouble")).to_contain_text("No sound arrives")
    server.publish(scene.status())
    expect(page.locator("#trouble")).to_have_text("")


def test_one_source_without_sound_is_named_and_an_ended_one_is_none(serve, opened):
    ages = {"kitchen": SessionHealth(0.1, 0.2), "hall": SessionHealth(0.1, 0.2)}
    server, kitchen, hall = serve(Actions(health=lambda: ages)), Scene(), Scene(session="hall")
    server.open_session(SessionInfo("hall", "nano", "nano_at", 16_000))
    page = opened()
    join(page, server.url)
    for event in (kitchen.status(), hall.status(), hall.status("no_audio", "unplugged")):
        server.publish(event)
    expect(page.locator("#trouble")).to_contain_text("No sound arrives from hall")
    ages["hall"] = SessionHealth(99.0, 0.0)
    server.publish(hall.status("stopped"))
    expect(page.locator("#trouble")).to_have_text("")
    ages["kitchen"] = SessionHealth(16.0, 0.0)  # the next heartbeat says so
    expect(page.locator("#trouble")).to_contain_text("its microphone delivers nothing")
    server.publish(kitchen.status("stopped"))
    expect(page.locator("#trouble")).to_contain_text("Not listening")
    expect(page.locator("#level")).to_be_hidden()


def test_the_token_goes_with_the_page(serve, opened):
    server = serve(token="a long & odd token")
    page = opened()
    assert page.goto(server.url).status == 401
    page.goto(f"{server.url}/?token=a+long+%26+odd+token")
    server.publish(Scene().status())
    expect(page.locator("#state")).to_have_text("Listening")


def test_what_was_unclear_stands_in_its_place(serve, opened):
    server, scene = serve(), Scene()
    page, overlay = opened(), opened()
    join(page, server.url)
    join(overlay, f"{server.url}/overlay?lines=4&hold=3600")
    for event in [*scene.speak("Dinner is at seven."), scene.say("", "and")]:
        server.publish(event)
    scene.at = 9.0
    server.publish(scene.say("", final=True, unclear=(5.0, 8.0)))
    server.publish(scene.say("", final=True, unclear=(9.5,)))
    expect(page.locator("#lines p.unclear")).to_have_count(3)
    assert texts(page, "#lines p") == [
        "0:00Dinner is at seven.",
        "0:05[unclear]",
        "0:08[unclear]",
        "0:09[unclear]",
    ]
    assert page.locator("#lines .partial").count() == 0
    expect(overlay.locator("#captions .line")).to_have_count(2)
    assert texts(overlay, "#captions .line") == ["Dinner is at seven.", "[unclear]"]
    for event in scene.speak("And then we went on."):
        server.publish(event)
    expect(overlay.locator("#captions .line").last).to_have_text("And then we went on.")
    server.publish(scene.say("Fine.", final=True, unclear=(14.0,)))
    expect(overlay.locator("#captions .line").last).to_have_text("[unclear]")
    assert texts(overlay, "#captions .line") == ["[unclear]", "And then we went on.", "Fine.", "[unclear]"]


def test_overlay_appends_words_and_shows_nothing_else(serve, opened):
    server, scene = serve(), Scene()
    page = opened(viewport={"width": 1280, "height": 720})
    join(page, f"{server.url}/overlay?lines=2&chars=30&hold=3600")
    sentence = "the quick brown fox jumps over the lazy dog and then it runs away into the dark forest"
    seen: list[list[str]] = []
    for event in scene.speak(sentence):
        server.publish(event)
        shown = f"{event.text} {event.partial}".split()[-1]
        expect(page.locator(".line").last).to_contain_text(shown)
        seen.append([line.rstrip() for line in page.locator(".line > span:first-child").all_inner_texts()])
        assert page.locator(".line").count() <= 2
        assert all(len(line) <= 30 for line in texts(page, ".line"))
    for before, after in itertools.pairwise(seen):
        kept = [line for line in before if line]
        assert not kept or any(line.startswith(kept[-1]) for line in after), "a committed line was laid out anew"
    for event in [
        scene.sound("Siren", 1),
        scene.tags(*SIREN_TAGS),
        scene.alert(1, "siren", "critical"),
        scene.gap(1.0),
    ]:
        server.publish(event)
    expect(page.locator(".sound")).to_have_text("[Siren]")
    assert len(page.inner_text("body").splitlines()) == 2
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    server.stop()
    page.wait_for_timeout(300)
    assert page.locator("body > *").count() == 1


def test_overlay_options(serve, opened):
    server, scene = serve(), Scene()
    page = opened(viewport={"width": 640, "height": 360})
    look = "size=33&color=ffe066&background=%23112233&font=serif&position=top&align=left&uppercase=1"
    page.clock.install()
    join(page, f"{server.url}/overlay?lines=4&chars=60&partial=0&sounds=0&hold=60&{look}&session=kitchen")
    for event in [scene.sound("Siren", 1), scene.say("words that are here to stay " * 5, partial="not shown")]:
        server.publish(event)
    expect(page.locator(".line")).to_have_count(4)
    style = page.evaluate(
        "(() => { const s = getComputedStyle(document.querySelector('.line')); "
        "return [s.fontSize, s.color, s.backgroundColor, s.fontFamily, s.textTransform]; })()"
    )
    assert style == ["33px", "rgb(255, 224, 102)", "rgb(17, 34, 51)", "serif", "uppercase"]
    assert "NOT SHOWN" not in page.inner_text("body")
    assert "SIREN" not in page.inner_text("body")
    box = page.locator("#captions").bounding_box()
    assert box is not None
    assert box["y"] < 40
    assert box["x"] + box["width"] <= 640
    page.clock.run_for(70_000)  # the lines that wait come first
    expect(page.locator(".line")).to_have_count(0)

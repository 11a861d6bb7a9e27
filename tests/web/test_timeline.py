"""The timeline of sounds and alerts, and false alarms that are marked there, in a real browser."""

from dataclasses import replace

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, PHONE, eventually, join, received, texts  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from scene import SIREN_TAGS, TALK_TAGS, Scene, minute  # noqa: E402

from streamer.alerts.deliveries import open_deliveries  # noqa: E402
from streamer.alerts.history import AlertHistory  # noqa: E402
from streamer.runtime.client_actions import marking  # noqa: E402
from streamer.server.actions import Actions  # noqa: E402
from streamer.server.messages import MessageError, SessionHealth, SessionInfo  # noqa: E402
from streamer.settings.config import validate  # noqa: E402


def level(dbfs):
    return Actions(health=lambda: {"kitchen": SessionHealth(0.1, 0.4, dbfs)})


def test_a_false_alarm_is_marked_with_the_keyboard_kept_and_taken_back(serve, opened, tmp_path):
    path = tmp_path / "alerts.jsonl"
    settings = validate({"delivery": {"history": {"path": str(path), "record": "always"}}})
    deliveries = open_deliveries(settings, live=True)
    server = serve(Actions(mark=marking(deliveries.recorder)))
    deliveries.recorder.on_marks = server.show_marks
    deliveries.start()
    for event in minute():
        server.publish(event)
        deliveries.put([event])
    page, other = opened(), opened(viewport=PHONE)
    page.goto(server.url)
    other.goto(server.url)
    smoke = page.locator("#timeline li.critical")
    button = smoke.get_by_role("button", name="False alarm: Smoke alarm at 0:31")
    button.focus()
    page.keyboard.press("Enter")
    expect(smoke.locator(".mark span").first).to_have_text("Marked as a false alarm")
    expect(page.locator("#said")).to_have_text("Smoke alarm at 0:31: Marked as a false alarm")
    undo = smoke.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    expect(page.locator("#alerts .seen")).to_have_text("Marked as a false alarm")
    expect(other.locator("#timeline li.critical")).to_contain_text("Marked as a false alarm")
    assert {entry.first.rule: entry.verdict for entry in AlertHistory(path).read()} == {
        "doorbell": None,
        "smoke_alarm": "false",
    }
    page.reload()
    expect(smoke).to_contain_text("Marked as a false alarm")
    smoke.get_by_role("button", name="Undo").click()
    taken_back = smoke.get_by_role("button", name="False alarm: Smoke alarm")  # "Undo: … no false alarm" is the other
    expect(taken_back).to_be_visible()
    assert deliveries.stop(10)  # the page is told before the file
    assert {entry.verdict for entry in AlertHistory(path).read()} == {None}


def test_in_the_banner_a_false_alarm_is_also_acknowledged(serve, opened):
    said = []
    server = serve(Actions(mark=said.append, ack=said.append))
    server.publish(Scene().alert(3, "siren", "critical"))
    page = opened()
    page.goto(server.url)
    page.locator("#alerts").get_by_role("button", name="False alarm").click()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_disabled()
    received(page, said, 2)
    assert [type(message).__name__ for message in said] == ["Mark", "Ack"]
    assert page.locator("#timeline .mark span").first.inner_text() == "Storing …"


def test_what_cannot_be_stored_is_said(serve, opened):
    def refuse(mark):
        raise MessageError("mark: session 'kitchen' has no alert 3 that could be marked")

    server = serve(Actions(mark=refuse))
    server.publish(Scene().alert(3, "siren", "critical"))
    page = opened()
    page.goto(server.url)
    page.locator("#timeline").get_by_role("button").click()
    expect(page.locator("#timeline .trouble")).to_have_text(
        "Not stored: session 'kitchen' has no alert 3 that could be marked"
    )
    server.stop()
    page.wait_for_timeout(100)
    page.locator("#timeline").get_by_role("button").click()
    expect(page.locator("#timeline .trouble")).to_have_text("Not stored: there is no connection")


def test_without_a_history_there_is_nothing_to_mark(serve, opened):
    server = serve()
    server.publish(Scene().alert(3, "siren", "critical"))
    page = opened()
    page.goto(server.url)
    expect(page.locator("#timeline li")).to_have_count(1)
    assert page.get_by_role("button", name="False alarm").count() == 0


def test_what_a_recording_holds_is_said_and_cannot_be_marked(serve, opened):
    server = serve(Actions(mark=[].append))
    server.publish(replace(Scene().alert(3, "siren", "critical"), source="demo"))
    page = opened()
    page.goto(server.url)
    expect(page.locator("#timeline .facts")).to_contain_text("from a demo")
    assert page.get_by_role("button", name="False alarm").count() == 0


def test_alerts_and_sounds_of_long_ago_are_there_after_a_reload(serve, opened):
    server, scene = serve(), Scene()
    early = [scene.status(), scene.sound("Doorbell", 1), scene.alert(1, "doorbell", "info")]
    scene.at = 5.0
    early += [scene.sound("Doorbell", 1, "end"), scene.alert(1, "doorbell", "info", "cleared")]
    for event in early:
        server.publish(event)
    for _ in range(3100):
        scene.at += 1
        server.publish(scene.tags(*TALK_TAGS))
    for event in scene.speak("here we are"):
        server.publish(event)
    page = opened()
    page.goto(server.url)
    expect(page.locator("#lines .said").last).to_have_text("here we are")
    assert texts(page, "#timeline .head strong") == ["Doorbell", "Doorbell"]
    assert texts(page, "#lines .said") == ["[Doorbell]", "here we are"]
    assert page.inner_text("#state") == "Listening"
    page.get_by_label("Sounds too").uncheck()
    assert page.locator("#timeline li:visible").count() == 1


def test_the_timeline_is_bounded_and_what_lasts_stays(serve, opened):
    server, scene = serve(), Scene()
    server.publish(scene.alert(1, "siren", "critical"))
    for number in range(500):
        scene.at += 1
        server.publish(scene.sound(f"Knock {number}", number))
        server.publish(scene.sound(f"Knock {number}", number, "end"))
    page = opened()
    page.goto(server.url)
    expect(page.locator("#timeline li:first-child strong")).to_have_text("Knock 499")
    assert page.locator("#timeline li").count() <= 400
    assert texts(page, "#timeline li:last-child strong") == ["Siren"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_timeline_is_legible_on_a_phone(serve, opened, scheme):
    server = serve(Actions(mark=lambda mark: None))
    scene = Scene()
    for number, severity in enumerate(("critical", "warning", "info"), start=1):
        server.publish(scene.sound("A sound with " + "long" * 40, number))
        server.publish(scene.alert(number, "rule_" + "x" * 90, severity, text="w" * 300))
    server.show_marks("kitchen", [1, 2], [3])
    page = opened(viewport=PHONE, color_scheme=scheme, reduced_motion="reduce")
    page.goto(server.url)
    page.get_by_role("button", name="Sounds").click()
    expect(page.locator("#timeline li.false-alarm")).to_have_count(2)
    expect(page.locator("#timeline li.info")).to_contain_text("Marked as a true alert")
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for box in page.evaluate(
        "[...document.querySelectorAll('#timeline button')].map(b => b.getBoundingClientRect().height)"
    ):
        assert box >= 24  # WCAG 2.2, 2.5.8


def test_silence_is_only_said_where_it_is_silent(serve, opened):
    scene = Scene()
    for dbfs, says in ((-100.0, "Silence"), (-45.0, "Quiet, or nothing that it has a name for")):
        server = serve(level(dbfs))
        server.publish(scene.status())
        page = opened()
        join(page, server.url)
        server.publish(scene.tags())
        expect(page.locator("#no-tags")).to_have_text(says)
        server.publish(scene.tags(*SIREN_TAGS))
        expect(page.locator("#no-tags")).to_be_hidden()
        server.publish(scene.status("stopped"))
        expect(page.locator("#no-tags")).to_have_text("Nothing any more: it has stopped")
        server.stop()


def test_a_model_without_a_head_is_not_called_silent(serve, opened):
    server = serve()
    server.close_session("kitchen")
    for number in range(5):
        server.open_session(SessionInfo(f"room {number}", "nano", None, 16_000))
        server.close_session(f"room {number}")
    page = opened()
    page.goto(server.url)
    expect(page.locator("#no-tags")).to_have_text("This model has no tagging head: it names no sounds")


def test_two_rooms_do_not_overwrite_each_other(serve, opened):
    server, one, other = serve(), Scene(), Scene(session="hall")
    server.open_session(SessionInfo("hall", "nano", "nano_at", 16_000))
    page = opened()
    join(page, server.url)
    server.publish(one.tags(*SIREN_TAGS[:1]))
    server.publish(other.tags(*TALK_TAGS[:1]))
    expect(page.locator("#tags li")).to_have_count(2)
    assert "Speech (hall)" in page.inner_text("#tags")
    server.publish(other.status("stopped"))
    expect(page.locator("#tags li")).to_have_count(1)


SOUNDING = """
window.beeps = []; window.shakes = 0;
const make = AudioContext.prototype.createOscillator;
AudioContext.prototype.createOscillator = function () { beeps.push(performance.now()); return make.call(this); };
Navigator.prototype.vibrate = () => { shakes += 1; return true; };
"""


def test_sound_and_vibration_again_until_somebody_acknowledges(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    page.add_init_script(SOUNDING)
    join(page, server.url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Alert sound").check()
    page.get_by_label("Vibration").check()
    expect(page.locator("#quiet-hint")).to_be_hidden()
    server.publish(scene.alert(1, "siren", "critical"))
    eventually(page, "beeps.length === 3 && shakes === 1")
    scene.at = 5.0
    server.publish(scene.alert(1, "siren", "critical", "updated"))
    scene.at = 30.0
    server.publish(scene.alert(1, "siren", "critical", "updated"))
    eventually(page, "beeps.length === 6 && shakes === 2")
    expect(page.locator("#said")).to_contain_text("Siren: still there")
    server.publish(scene.alert(1, "siren", "critical", "acknowledged"))
    scene.at = 60.0
    server.publish(scene.alert(1, "siren", "critical", "updated"))
    server.publish(scene.alert(2, "dog", "info"))
    eventually(page, "beeps.length === 7 && shakes === 3")


def test_a_browser_that_keeps_quiet_until_it_is_touched_is_said(serve, opened):
    server = serve()
    page = opened()
    page.add_init_script("localStorage.setItem('streamer sound', 'true')")
    page.goto(server.url)
    expect(page.locator("#quiet-hint")).to_be_visible()
    page.locator("h1").click()
    expect(page.locator("#quiet-hint")).to_be_hidden()

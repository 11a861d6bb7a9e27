"""The fitting page in a real browser: an audiogram goes in and out, the self-check proposes one, alerts are shown."""

from dataclasses import asdict

import pytest
import yaml

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, PHONE, eventually, join, received  # noqa: E402
from playwright.sync_api import expect  # noqa: E402

from streamer.events import Alert, Scene, SceneScores  # noqa: E402
from streamer.monitor.fitting import fitting_of  # noqa: E402
from streamer.server.actions import Actions  # noqa: E402
from streamer.settings.config import validate  # noqa: E402
from streamer.settings.monitor import MonitorSettings  # noqa: E402

TOKEN = "fitting-token"
MILD = {500: 20, 1000: 25, 2000: 35, 4000: 45}


def alert(number, rule, state="raised", **more):
    return Alert(
        session="kitchen", seq=number, audio_t=float(number), id=number, rule=rule, severity="critical", state=state,
        start=0.0, end=None, score=1.0, labels=(), heard=(), text="", **more,
    )  # fmt: skip


def test_what_is_entered_is_what_the_settings_take(serve, opened):
    page = opened()
    join(page, f"{serve().url}/fitting")
    expect(page.locator(".limits")).to_contain_text("Not a medical device")
    expect(page.locator("#save")).to_be_disabled()
    page.get_by_role("button", name="moderate").click()
    page.get_by_label("Left ear, 4000 Hz, dB HL").fill("72.5")
    expect(page.locator("#picture circle.right")).to_have_count(9)
    expect(page.locator("#picture polyline.left")).to_have_count(1)
    with page.expect_download() as saved:
        page.locator("#save").click()
    found = validate({"monitor": yaml.safe_load(saved.value.path().read_text())}).monitor.audiogram
    assert (found.left[4000], found.right[4000], found.left[250]) == (72.5, 60, 35)
    page.get_by_label("Right ear, 1000 Hz, dB HL").fill("300")
    expect(page.locator("#problem")).to_have_text("Still missing: right 1000 Hz")


def test_the_self_check_proposes_an_audiogram(serve, opened):
    """The button is pressed at once for all tones but the first, which nobody hears."""
    page = opened()
    join(page, f"{serve().url}/fitting")
    page.locator("#start").click()
    expect(page.locator("#progress")).to_have_text("Tone 2 of 8: right ear, 2000 Hz")
    for number in range(2, 9):
        expect(page.locator("#progress")).to_contain_text(f"Tone {number} of 8")
        page.wait_for_timeout(300)
        page.locator("#heard").click()
    expect(page.locator("#progress")).to_have_text(
        "Done: a proposal, no measurement. 1 of the tones were not heard and count as the loudest."
    )
    assert page.get_by_label("Right ear, 1000 Hz, dB HL").input_value() == "80"
    assert float(page.get_by_label("Left ear, 500 Hz, dB HL").input_value()) <= 30
    expect(page.locator("#save")).to_be_enabled()


def test_what_would_have_been_missed_stands_first_and_a_program_is_held(serve, opened):
    said, held = [], []
    server = serve(Actions(ack=said.append, set_program=held.append), token=TOKEN, allow_set=True)
    page = opened()
    join(page, f"{server.url}/fitting?token={TOKEN}")
    server.publish(alert(1, "doorbell"))
    server.publish(alert(2, "smoke_alarm", too_quiet=True))
    scores = SceneScores(0, 0, 0, 0, 0, 1)
    server.publish(Scene(session="kitchen", seq=3, audio_t=3.0, scene="alarm", start=2.0, scores=scores))
    expect(page.locator("#scene")).to_have_text("It sounds like an alarm")
    expect(page.locator("#alerts .alert").first).to_contain_text("Smoke alarm too quiet for you")
    viewer = opened()  # the page that people look at says it as well
    viewer.goto(f"{server.url}/?token={TOKEN}")
    expect(viewer.locator("#alerts .alert")).to_have_count(2)
    expect(viewer.locator("#alerts .alert").first).to_contain_text("Critical: Smoke alarmtoo quiet for you · since 0:")
    page.locator("#alerts .alert").first.get_by_role("button").click()
    received(page, said, 1)
    page.locator("#program").select_option("music")
    received(page, held, 1)
    assert (said[0].id, held) == (2, ["music"])


def test_it_shows_what_is_in_use(serve, opened):
    settings = MonitorSettings(
        output=0, audiogram={"left": MILD, "right": {**MILD, 4000: 80}}, output_full_scale_db_spl=110, program="music"
    )
    server = serve(Actions(fitting=asdict(fitting_of(settings))), token=TOKEN)
    page = opened()
    join(page, f"{server.url}/fitting?token={TOKEN}")
    expect(page.locator("#in-use")).to_have_text(
        "The audiogram below, as long as nothing is changed in it. No sample is above -12 dBFS (98 dB SPL in the ear); "
        "volume 0 dB."
    )
    assert page.get_by_label("Right ear, 4000 Hz, dB HL").input_value() == "80"
    assert page.get_by_label("Left ear, 4000 Hz, dB HL").input_value() == "45"
    assert page.get_by_label("Left ear, 250 Hz, dB HL").input_value() == ""
    expect(page.locator("#picture circle.right")).to_have_count(4)
    expect(page.locator("#gains tbody tr")).to_have_count(8)
    row = [int(text) for text in page.locator("#gains tbody tr").nth(6).locator("td").all_text_contents()]
    assert row[0] > row[1] > row[2] > 10  # right: soft, average, loud
    assert row[4] < row[1] - 8  # left
    expect(page.locator("#program")).to_have_value("music")


def test_it_says_where_there_is_no_hearing_aid_or_no_audiogram(serve, opened):
    page = opened()
    join(page, f"{serve().url}/fitting")
    expect(page.locator("#in-use")).to_contain_text("No hearing aid runs here.")
    expect(page.locator("#gains-area")).to_be_hidden()
    join(page, f"{serve(Actions(fitting=asdict(fitting_of(MonitorSettings(output=0))))).url}/fitting")
    expect(page.locator("#in-use")).to_contain_text("No audiogram: sound is not corrected. No sample is above -12 dBFS")
    expect(page.locator("#gains-area")).to_be_hidden()


def test_without_leave_nobody_holds_a_program(serve, opened):
    page = opened()
    join(page, f"{serve().url}/fitting")
    expect(page.locator("#program")).to_be_disabled()
    expect(page.locator("#program-hint")).to_contain_text("server.allow_set")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_can_be_read_and_fits_a_phone(serve, opened, scheme):
    page = opened(viewport=PHONE, color_scheme=scheme)
    join(page, f"{serve(Actions(fitting=asdict(fitting_of(MonitorSettings(output=0, audiogram='mild'))))).url}/fitting")
    expect(page.locator("#gains-area")).to_be_visible()
    page.get_by_role("button", name="sloping").click()
    eventually(page, "document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRASTS) == []

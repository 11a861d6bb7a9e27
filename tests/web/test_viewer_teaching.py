""" "That was my doorbell" on the viewer, in a real browser, by the keyboard and on a telephone."""

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, PHONE, join, received  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from scene import Scene  # noqa: E402

from streamer.events import Sound  # noqa: E402
from streamer.server.actions import Actions  # noqa: E402
from streamer.server.messages import (  # noqa: E402
    MessageError,
    Taught,
    Teach,
)

TOKEN = "open sesame"


def test_a_sound_is_named_kept_taken_back_and_learned(serve, opened):
    said: list[Teach] = []

    def teach(message: Teach, reply) -> None:
        said.append(message)
        match len(said):
            case 1:
                reply(Taught(message.name, 1, 3, learned=False))
            case 2:
                raise MessageError("teach: the sound of that moment is not in memory: only the last 45 s are")
            case 3:
                reply(Taught(message.name, 3, 3, learned=False, learning=True))
                reply(Taught(message.name, 3, 3, learned=False, trouble="clip 2 of 3: is <b>unlike</b>", unlike=2))
            case 4:
                reply(Taught(message.name, 2, 3, learned=False))
            case _:
                reply(Taught(message.name, 3, 3, learned=True, recall=0.914))

    server = serve(Actions(teach=teach), token=TOKEN, allow_set=True)
    scene = Scene()
    scene.at = 60.0
    for start in (10.0, 58.0):
        fields = {"id": int(start), "state": "end", "start": start, "end": start + 1, "score": 0.6}
        server.publish(scene.make(Sound, label="Ding-dong", **fields))
    page = opened(viewport=PHONE)
    join(page, f"{server.url}/?token={TOKEN}")
    told = page.locator("#teach-said")
    page.locator("#side-button").click()  # shut on a telephone

    begin = page.get_by_role("button", name="That was …", exact=True)
    begin.focus()
    page.keyboard.press("Enter")
    name = page.get_by_label("What sounded just now?")
    expect(name).to_be_focused()
    page.keyboard.type("my doorbell")
    assert page.evaluate(CONTRASTS) == []
    page.keyboard.press("Enter")
    expect(told).to_have_text("Kept: 1 clip of “my doorbell”. 3 are needed: press again when it sounds again.")
    expect(name).to_be_hidden()
    expect(begin).to_be_focused()
    assert (said[0].name, said[0].session, said[0].start, said[0].undo) == ("my doorbell", "kitchen", None, False)
    assert 0 <= said[0].ago < 10

    expect(page.locator("#timeline .teach button")).to_have_count(1)  # that of 0:10 is no longer in memory
    page.get_by_role("button", name="That was … (at 0:58, Ding-dong)").click()
    again = page.get_by_label("What sounded at 0:58, Ding-dong?")
    again.fill("my doorbell")
    page.get_by_role("button", name="Keep it").click()
    expect(told).to_have_text("Nothing was done: the sound of that moment is not in memory: only the last 45 s are")
    assert (said[1].session, said[1].start) == ("kitchen", 58.0)

    begin.click()
    assert page.locator("#teach-names option").evaluate_all("all => all.map((one) => one.value)") == ["my doorbell"]
    page.get_by_label("What sounded just now?").fill("my doorbell")
    page.keyboard.press("Enter")
    expect(told).to_have_text("“my doorbell” is not learned yet: clip 2 of 3: is <b>unlike</b>")
    page.get_by_role("button", name="Take back clip 2").click()
    expect(told).to_contain_text("Taken back. Kept: 2 clips of “my doorbell”.")
    received(page, said, 4)
    assert (said[3].undo, said[3].clip) == (True, 2)

    begin.click()
    page.get_by_label("What sounded just now?").fill("my doorbell")
    page.keyboard.press("Enter")
    expect(told).to_contain_text(
        "Learned from 3 clips of “my doorbell”, and listened for from now on. It recognised 91"
    )


def test_who_may_not_teach_sees_no_button(serve, opened):
    page = opened()
    join(page, f"{serve(token=TOKEN, allow_set=True).url}/?token={TOKEN}")
    expect(page.locator("#state")).not_to_have_text("Connecting …")
    expect(page.locator("#teach-begin")).to_be_hidden()

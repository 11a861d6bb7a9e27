"""The viewer's column of captions, and the whole session behind it, in a real browser on the real server."""

import json
import re
from dataclasses import replace

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import eventually, join, texts  # noqa: E402
from playwright.sync_api import WebSocketRoute, expect  # noqa: E402
from scene import Scene  # noqa: E402

from streamer.events import Transcript, Word  # noqa: E402
from streamer.server.hub import HubLimits  # noqa: E402

PHONE = {"width": 390, "height": 844}
AT_END = "(log => log.scrollHeight - log.scrollTop - log.clientHeight < 3)(document.getElementById('captions'))"


def speech(scene: Scene, words: list[str], start: float, partial: str = "", final: bool = False) -> Transcript:
    """A segment with a word a second from `start` on."""
    timed = tuple(Word(word, start + index, start + index + 0.9, 0.9) for index, word in enumerate(words))
    event = scene.say("", final=final)
    assert isinstance(event, Transcript)
    text = " ".join(words)
    return replace(event, start=start, end=start + len(words), text=text, partial=partial, words=timed)


def test_a_long_utterance_keeps_its_beginning_and_its_final_does_not_jump(serve, opened):
    server, scene = serve(), Scene()
    page = opened(viewport=PHONE)
    page.add_init_script("localStorage.setItem('streamer text-size', '\"64\"')")
    join(page, server.url)
    words = [f"word{number}" for number in range(1, 29)]
    for count in range(1, 29):
        scene.at = float(count)
        server.publish(speech(scene, words[:count], 0.0, "and so on"))
    line = page.locator("#lines p")
    expect(line).to_contain_text("word28 and so on")
    assert line.count() == 1
    eventually(page, AT_END)
    before = page.evaluate("lineBefore = document.querySelector('#lines p'); lineBefore.getBoundingClientRect().top")
    server.publish(speech(scene, words, 0.0, final=True))
    expect(page.locator("#lines .partial")).to_have_count(0)
    assert page.evaluate("document.querySelector('#lines p') === lineBefore")
    shortened = page.evaluate("lineBefore.getBoundingClientRect().top") - before
    assert 0 <= shortened < 3 * 64 * 1.5  # what was uncertain is gone: the end stays at the end, nothing else moved
    page.locator("#captions").evaluate("log => { log.scrollTop = 0; }")
    expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    top = page.evaluate(
        "[document.querySelector('.said').getClientRects()[0].top, captions.getBoundingClientRect().top]"
    )
    assert top[0] >= top[1]  # the first word can be read


def test_who_scrolls_back_or_pauses_stays_there(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    join(page, server.url)
    for number in range(60):
        server.publish(scene.say(f"line {number}", final=True))
        scene.at += 2
    expect(page.locator("#lines p")).to_have_count(60)
    eventually(page, AT_END)
    for leave, button in (
        ("captions.scrollTop = 300", "Back to now (5 new)"),
        ("pause.click()", "Back to now (5 new)"),
    ):
        page.evaluate(leave)
        back = page.get_by_role("button", name="Back to now")
        expect(back).to_be_visible()
        at = page.evaluate("captions.scrollTop")
        for _ in range(5):
            server.publish(scene.say("something new", final=True))
            scene.at += 2
        expect(back).to_have_text(button)
        assert page.evaluate("captions.scrollTop") == at
        back.click()
        expect(back).to_be_hidden()
        eventually(page, AT_END)
        expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "false")


IN_SIGHT = """(() => {
  const top = captions.getBoundingClientRect().top;
  const line = [...document.querySelectorAll("#lines p")].find((one) => one.getBoundingClientRect().bottom > top + 1);
  return [line.querySelector(".said").textContent, line.getBoundingClientRect().top - top];
})()"""


def still_reads(page, read) -> bool:
    """Whether the same line stands in the same place, up to the pixel that a browser scrolls by."""
    text, top = page.evaluate(IN_SIGHT)
    return text == read[0] and abs(top - read[1]) < 1.5


def test_the_page_stays_bounded_while_somebody_reads_further_up(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    join(page, server.url)

    def say(first: int, last: int) -> None:
        for number in range(first, last):
            server.publish(scene.say(f"line {number}", final=True))
            scene.at += 2
        eventually(page, f"[...document.querySelectorAll('.said')].at(-1).textContent === 'line {last - 1}'")

    def numbers() -> list[int]:
        return [int(text.split()[1]) for text in page.locator("#lines p:not(.note) .said").all_text_contents()]

    say(0, 2900)
    page.evaluate("captions.scrollTop = captions.scrollHeight / 2")  # much stands above
    expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    read = page.evaluate(IN_SIGHT)
    say(2900, 3700)
    assert still_reads(page, read)
    assert len(numbers()) <= 3600
    assert numbers() == list(range(numbers()[0], 3700)), "the oldest went"

    page.evaluate("captions.scrollTop = 0")  # nothing stands above
    read = page.evaluate(IN_SIGHT)
    say(3700, 6000)
    assert still_reads(page, read)
    shown = numbers()
    assert len(shown) <= 3600
    left_out = page.locator("#lines p.note", has_text="lines are left out here")
    expect(left_out).to_have_count(1)
    assert int(left_out.inner_text().split()[0]) == 6000 - shown[0] - len(shown)

    page.get_by_role("button", name="Find").click()  # looks through the whole session, and shows what it found
    page.get_by_label("Words to find").fill("line 4321")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_have_text("1 of 1")
    assert numbers() == list(range(6000)), "each line once, in order"
    expect(left_out).to_have_count(0)
    expect(page.locator("#lines p.at mark.hit")).to_be_in_viewport()


def test_what_was_left_out_is_shown_again_where_it_stood(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    join(page, server.url)
    for number in range(5000):
        server.publish(scene.say(f"line {number}", final=True))
        scene.at += 2
        if number == 100:
            expect(page.locator("#lines p")).to_have_count(101)
            page.evaluate("captions.scrollTop = 0")
            expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    eventually(page, "[...document.querySelectorAll('.said')].at(-1).textContent === 'line 4999'")
    page.locator("#lines p.note").evaluate("note => note.scrollIntoView({ block: 'center' })")
    read = page.evaluate(IN_SIGHT)
    page.get_by_role("button", name="Show them").click()
    expect(page.locator("#lines p")).to_have_count(5000)
    assert still_reads(page, read)
    page.get_by_role("button", name="Back to now").click()
    eventually(page, AT_END)


def test_captions_and_sounds_stand_in_the_order_of_their_time(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    join(page, server.url)
    server.publish(replace(scene.sound("alarm clock", 1), start=24.0))
    server.publish(replace(scene.sound("knock", 2), start=22.5))
    server.publish(speech(scene, ["it", "is", "time", "to"], 21.0, "get"))
    server.publish(replace(scene.sound("dog", 3), start=3.0))
    server.publish(speech(scene, ["it", "is", "time", "to", "get", "up", "."], 21.0, final=True))
    expect(page.locator("#lines p")).to_have_count(6)
    assert [line.split("\n")[-1] for line in texts(page, "#lines .said")] == [
        "[dog]",
        "it is",
        "[knock]",
        "time",
        "[alarm clock]",
        "to get up .",
    ]
    assert texts(page, "#lines time") == ["0:03", "0:21", "0:22", "0:22", "0:24", "0:24"]


def long_session(server, scene: Scene, segments: int = 300) -> None:
    for number in range(segments):
        for event in scene.speak(f"sentence number {number} of many."):
            server.publish(event)


def test_the_whole_session_is_found_and_saved_not_what_the_page_holds(serve, opened):
    server, scene = serve(limits=HubLimits(max_events=200)), Scene()
    long_session(server, scene)
    server.publish(scene.say("this one is", partial="not ready"))
    page = opened()
    page.goto(server.url)
    expect(page.locator("#lines .said").last).to_have_text("this one is not ready")
    assert page.locator("#lines p").count() < 200
    page.get_by_role("button", name="Save").click()
    saved = {}
    for name, button in (
        ("txt", "Text"),
        ("srt", "Subtitles (SRT)"),
        ("vtt", "Subtitles (VTT)"),
        ("jsonl", "Events (JSONL)"),
    ):
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        assert download.value.suggested_filename == f"kitchen.{name}"
        saved[name] = download.value.path().read_text("utf-8")
    lines = saved["txt"].splitlines()
    assert [lines[0], lines[299], lines[300]] == [
        "sentence number 0 of many.",
        "sentence number 299 of many.",
        "this one is",
    ]
    assert saved["srt"].startswith("1\n00:00:00,000 --> ")
    assert saved["vtt"].startswith("WEBVTT\n\n")
    for name in ("srt", "vtt"):
        assert re.sub(r"\s+", " ", saved[name]).count("of many.") == 300
    events = [json.loads(line) for line in saved["jsonl"].splitlines()]
    assert [event["text"] for event in events] == [*lines[:300], "this one is"]

    page.get_by_role("button", name="Find").click()
    page.get_by_label("Words to find").fill("number 7 of")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_have_text("1 of 1")
    expect(page.locator("#lines p.at mark.hit")).to_be_visible()
    expect(page.locator("#lines p")).to_have_count(301)  # no line twice
    assert texts(page, "#lines .said")[0] == "sentence number 0 of many."
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Find")).to_be_focused()


def test_what_was_cleared_stays_away_and_is_still_saved(serve, opened):
    server, scene = serve(), Scene()
    for event in (*scene.speak("a word in private"), scene.say("I am", "still")):
        server.publish(event)
    page = opened()
    page.goto(server.url)
    expect(page.locator("#lines p")).to_have_count(2)
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Clear the page").click()
    assert texts(page, "#lines .said") == ["I am still"]
    page.reload()
    expect(page.locator("#lines .said")).to_have_text("I am still")
    page.get_by_role("button", name="Save").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Text", exact=True).click()
    assert download.value.path().read_text() == "a word in private\nI am\n"


def test_a_break_in_the_middle_of_an_utterance_loses_nothing(serve, opened):
    server, scene, routes = serve(), Scene(), []

    def relay(route: WebSocketRoute) -> None:
        routes.append((route, route.connect_to_server()))

    page = opened()
    page.route_web_socket(re.compile("/ws"), relay)
    page.goto(server.url)
    server.publish(scene.say("one two", "three"))
    expect(page.locator("#lines .said")).to_have_text("one two three")
    for side in routes[0]:
        side.close(code=3000)
    server.publish(scene.say("one two three four", "five"))
    server.publish(scene.say("one two three four five six", final=True))
    expect(page.locator("#lines .said")).to_have_text("one two three four five six")
    assert page.locator("#lines .partial").count() == 0


def test_words_are_marked_and_shaded_and_stay_text(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    join(page, server.url)
    event = scene.say("Anna went to <b>gate</b> 12 with Annabel", final=True)
    assert isinstance(event, Transcript)
    server.publish(
        replace(
            event, words=tuple(replace(word, probability=0.3 if word.word == "to" else 0.9) for word in event.words)
        )
    )
    expect(page.locator("#lines .said")).to_have_text("Anna went to <b>gate</b> 12 with Annabel")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Words to mark").fill("anna, <b>gate</b> 12,")
    page.get_by_label("Shade words").check()
    expect(page.locator("#lines mark.keyword")).to_have_text(["Anna", "<b>gate</b> 12"])
    assert "to" in texts(page, "#lines .unsure")
    page.get_by_label("Times").select_option("none")
    assert texts(page, "#lines time") == [""]
    page.get_by_label("Size").fill("96")
    assert page.evaluate("getComputedStyle(document.querySelector('#lines p')).fontSize") == "96px"
    page.reload()
    expect(page.locator("#lines mark.keyword")).to_have_count(2)
    assert page.evaluate("getComputedStyle(document.querySelector('#lines p')).fontSize") == "96px"

"""The overlay in a real browser: each option of its address, OBS's Custom CSS, time to read, and breaks."""

import itertools
import json
import re
from collections.abc import Callable

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import eventually, join, texts  # noqa: E402
from playwright.sync_api import Page, WebSocketRoute, expect  # noqa: E402
from scene import Scene  # noqa: E402

from streamer.server.messages import SessionInfo  # noqa: E402

PICTURE = {"width": 1920, "height": 1080}
# What OBS does with "Custom CSS" (obs-browser), and what stands in it unless somebody writes something else.
OBS_PUTS = (
    "text => { const style = document.createElement('style'); style.innerHTML = text; document.head.append(style); }"
)
OBS_CSS = "body { background-color: rgba(0, 0, 0, 0); margin: 0px auto; overflow: hidden; }"
LAYOUT = """async ({chars, lines, events}) => {
  const { Layout } = await import(new URL("static/overlay_layout.js", location.href));
  const layout = new Layout(chars, lines);
  const seen = [];
  let next = null;
  let at = 0;
  const look = () => {
    const view = layout.view(at);
    seen.push([at, view.lines.map((line) => line.committed), view.lines.map((line) => line.partial)]);
    next = view.nextMs;
  };
  for (const [ms, text, partial, segment] of events) {
    while (next !== null && next <= ms) { at = next; look(); }
    at = ms;
    layout.transcript({ session: "s", segment, text, partial, final: false }, at, true);
    look();
  }
  while (next !== null) { at = next; look(); }
  return seen;
}"""


def style(page: Page, selector: str, name: str) -> str:
    script = f"getComputedStyle(document.querySelector({json.dumps(selector)})).getPropertyValue({json.dumps(name)})"
    return str(page.evaluate(script))


@pytest.fixture
def text_on(serve, opened) -> Callable[..., list[Page]]:
    """Overlays with these options and two lines of text on each."""

    def open_all(*options: str) -> list[Page]:
        server, pages = serve(), []
        for option in options:
            pages.append(opened(viewport=PICTURE))
            join(pages[-1], f"{server.url}/overlay?hold=3600&{option}")
        server.publish(Scene().say("Good evening everyone, and thank you all for", partial="coming"))
        for page in pages:
            expect(page.locator(".line")).to_have_count(2)
        return pages

    return open_all


LOOKS = [
    ("size=64", ".line", "font-size", "64px"),
    ("size=9999", ".line", "font-size", "400px"),
    ("size=large", ".line", "font-size", "40px"),
    ("font=Georgia, serif", ".line", "font-family", "Georgia, serif"),
    ("color=ffe066", ".line", "color", "rgb(255, 224, 102)"),
    ("color=no colour", ".line", "color", "rgb(255, 255, 255)"),
    ("background=112233", ".line", "background-color", "rgb(17, 34, 51)"),
    ("background=none", ".line", "background-color", "rgba(0, 0, 0, 0)"),
    ("outline=none&background=none", ".line", "text-shadow", "none"),
    ("", ".line", "text-shadow", "none"),
    ("uppercase=1", ".line", "text-transform", "uppercase"),
    ("position=top", "body", "align-items", "flex-start"),
    ("position=middle", "body", "align-items", "center"),
    ("position=nowhere", "body", "align-items", "flex-end"),
    ("fade=1.5", "html", "--fade", "1.5s"),
]


def test_each_option_of_the_look(serve, opened):
    server, page = serve(), opened(viewport=PICTURE)
    for options, selector, name, value in LOOKS:
        page.goto(f"{server.url}/overlay?sample=Good&{options}")
        expect(page.locator(".line")).to_have_text("Good")
        assert style(page, selector, name) == value, options
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert style(page, "html", "overflow-x") == "hidden"
        assert style(page, "body", "background-color") == "rgba(0, 0, 0, 0)"
    page.goto(f"{server.url}/overlay?sample=Good&outline=003366&outlinesize=5")
    expect(page.locator(".line")).to_have_text("Good")
    shadows = style(page, ".line", "text-shadow")
    assert shadows.count("rgb(0, 51, 102)") == 16
    assert {"rgb(0, 51, 102) 5px 0px 0px", "rgb(0, 51, 102) 0px 5px 0px"} <= set(re.split(r",\s+(?=rgb)", shadows))


def test_alignment_is_that_of_the_box_and_of_the_text(text_on):
    middle, edges = PICTURE["width"] / 2, (PICTURE["width"] * 0.02, PICTURE["width"] * 0.98)
    ends = []
    for page in text_on("", "align=left", "align=center", "align=right"):
        boxes = [page.locator(".line").nth(index).bounding_box() for index in (0, 1)]
        assert boxes[0]["width"] > boxes[1]["width"] + 50
        ends.append([(box["x"], box["x"] + box["width"]) for box in boxes])
    steady, left, center, right = ends
    assert steady[0][0] == steady[1][0] > edges[0] + 300  # lines grow to the right from where they began
    assert [line[0] for line in left] == pytest.approx([edges[0]] * 2, abs=1)
    assert [sum(line) / 2 for line in center] == pytest.approx([middle] * 2, abs=1)
    assert [line[1] for line in right] == pytest.approx([edges[1]] * 2, abs=1)


def test_wide_capitals_stay_in_the_picture(text_on):
    look = "uppercase=1&align=right&lines=2&font=serif"
    for page in text_on(f"{look}&chars=60&size=90", f"{look}&chars=24&size=72"):
        for line in page.locator(".line").all():
            box = line.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PICTURE["width"] * 0.98 + 1


def test_custom_css_of_obs_works_and_scripts_in_the_address_do_not(serve, opened):
    nasty = (
        "font=x;}</style><script>document.title=1</script>&color=red;background:url(x)&background=none&session=kitchen"
    )
    server, scene = serve(), Scene()
    page = opened(viewport=PICTURE)
    join(page, f"{server.url}/overlay?{nasty}&outline=<script>document.title=2</script>")
    page.evaluate(OBS_PUTS, OBS_CSS)
    page.evaluate(OBS_PUTS, ".line { color: rgb(1, 2, 3); border-radius: 9px; padding: 7px; } .partial { opacity: 1; }")
    server.publish(scene.say("<script>document.title=3</script>", partial="<b>open</b>"))
    expect(page.locator(".line").last).to_contain_text("<b>open</b>")
    assert "<script>" in page.inner_text("#captions")
    assert style(page, ".line", "color") == "rgb(1, 2, 3)"
    assert style(page, ".line", "border-top-left-radius") == "9px"
    assert style(page, ".line", "padding-left") == "7px"
    assert style(page, ".partial", "opacity") == "1"
    assert style(page, "body", "margin-top") == "0px"
    assert page.locator("body script, b").count() == 0
    assert page.title() == "Captions"


def test_only_the_overlay_may_have_styles_of_its_own(serve, opened):
    server = serve()
    page = opened()
    policies = {path: page.goto(f"{server.url}/{path}").headers["content-security-policy"] for path in ("", "overlay")}
    assert "'unsafe-inline'" not in policies[""]
    assert "style-src 'self' 'unsafe-inline';" in policies["overlay"]
    assert "script-src 'self';" in policies["overlay"]


def test_the_text_goes_away_after_hold_and_fades(serve, opened):
    server, scene = serve(), Scene()
    page = opened()
    page.clock.install()
    join(page, f"{server.url}/overlay?hold=60&fade=10")
    server.publish(scene.say("here it is"))
    expect(page.locator(".line")).to_have_text("here it is")
    page.clock.fast_forward(40_000)
    assert not page.locator(".going").count()
    page.clock.fast_forward(21_000)
    expect(page.locator("#captions.going .line")).to_have_text("here it is")
    server.publish(scene.say("here it is again"))
    expect(page.locator(".line")).to_have_text("here it is again")
    assert not page.locator(".going").count()
    page.clock.fast_forward(61_000)
    page.clock.fast_forward(11_000)
    expect(page.locator(".line")).to_have_count(0)
    server.publish(scene.say("here it is again", partial="and more"))
    expect(page.locator(".line")).to_have_text("and more")  # what went does not come back


def test_partial_words_and_sounds_can_be_left_out(serve, opened):
    server, scene = serve(), Scene()
    plain, full = opened(), opened()
    join(plain, f"{server.url}/overlay?partial=0&sounds=0&lines=4")
    join(full, f"{server.url}/overlay?lines=4")
    for event in [scene.sound("Siren", 1), scene.say("sure", partial="unsure")]:
        server.publish(event)
    expect(full.locator(".line")).to_have_count(2)
    expect(plain.locator(".line")).to_have_count(1)
    assert (texts(full, ".line"), texts(plain, ".line")) == (["[Siren]", "sure unsure"], ["sure"])


def test_one_source_can_be_chosen(serve, opened):
    server = serve()
    server.open_session(SessionInfo("hall", "nano", "nano_at", 16_000))
    page = opened()
    join(page, f"{server.url}/overlay?session=hall")
    server.publish(Scene().say("kitchen"))
    server.publish(Scene(session="hall").say("hall"))
    expect(page.locator(".line")).to_have_text("hall")


PARAGRAPH = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
WORDS = PARAGRAPH.split()


def laid_out(page: Page, events: list[tuple[float, str, str, int]], lines: int = 2, chars: int = 20):
    return page.evaluate(LAYOUT, {"chars": chars, "lines": lines, "events": events})


def first_seen(seen, text: str) -> float:
    return next(at for at, committed, _ in seen if text in " ".join(committed))


@pytest.fixture
def layout_page(serve, opened) -> Page:
    """Where the module that lays lines out can be imported."""
    page = opened()
    page.goto(f"{serve().url}/overlay")
    return page


def test_a_paragraph_that_comes_at_once_is_shown_in_readable_pieces(layout_page):
    seen = laid_out(layout_page, [(0, PARAGRAPH, "", 0)])
    views = [committed for _, committed, _ in seen]
    assert all(len(view) <= 2 for view in views)
    lines = list(dict.fromkeys(line for view in views for line in view))
    assert " ".join(lines) == PARAGRAPH  # every line was in view, in order
    for (at, view, _), (later, _, _) in itertools.pairwise(seen):
        assert later - at >= 1000 * len(view[0]) / 50
    assert seen[-1][0] <= 4001


def test_a_paragraph_moves_through_the_page_and_then_goes_away(serve, opened):
    server, page = serve(), opened()
    page.clock.install()
    join(page, f"{server.url}/overlay?chars=20&hold=5")
    page.clock.pause_at(page.evaluate("Date.now() / 1000") + 0.5)
    server.publish(Scene().say(PARAGRAPH))
    expect(page.locator(".line").first).to_have_text("one two three four")
    page.clock.run_for(4100)
    assert texts(page, ".line")[-1].endswith("sixteen")
    page.clock.run_for(3000)
    assert texts(page, ".line")[-1].endswith("sixteen")
    page.clock.run_for(2100)
    expect(page.locator(".line")).to_have_count(0)


def test_where_somebody_speaks_nothing_is_held_back(layout_page):
    events = []
    for index in range(len(WORDS)):  # three words a second
        sure, open_word = WORDS[:index], WORDS[index]
        events.append((333 * index, " ".join(sure), open_word, 0))
    seen = laid_out(layout_page, events)
    for at, text, partial, _ in events:
        last = [view for view in seen if view[0] <= at][-1]
        assert partial in last[2][-1]
        assert text.split()[-1:] == (" ".join(last[1])).split()[-1:]


def test_text_is_never_more_than_four_seconds_behind_and_much_too_much_is_cut(layout_page):
    pages = [" ".join(f"w{part}x{word}" for word in range(40)) for part in range(3)]
    seen = laid_out(layout_page, [(1000 * part, page, "", part) for part, page in enumerate(pages)])
    assert first_seen(seen, "w2x39") <= 2000 + 4001
    assert len(seen) < 60


def test_a_withdrawn_partial_leaves_what_is_sure(layout_page):
    seen = laid_out(layout_page, [(0, "one two", "three", 0), (300, "one two", "", 0)])
    assert seen[-1][1:] == [["one two"], [""]]


def test_a_break_shows_nothing_odd_and_what_was_missed_comes(serve, opened):
    server, scene, routes = serve(), Scene(), []

    def relay(route: WebSocketRoute) -> None:
        routes.append((route, route.connect_to_server()))

    page = opened()
    page.route_web_socket(re.compile("/ws"), relay)
    join(page, f"{server.url}/overlay?lines=4&hold=3600")
    for event in scene.speak("before the break"):
        server.publish(event)
    expect(page.locator(".line")).to_have_text("before the break")
    for side in routes[0]:
        side.close(code=3000)
    for event in scene.speak("during the break"):
        server.publish(event)
    assert texts(page, "body > *") == ["before the break"]
    expect(page.locator(".line")).to_have_count(2)
    assert texts(page, ".line") == ["before the break", "during the break"]


def test_another_run_of_the_server_begins_with_its_first_word(serve, opened):
    first = serve()
    page = opened()
    join(page, f"{first.url}/overlay?hold=3600")
    for event in Scene().speak("one two three four five six"):
        first.publish(event)
    expect(page.locator(".line")).to_have_text("one two three four five six")
    port = first.port
    first.stop(1012, "restarting")
    assert texts(page, "body > *") == ["one two three four five six"]
    second = serve(port=port)
    eventually(page, "document.querySelectorAll('.line').length === 0")
    for event in Scene().speak("seven eight nine"):
        second.publish(event)
    expect(page.locator(".line")).to_have_text("seven eight nine")

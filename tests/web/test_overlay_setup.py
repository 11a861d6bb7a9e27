"""The page that makes an overlay's address, in a real browser."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from browsing import CONTRASTS, eventually, texts  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402

TOKEN = "a-long-token"


def options_of(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.locator("#url").input_value()).query).items()}


def test_what_is_chosen_stands_in_the_address_and_in_the_preview(serve, opened):
    server, page = serve(), opened()
    page.goto(f"{server.url}/overlay-setup")
    expect(page.locator("#url")).to_have_value(f"{server.url}/overlay")
    expect(page.locator("#access")).to_be_hidden()
    page.get_by_label("Lines").fill("3")
    page.get_by_label("Text size (px)").fill("64")
    page.get_by_label("Text colour", exact=True).fill("ffe066")
    page.get_by_label("Font").fill("Georgia, serif")
    page.get_by_label("Alignment").select_option("centred")
    page.get_by_label("Capital letters").check()
    page.get_by_label("Also sounds, in brackets").uncheck()
    page.get_by_label("Seconds until the text goes away").fill("20")
    page.get_by_label("Sample text").fill("Hello <b>there</b>")
    assert options_of(page) == {
        **{"lines": "3", "size": "64", "color": "ffe066", "font": "Georgia, serif"},
        **{"align": "center", "uppercase": "1", "sounds": "0", "hold": "20"},
    }
    preview = page.frame_locator("#preview")
    expect(preview.locator(".line").last).to_contain_text("Hello <b>there</b>")
    look = preview.locator(".line").last.evaluate(
        "line => { const s = getComputedStyle(line); return [s.fontSize, s.color, s.textTransform, s.fontFamily]; }"
    )
    assert look == ["64px", "rgb(255, 224, 102)", "uppercase", "Georgia, serif"]
    overlay = opened()
    overlay.goto(page.locator("#url").input_value())  # what is copied is an overlay
    assert overlay.evaluate("getComputedStyle(document.body).fontSize") == "64px"


def test_a_wrong_value_is_said_beside_it_and_nowhere_else(serve, opened):
    server, page = serve(), opened()
    page.goto(f"{server.url}/overlay-setup")
    page.locator("#option-color").fill("greenish")
    page.locator("#option-lines").fill("9")
    page.locator("#option-font").fill("x;}<script>")
    assert texts(page, ".hint:not(:empty)") == [
        "must be from 1 to 4; taken as 4",
        "is no font that a style could name; the default is taken",
        "is no colour such as ffcc00 or white; the default is taken",
    ]
    preview = page.frame_locator("#preview")
    expect(preview.locator(".line").last).to_contain_text("This is how")
    assert "greenish" not in preview.locator("body").inner_text()


def test_an_address_that_is_there_can_be_changed(serve, opened):
    server, page = serve(), opened()
    page.goto(f"{server.url}/overlay-setup")
    page.get_by_label("Address to begin with").fill(
        f"{server.url}/overlay?code=abc&lines=9&colour=red&partial=False&fade=2.5"
    )
    assert texts(page, "#troubles") == ["lines: must be from 1 to 4; taken as 4\ncolour: is no option"]
    assert options_of(page) == {"code": "abc", "lines": "4", "partial": "0", "fade": "2.5"}
    page.get_by_label("Address to begin with").fill("overlay?")
    assert texts(page, "#troubles") == ["overlay?: is no address"]


def test_the_address_is_copied(serve, opened):
    server, page = serve(), opened()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server.url}/overlay-setup")
    page.locator("#option-size").fill("50")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == f"{server.url}/overlay?size=50"


def test_with_a_token_obs_gets_in_by_a_link_or_with_the_token(serve, opened):
    server, page = serve(token=TOKEN), opened()
    assert page.goto(f"{server.url}/overlay-setup").status == 401
    page.goto(server.link("/overlay-setup"))
    assert page.url == f"{server.url}/overlay-setup"
    expect(page.locator("#access")).to_be_visible()
    assert TOKEN not in page.locator("#url").input_value()
    expect(page.locator("#copied")).to_have_text("OBS does not get in with this alone: see below.")
    expect(page.frame_locator("#preview").locator(".line").last).to_contain_text("This is how")

    page.get_by_label("Token").fill(TOKEN)
    page.locator("#option-size").fill("50")
    assert page.inner_text("#copied") == ""
    obs = opened()
    assert obs.goto(page.locator("#url").input_value()).status == 200
    assert re.search(rf"/overlay\?size=50&token={TOKEN}$", page.locator("#url").input_value())

    page.get_by_label("Address to begin with").fill(server.link("/overlay"))
    page.locator("#option-size").fill("60")
    address = page.locator("#url").input_value()
    assert TOKEN not in address
    with_cookies = opened()
    assert with_cookies.goto(address).status == 200
    assert with_cookies.url == f"{server.url}/overlay?size=60"
    with_cookies.reload()
    eventually(with_cookies, "getComputedStyle(document.body).fontSize === '60px'")
    assert opened().goto(address).status == 401  # the link has let one in


@pytest.mark.parametrize(("size", "scheme"), [((1280, 800), "light"), ((390, 844), "dark")])
def test_it_is_legible_and_fits(serve, opened, size, scheme):
    server = serve()
    page = opened(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(f"{server.url}/overlay-setup")
    page.locator("#option-lines").fill("9")
    expect(page.frame_locator("#preview").locator(".line").last).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRASTS) == []
    picture = page.locator("#picture").bounding_box()
    assert picture["width"] / picture["height"] == pytest.approx(16 / 9, rel=0.02)
    unnamed = "one => !one.labels?.length && !one.ariaLabel"
    assert page.evaluate(f"[...document.querySelectorAll('input, select, textarea')].filter({unnamed}).length") == 0

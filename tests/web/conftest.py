"""A real browser, and the real server with one session, for tests of the pages."""

import shutil
from collections.abc import Callable, Iterator

import pytest

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser_arguments() -> list[str]:
    """Further ones; modules that need some have a fixture of this name."""
    return []


@pytest.fixture(scope="module")
def browser(browser_arguments: list[str]) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *browser_arguments])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages and fails on any error in them and on any request to elsewhere."""
    contexts, troubles = [], []

    def open_page(**options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda entry: troubles.append(entry.text) if "Refused" in entry.text else None)
        page.on("request", lambda made: None if "//127.0.0.1:" in made.url else troubles.append(made.url))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def first_session() -> str:
    return "kitchen"

"""What tests of pages do with a page."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page

PHONE = {"width": 360, "height": 740}
CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text("utf-8").split("\n", 1)[1]


def join(page: Page, address: str) -> None:
    """Open a page and wait until it has subscribed."""
    said: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: said.append(frame)))
    page.goto(address)
    _until(page, lambda: bool(said), "the page did not subscribe")


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip().replace("\xa0", " ") for text in page.locator(selector).all_inner_texts()]


def eventually(page: Page, script: str) -> None:
    """Wait until the script is true in the page; its policy forbids playwright's own way."""
    _until(page, lambda: page.evaluate(script), f"never true: {script}")


def received(page: Page, said: Sequence[object], count: int) -> None:
    """Wait until the server has taken so many messages: a button is off as soon as it was pressed."""
    _until(page, lambda: len(said) >= count, f"the server did not get {count} messages")


def _until(page: Page, true: Callable[[], bool], trouble: str) -> None:
    for _ in range(1000):
        if true():
            return
        page.wait_for_timeout(20)
    pytest.fail(trouble)

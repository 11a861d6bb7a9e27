"""Makes the pictures of README and guides from real runs: `python docs/pictures.py [NAME…]`, with Chromium, playwright.

Each is a page as it comes from the program, which hears the demo with `tiny.en`: the viewer and the overlay from its
own input, `/mic` from a browser whose microphone plays the demo's voices.
"""

import re
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, expect, sync_playwright

from streamer.audio.files import read_audio
from streamer.events import SAMPLE_RATE
from streamer.monitor.fitting import fitting_of
from streamer.server.actions import Actions
from streamer.server.websocket import ServerThread
from streamer.settings.monitor import MonitorSettings
from streamer.settings.server import ServerSettings

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
OVERLAY = {"size": "56", "color": "ffe066", "background": "none", "outline": "000000", "outlinesize": "4"}
PICTURE_BEHIND = "html { background: linear-gradient(160deg, #24323d, #5b6f62 60%, #2b2622) !important; }"
LONG_MS = 90_000


@contextmanager
def program(*options: str) -> Iterator[str]:
    """The address of the running program."""
    command = [sys.executable, str(ROOT / "run_stream.py"), "--model", "tiny.en", "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    break
        finally:
            process.terminate()


@contextmanager
def browsing(*arguments: str) -> Iterator[Browser]:
    """Chromium, as it is on this machine."""
    with sync_playwright() as tools:
        settings = ["--no-sandbox", "--disable-gpu", *arguments]
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=settings)
        yield browser
        browser.close()


def shown(browser: Browser, address: str, size: dict[str, int]) -> Page:
    """A page in the light scheme."""
    page = browser.new_page(viewport=size, color_scheme="light")  # type: ignore[arg-type]
    page.goto(address)
    return page


def viewer() -> None:
    """The demo's captions and its smoke alarm."""
    with program("--input", "demo", "--stay") as address, browsing() as browser:
        page = shown(browser, address, DESK)
        expect(page.locator("#alerts")).to_contain_text("Smoke alarm", timeout=LONG_MS)
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "viewer.png")


def overlay() -> None:
    """The overlay, over something else than white."""
    with program("--input", "demo", "--stay") as address, browsing() as browser:
        page = shown(browser, f"{address}/overlay?align=center", {"width": 1280, "height": 360})
        page.add_style_tag(content=PICTURE_BEHIND)
        expect(page.locator("body")).to_contain_text("Bible", timeout=LONG_MS)
        page.wait_for_timeout(1500)
        page.screenshot(path=IMAGES / "overlay.png")


def overlay_setup() -> None:
    """The page that makes the overlay's address, with the choices of docs/guides/obs.md and its own sample."""
    with program("--input", "ingest") as address, browsing() as browser:
        page = shown(browser, f"{address}/overlay-setup", DESK)
        page.locator("#option-align").select_option("center")
        for name, value in OVERLAY.items():
            page.locator(f"#option-{name}").fill(value)
        preview = page.frame_locator("#preview")
        expect(preview.locator(".line").last).to_contain_text("they are said", timeout=LONG_MS)
        page.screenshot(path=IMAGES / "overlay-setup.png")


def microphone() -> None:
    """A phone that hears the demo's voices, and shows what it hears."""
    with tempfile.TemporaryDirectory() as folder, program("--input", "ingest") as address:
        path = Path(folder) / "voices.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            samples = read_audio(str(ROOT / "streamer" / "data" / "demo_voices.ogg"))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
        with browsing(*fake, f"--use-file-for-fake-audio-capture={path}%noloop") as browser:
            page = shown(browser, f"{address}/mic", PHONE)
            page.wait_for_timeout(6000)  # the model is there
            page.get_by_role("button", name="Start").click()
            expect(page.locator("body")).to_contain_text("movable type", timeout=LONG_MS)
            page.wait_for_timeout(4000)
            page.screenshot(path=IMAGES / "mic.png")


def fitting() -> None:
    """The audiogram's page, as it is where a hearing aid runs: without one, as it needs a microphone and headphones."""
    in_use = fitting_of(MonitorSettings(output="headphones", audiogram="moderate"))
    server = ServerThread(ServerSettings(port=0), Actions(fitting=asdict(in_use)))
    server.start()
    try:
        with browsing() as browser:
            page = shown(browser, f"{server.url}/fitting", DESK)
            expect(page.locator("#gains tbody tr")).to_have_count(len(in_use.at_hz))
            page.wait_for_timeout(1500)
            page.screenshot(path=IMAGES / "fitting.png")
    finally:
        server.stop()


PICTURES = {picture.__name__: picture for picture in (viewer, overlay, overlay_setup, microphone, fitting)}


def main() -> None:
    """Make those that are named, or all."""
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()

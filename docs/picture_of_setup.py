"""Makes docs/images/overlay-setup.png: `python docs/picture_of_setup.py`, with Chromium and playwright.

The page as it comes from the real server, with the choices of docs/guides/obs.md; its preview plays its own sample.
"""

import shutil
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

PICTURE = Path(__file__).parent / "images" / "overlay-setup.png"
CHOICES = {"size": "56", "color": "ffe066", "background": "none", "outline": "000000", "outlinesize": "4"}


def main() -> None:
    """Serve, choose, wait for a whole sentence in the preview, take the picture."""
    server = ServerThread(ServerSettings(port=0))
    server.start()
    try:
        with sync_playwright() as tools:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
            browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
            page.goto(f"{server.url}/overlay-setup")
            page.locator("#option-align").select_option("center")
            for name, value in CHOICES.items():
                page.locator(f"#option-{name}").fill(value)
            preview = page.frame_locator("#preview")
            expect(preview.locator(".line").last).to_contain_text("they are said", timeout=30_000)
            page.screenshot(path=PICTURE)
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main()

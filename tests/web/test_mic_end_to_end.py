"""A phone as the microphone, whole: the real program, its own certificate, its link, and a voice in Chromium."""

import signal
from pathlib import Path

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("cryptography")
from playwright.sync_api import expect  # noqa: E402
from program import Program, write_wav  # noqa: E402

from streamer.audio.files import read_audio  # noqa: E402
from streamer.errors import DownloadError  # noqa: E402
from streamer.measure.word_errors import plain_text, word_errors  # noqa: E402
from streamer.model import catalog  # noqa: E402

RECORDING = Path(__file__).parents[1] / "recordings" / "LJ001-0081.flac"
TOKEN = "a token for tests"
SAID = "type cast from his matrices is still in everyday use"


@pytest.fixture(scope="module")
def browser_arguments(tmp_path_factory):
    """Somebody speaks into its microphone."""
    quiet = np.zeros(8_000, np.float32)
    samples = np.concatenate([quiet, read_audio(str(RECORDING)), quiet, quiet])
    sound = write_wav(tmp_path_factory.mktemp("voice") / "said.wav", samples)
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={sound}%noloop"]


@pytest.mark.timeout(600)  # the first time the model is fetched
def test_what_a_phone_hears_is_captioned_on_it(browser, opened):
    try:
        catalog.pull("tiny.en")
    except DownloadError as error:
        pytest.skip(f"needs tiny.en, which is not here and cannot be fetched: {error}")
    arguments = ("--input", "ingest", "--model", "tiny.en", "--head", "none", "--port", "0", "--tls", "self-signed")
    with Program(*arguments, "--host", "0.0.0.0", env={"STREAMER_TOKEN": TOKEN}) as program:
        link = program.wait_for_stderr("a phone as the microphone: https://").split(": ", 1)[1].strip()
        program.wait_for_stderr("listening with tiny.en")
        address = "https://127.0.0.1:" + link.rpartition(":")[2]
        page = opened(ignore_https_errors=True, viewport={"width": 390, "height": 844}, permissions=["microphone"])
        page.goto(address)
        assert page.url == address.partition("?")[0]  # no code in it any more
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#heard")).to_contain_text("day use", timeout=60_000)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#state")).to_have_text("Off")
        text = " ".join(page.locator("#captions p:not(.note) span").all_inner_texts())
        program.signal(signal.SIGTERM)
        assert program.wait(15) == 0, "".join(program.stderr)
    assert TOKEN not in "".join(program.stderr)
    rate = word_errors(plain_text(SAID), plain_text(text)).rate
    assert rate is not None, text
    assert rate <= 0.2, text

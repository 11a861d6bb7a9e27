"""The demo's speech, for tests that need words to be said."""

import json
from pathlib import Path

import numpy as np

from streamer.audio.files import demo_path, read_audio


def demo_speech(seconds: int) -> np.ndarray:
    """float32 [seconds * 16000]: the demo from just before its first word on."""
    words = json.loads(Path(demo_path()).with_suffix(".json").read_text())["words"]
    start = round((words[0]["start"] - 0.5) * 16_000)
    return read_audio(demo_path())[start : start + seconds * 16_000]

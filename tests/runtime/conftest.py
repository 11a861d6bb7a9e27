"""What several tests of the runtime need."""

import pytest

from streamer.model import whisper
from streamer.runtime import engine as engine_module
from streamer.runtime import room


@pytest.fixture
def short_warm_up(monkeypatch):
    monkeypatch.setattr(engine_module, "WARM_UP_S", (1.0, 2.4))
    monkeypatch.setattr(room, "MAX_BATCH", 4)
    for module in (engine_module, whisper):
        monkeypatch.setattr(module, "PASS_FRAMES", (120, 240, 3000))

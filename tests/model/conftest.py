from collections.abc import Iterator

import pytest
from mirror import mirrored
from publisher import Publisher, open_publisher

from streamer.model import batch_limit, whisper
from streamer.model import engine as engine_module
from streamer.model.download import Sources


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as publisher:
        yield publisher


@pytest.fixture
def sources(publisher: Publisher) -> Sources:
    return mirrored(publisher.url)


@pytest.fixture
def short_warm_up(monkeypatch):
    monkeypatch.setattr(engine_module, "WARM_UP_S", (1.0, 2.4))
    monkeypatch.setattr(batch_limit, "MAX_BATCH", 4)
    for module in (engine_module, whisper):
        monkeypatch.setattr(module, "PASS_FRAMES", (120, 240, 3000))

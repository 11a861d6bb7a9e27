from collections.abc import Iterator

import pytest
from mirror import mirrored
from publisher import Publisher, open_publisher

from streamer.model.publishers import Sources


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as publisher:
        yield publisher


@pytest.fixture
def sources(publisher: Publisher) -> Sources:
    return mirrored(publisher.url)

import asyncio

import numpy as np

from streamer.runtime.inputs import IngestSource
from streamer.server.ingest import IngestStart, PcmQueue


def test_channels_that_cancel_are_heard_and_told_once():
    rate = 48_000
    tone = (9_000 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype("<i2")
    queue = PcmQueue(IngestStart(rate, 2), "in1")
    data = np.stack([tone, -tone], axis=1).tobytes()
    for at in range(0, len(data), 10_001):
        asyncio.run(queue.write(data[at : at + 10_001]))
    queue.finish()
    blocks = list(IngestSource(queue, 2.0).blocks())
    sound = np.concatenate([block.samples for block in blocks])
    assert len(sound) == 16_000
    assert np.abs(sound[2_000:]).max() > 0.25
    (notice,) = [block.notice for block in blocks if block.notice]
    assert "cancel each other out" in notice

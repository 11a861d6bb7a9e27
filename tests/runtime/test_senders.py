"""Senders on `/ingest`: how many there may be at once, beside those who read, and what is heard of their channels."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamer.runtime.inputs import Ingests, IngestSource
from streamer.server.actions import IngestFullError
from streamer.server.ingest import MAX_SENDERS, PcmQueue
from streamer.server.messages import IngestStart
from streamer.server.websocket import ServerThread
from streamer.settings.config import ServerSettings, Settings


def test_128_senders_are_heard_and_one_more_when_one_has_gone():
    made: list[Any] = []

    def make(item: Any) -> Any:
        made.append(SimpleNamespace(name=item.name, done=False, start=lambda: None))
        return made[-1]

    closed: list[str] = []
    ingests = Ingests(make, closed.append, Settings(), {})
    for _ in range(128):
        ingests.open(IngestStart(16_000))
    with pytest.raises(IngestFullError, match="128 senders"):
        ingests.open(IngestStart(16_000))
    made[3].done = True
    ingests.sweep()
    ingests.open(IngestStart(16_000))
    assert closed == [made[3].name]
    assert MAX_SENDERS == 128


def test_readers_take_no_senders_place():
    server = ServerThread(ServerSettings(port=0, max_clients=1))
    server.start()
    try:
        base = f"ws://127.0.0.1:{server.port}"
        with connect(f"{base}/ws") as reader, connect(f"{base}/ingest") as sender:
            reader.recv(10)
            with connect(f"{base}/ws") as second, pytest.raises(ConnectionClosed, match="1013"):
                second.recv(10)
            sender.send('{"type":"stop"}')  # it is heard, and told that this is no start
            assert "hello" in str(sender.recv(10))
            assert "must be start" in str(sender.recv(10))
    finally:
        server.stop()


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

"""What `/metrics` tells of the program itself, asked of the running one."""

import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import yaml
from program import Program, write_wav
from random_whisper import random_model

from streamer.alerts.deliveries import Deliveries
from streamer.errors import EngineError
from streamer.policy.hallucination import Guards
from streamer.runtime import numbers
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings


def test_whoever_watches_the_program_sees_that_alerts_wait(tmp_path):
    """The webhook's address has nobody behind it; the sound is loud enough for an alert."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000 * 60).astype(np.float32)
    loud = {"id": "din", "loud_dbfs": -30, "min_duration_s": 1, "severity": "critical"}
    delivery = {"from_files": True, "webhooks": [{"name": "house", "url": "http://127.0.0.1:9/"}]}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"alerts": {"rules": [loud]}, "delivery": delivery | {"spool": str(tmp_path)}}))
    sound = str(write_wav(tmp_path / "a.wav", noise))
    options = ("--config", str(config), "--input", sound, "--model", "nano", "--head", "none", "--port", "0")
    with Program(*options) as running:
        line = running.wait_for_stderr("captions and sounds: http://")
        address = line.split("captions and sounds: ")[1].split("/   ")[0]
        running.wait_for_stderr("webhook house: not delivered")
        deadline_s = time.monotonic() + 30
        while True:
            with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
                found = dict(row.rsplit(" ", 1) for row in answer.read().decode().splitlines() if row[0] != "#")
            if found['streamer_delivery_waiting{delivery="webhook house"}'] != "0":
                break
            assert time.monotonic() < deadline_s
        assert found['streamer_delivery_lost_total{delivery="webhook house"}'] == "0"
        assert found['streamer_part_restarts_total{part="worker"}'] == "0"
        assert any(name.startswith('streamer_part_restarts_total{part="listener",session="s1-') for name in found)


def test_what_failed_and_what_guards_withheld_is_counted():
    worker = Worker(None)
    lane = worker.add(Hearing(random_model(1), Settings(), "kitchen"), lambda events: None)
    lane.fall(EngineError("it failed"))
    guards: Guards = lane.hearing.session.text.guards
    guards.suppressed.update(["loop", "loop", "past"])

    pipeline = SimpleNamespace(lane=lane, listener_restarts=2)
    text = numbers.render({"kitchen": pipeline}, worker, Deliveries(()), None)
    assert 'streamer_part_restarts_total{part="session",session="kitchen"} 1' in text
    assert 'streamer_part_restarts_total{part="listener",session="kitchen"} 2' in text
    assert 'streamer_withheld_total{guard="loop",session="kitchen"} 2' in text

"""kill -9 in the middle of a sentence and of an alert; the same start again: who reads along misses nothing."""

import secrets
import socket
from pathlib import Path
from random import Random

import yaml
from program import write_wav

from streamer.audio.files import demo_path, read_audio
from streamer.bench.chaos.clients import Place
from streamer.bench.chaos.faults import World, ends_in_order, kill

LOUD = {"id": "above_60_db", "severity": "info", "loud_dbfs": -60, "clear_after_s": 60, "cooldown_s": 0}


def free_port() -> int:
    """The next start must have the one that clients come back to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def world(folder: Path) -> World:
    write_wav(folder / "room.wav", read_audio(demo_path())[: 40 * 16_000])
    token, port = secrets.token_hex(8), free_port()
    (folder / "token").write_text(token)
    settings = {
        "sources": [{"name": "room", "input": str(folder / "room.wav")}],
        "server": {"port": port, "token_file": str(folder / "token")},
        "history": {"persist": True, "path": str(folder / "events.log")},
        "alerts": {"rules": [LOUD]},
        "output": {"jsonl": str(folder / "events.jsonl"), "quiet": True},
        "model": {"name": "nano", "threads": 1},
    }
    (folder / "kill.yaml").write_text(yaml.safe_dump(settings))
    made = World(folder, Place(port, token), ["--config", str(folder / "kill.yaml")], (), (), Random(0))
    made.start()
    return made


def has(kind: str, **fields):
    return lambda event: event["type"] == kind and all(event[name] == value for name, value in fields.items())


def test_who_reads_along_goes_on_by_since_seq(tmp_path):
    tried = world(tmp_path)
    try:
        for start in range(2):
            since = tried.reader.count
            assert tried.reader.wait_for(has("alert", state="raised", id=start + 1), 0, 60)
            assert tried.reader.wait_for(lambda event: event.get("partial"), since, 60)
            kill(tried)
            alerts = [(event["id"], event["state"]) for event in tried.reader.events if event["type"] == "alert"]
            assert {(start + 1, "raised"), (start + 1, "cleared")} <= set(alerts)
            gaps = [event for event in tried.reader.events if event["type"] == "gap"]
            assert len(gaps) == start + 1
            assert gaps[-1]["reason"] == "the program was started again"
        ends_in_order(tried, within_s=60)  # a busy machine is no defect
    finally:
        tried.program.kill()
    seqs = [event["seq"] for event in tried.reader.events if event["type"] != "transcript"]
    assert len(set(seqs)) == len(seqs)

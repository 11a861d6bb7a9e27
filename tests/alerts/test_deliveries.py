"""Who is told of which alerts: what a file or the demo holds does not happen now."""

import json
import logging
import sys

import numpy as np
import pytest
import yaml
from alerts_made import alert
from program import Program, events_of, run, write_wav
from web_receiver import receiver

from streamer.alerts.deliveries import open_deliveries
from streamer.settings.config import validate

SOURCES = ("live", "file", "demo")


def everybody(url, told, **more):
    """A push, a webhook and a program."""
    code = "import os,sys; open(sys.argv[1],'a').write(os.environ['STREAMER_SOURCE']+' ')"
    push = {"name": "phone", "url": url.replace("http://", "json://").replace("?token=", "?+x-token=")}
    command = {"name": "bell", "argv": [sys.executable, "-c", code, str(told)], "at_once": 1}
    kinds = {"push": [push], "webhooks": [{"name": "house", "url": url}], "commands": [command]}
    return {"delivery": kinds | {"history": {"record": "never"}} | more}


@pytest.mark.parametrize(("given", "sources"), [({}, ["live"]), ({"from_files": True}, list(SOURCES))])
def test_nobody_is_told_of_what_a_file_holds_unless_the_settings_say_so(tmp_path, caplog, given, sources):
    caplog.set_level(logging.WARNING)
    with receiver() as server:
        settings = validate(everybody(server.url, tmp_path / "told", **given))
        deliveries = open_deliveries(settings, live=True, environment={"XDG_STATE_HOME": str(tmp_path)})
        deliveries.start()
        for id, source in enumerate(SOURCES, 1):
            deliveries.put([alert(id, source=source), alert(id, "cleared", source=source)])
        assert deliveries.stop(30)
    bodies = [json.loads(body) for _, body in server.got]
    assert [one["source"] for one in bodies if one.get("state") == "raised"] == sources
    pushed = [one["title"] for one in bodies if "title" in one]
    assert pushed[::2] == ["‼ Siren", "‼ (file) Siren", "‼ (demo) Siren"][: len(sources)]
    assert (tmp_path / "told").read_text().split() == [source for source in sources for _ in range(2)]
    assert caplog.text.count("alerts from a file are not delivered (delivery.from_files: false)") == (not given)


@pytest.mark.parametrize("given", [{}, {"from_files": True}])
def test_a_file_at_speed_0_from_the_sound_to_the_web_address(tmp_path, given):
    sound = write_wav(tmp_path / "loud.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 48_000).astype(np.float32))
    loud = {"id": "din", "loud_dbfs": -30, "min_duration_s": 1, "severity": "warning"}
    with receiver() as server:
        delivery = {"webhooks": [{"name": "house", "url": server.url}], **given}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"alerts": {"rules": [loud]}, "delivery": delivery}))
        options = ("--no-server", "--quiet", "--speed", "0", "--model", "nano", "--jsonl", "-")
        done = run("--config", str(config), "--input", str(sound), *options)
    shown = [event for event in events_of(done.stdout) if event["type"] == "alert" and event["rule"] == "din"]
    assert [(event["state"], event["source"]) for event in shown] == [("raised", "file"), ("cleared", "file")]
    assert [json.loads(body) for _, body in server.got] == (shown if given else [])
    assert ("not delivered" in done.stderr) == (not given)


def test_everybody_who_looks_at_streamer_is_told_that_alerts_do_not_reach_the_phone(tmp_path):
    """A deaf person relies on the phone and reads no log: the program says `degraded` until the service answers."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 16_000 * 40).astype(np.float32)
    loud = {"id": "din", "loud_dbfs": -30, "min_duration_s": 1, "severity": "critical", "repeat_s": 1}
    with receiver() as server:
        port = int(server.url.split(":")[2].split("/")[0])
    config = tmp_path / "config.yaml"
    delivery = {"from_files": True, "webhooks": [{"name": "house", "url": server.url}], "history": {"record": "never"}}
    delivery["spool"] = str(tmp_path)
    config.write_text(yaml.safe_dump({"alerts": {"rules": [loud]}, "delivery": delivery}))
    options = ("--no-server", "--quiet", "--model", "nano", "--head", "none", "--jsonl", "-")
    with Program("--config", str(config), "--input", str(write_wav(tmp_path / "a.wav", noise)), *options) as running:
        states = ((one["state"], one["detail"]) for one in running.events() if one["type"] == "status")
        trouble = next(one for one in states if one[0] == "degraded")
        assert trouble == ("degraded", "webhook house: alerts do not arrive (Connection refused)")
        with receiver(port):
            assert next(states) == ("listening", "")
        running.signal()
        assert running.wait(30) == 0
    with Program("--config", str(config), "--input", str(tmp_path / "a.wav"), *options) as again:
        told = (one for one in again.events() if one["type"] == "alert" or one.get("state") == "degraded")
        first = next(told)  # of what is left from before, and before there is another alert
        assert (first["type"], first["state"]) == ("status", "degraded")
        assert first["detail"] == trouble[1]
        again.signal()
        assert again.wait(30) == 0

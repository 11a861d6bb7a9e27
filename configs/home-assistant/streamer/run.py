"""What the add-on runs: the options that people chose in Home Assistant become settings, then Streamer is started."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPTIONS, SETTINGS = Path("/data/options.json"), Path("/data/settings.json")  # JSON is YAML too
SUPERVISOR = "http://supervisor"
WYOMING_PORT = 10300


def settings_of(options: Mapping[str, Any], broker: Mapping[str, Any] | None) -> dict[str, Any]:
    """Streamer's settings. `broker`: what the Supervisor says of MQTT; None: there is none."""
    server: dict[str, Any] = {"host": "0.0.0.0", "port": 8765, "hosts": list(options.get("hosts") or [])}
    server |= {"wyoming_port": WYOMING_PORT, "wyoming_host": "0.0.0.0"}
    sources: list[dict[str, Any]] = []
    if options.get("microphone", True):
        sources.append({"name": "home"})
    if options.get("senders", True) or not sources:
        sources.append({"name": "room", "input": "ingest"})
    found: dict[str, Any] = {
        "model": {"name": options.get("model") or "auto"},
        "speech": {"language": options.get("language") or None},
        "sources": sources,
        "server": server,
        "history": {"persist": bool(options.get("persist", True))},
        "output": {"quiet": True},
    }
    if broker is not None:
        mqtt = {"host": broker["host"], "port": int(broker["port"]), "tls": bool(broker.get("ssl"))}
        if broker.get("username"):
            mqtt |= {"username": broker["username"], "password_env": "MQTT_PASSWORD"}
        found["delivery"] = {"mqtt": {**mqtt, "device": "home_assistant_addon"}}
    return found


def ask(path: str, sent: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
    """What the Supervisor answers; None: it has nothing of the kind."""
    headers = {"Authorization": f"Bearer {os.environ.get('SUPERVISOR_TOKEN', '')}", "Content-Type": "application/json"}
    body = None if sent is None else json.dumps(sent).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(SUPERVISOR + path, body, headers), timeout=10) as answer:
            return dict(json.load(answer).get("data") or {})
    except (urllib.error.URLError, ValueError, OSError):
        return None


def main() -> None:
    """Write the settings and become Streamer."""
    options = json.loads(OPTIONS.read_text(encoding="utf-8"))
    if len(options.get("token") or "") < 8:
        sys.exit("token: choose one of at least 8 characters in the add-on's configuration; whoever has it reads along")
    broker = ask("/services/mqtt")
    SETTINGS.write_text(json.dumps(settings_of(options, broker), indent=1), encoding="utf-8")
    os.environ["STREAMER_TOKEN"] = options["token"]
    if broker is not None:
        os.environ["MQTT_PASSWORD"] = str(broker.get("password") or "")
    here = os.uname().nodename
    ask("/discovery", {"service": "wyoming", "config": {"uri": f"tcp://{here}:{WYOMING_PORT}"}})
    os.execvp("streamer", ["streamer", "run", "--config", str(SETTINGS)])


if __name__ == "__main__":
    main()

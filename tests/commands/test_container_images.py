"""The container files and the add-on, as far as that can be seen without an engine that runs them."""

import importlib.util
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from streamer.commands.cli import parser
from streamer.settings.config import Settings, resolve

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS, ADDON = ROOT / "configs" / "containers", ROOT / "configs" / "home-assistant" / "streamer"


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, without comments and line ends."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = filter(None, (line.strip() for line in text.replace("\\\n", " ").splitlines()))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def run_script():
    spec = importlib.util.spec_from_file_location("streamer_addon_run", ADDON / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def addon() -> dict:
    return yaml.safe_load((ADDON / "config.yaml").read_text())


def validated(given: dict, folder: Path) -> Settings:
    (folder / "given.json").write_text(json.dumps(given))
    return resolve([folder / "given.json"], [], {})


@pytest.mark.parametrize(("path", "context"), [(CONTAINERS / "Dockerfile", ROOT), (ADDON / "Dockerfile", ADDON)])
def test_what_is_copied_is_there(path, context):
    for name, rest in instructions(path):
        if name == "COPY" and "--from=" not in rest:
            for source in rest.split()[:-1]:
                assert source == "streamer-*.whl" or (context / source).exists(), source
        assert name != "ADD"


def test_what_the_ignore_file_lets_in_is_what_is_copied():
    kept = {line[1:] for line in (CONTAINERS / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    copied = [rest.split()[:-1] for name, rest in instructions(CONTAINERS / "Dockerfile") if name == "COPY"]
    assert kept == {source for sources in copied for source in sources if not source.startswith(("--", "/"))}


def test_the_image_is_not_roots_and_is_looked_after():
    last = dict(instructions(CONTAINERS / "Dockerfile"))
    assert last["USER"] == "10001"
    assert "/healthz" in last["HEALTHCHECK"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in (CONTAINERS / "Dockerfile", ADDON / "Dockerfile"):
        named = re.findall(r"\[(\w+(?:,\w+)*)\]['\"]", path.read_text())
        assert named
        assert all(set(one.split(",")) <= set(extras) for one in named)


def test_the_command_is_one_that_streamer_knows():
    last = dict(instructions(CONTAINERS / "Dockerfile"))
    shell, option, script, *_ = json.loads(last["ENTRYPOINT"])
    assert (shell, option) == ("sh", "-c")
    words = shlex.split(script)
    assert words[:2] == ["exec", "streamer"]
    parser().parse_args(["run", "--model", "tiny.en", *json.loads(last["CMD"])])


def test_compose_gives_away_nothing_and_its_settings_are_right():
    composed = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())
    for name in ("streamer", "mosquitto"):
        service = composed["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    settings = resolve([CONTAINERS / "streamer.yaml"], [], {})
    mqtt = settings.delivery.mqtt
    assert mqtt.host in composed["services"]
    assert f"export {mqtt.password_env}=" in composed["services"]["streamer"]["entrypoint"][2]
    assert settings.history.persist
    over = yaml.safe_load((CONTAINERS / "compose.cuda.yaml").read_text())
    assert set(over["services"]) <= set(composed["services"])
    arguments = {rest.partition("=")[0] for name, rest in instructions(CONTAINERS / "Dockerfile") if name == "ARG"}
    assert set(over["services"]["streamer"]["build"]["args"]) <= arguments


def test_the_broker_may_write_its_passwords():
    """Root without CAP_DAC_OVERRIDE may write only in what is root's."""
    broker = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]["mosquitto"]
    assert "mosquitto_passwd -b -c /run/mosquitto/passwords" in broker["entrypoint"][2]
    (place,) = broker["tmpfs"]
    assert place.startswith("/run/mosquitto:")
    assert "uid=" not in place or "DAC_OVERRIDE" in broker["cap_add"]


def test_the_add_on_is_what_the_supervisor_takes():
    """Its fields as Home Assistant documents them (developers.home-assistant.io, Add-on configuration)."""
    given = addon()
    documented = {
        "name",
        "version",
        "slug",
        "description",
        "url",
        "arch",
        "startup",
        "boot",
        "init",
        "audio",
        "services",
    }
    documented |= {"discovery", "ports", "ports_description", "watchdog", "backup_exclude", "options", "schema"}
    assert set(given) <= documented  # what is not known is dropped without a word
    assert re.fullmatch(r"[-_.A-Za-z0-9]+", given["slug"])
    assert set(given["arch"]) <= {"amd64", "aarch64"}
    assert given["startup"] in {"initialize", "system", "services", "application", "once"}
    assert given["boot"] in {"auto", "manual"}
    assert all(re.fullmatch(r"(mqtt|mysql):(provide|want|need)", one) for one in given["services"])
    assert re.match(r"(https?|\[PROTO:\w+\]|tcp)://\[HOST\]:(\[PORT:\d+\]|\d+)", given["watchdog"])
    assert set(given["ports"]) == set(given["ports_description"])
    assert all(re.fullmatch(r"\d+/(tcp|udp)", port) for port in given["ports"])
    kinds = [kind for one in given["schema"].values() for kind in (one if isinstance(one, list) else [one])]
    assert all(
        re.fullmatch(r"(bool|email|url|port|(str|password|int|float)(\([\d.]*,[\d.]*\))?)\??", one) for one in kinds
    )
    for path in (ADDON / "translations").glob("*.yaml"):
        told = yaml.safe_load(path.read_text())
        assert set(told["configuration"]) == set(given["schema"])
        assert all(set(one) <= {"name", "description"} for one in told["configuration"].values())


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_the_broker_starts_with_its_settings_and_lets_nobody_in_without_a_password(tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    passwords, config = tmp_path / "passwords", tmp_path / "mosquitto.conf"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "streamer", "secret"], check=True, timeout=30)
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)
    given = (CONTAINERS / "mosquitto.conf").read_text()
    changes = {"listener 1883": f"listener {port} 127.0.0.1", "/run/mosquitto/passwords": str(passwords)}
    changes |= {"persistence_location /mosquitto/data/": f"persistence_location {tmp_path}/"}
    for before, after in changes.items():
        assert before in given
        given = given.replace(before, after)
    config.write_text(f"{given}user root\n")
    with subprocess.Popen(["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL) as broker:
        try:
            assert [connected(port, password) for password in (None, "wrong", "secret")] == [False, False, True]
        finally:
            broker.terminate()


def connected(port: int, password: str | None) -> bool:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client, answers = Client(CallbackAPIVersion.VERSION2), []
    client.on_connect = lambda client, data, flags, reason, properties: answers.append(not reason.is_failure)
    if password:
        client.username_pw_set("streamer", password)
    for _ in range(100):
        try:
            client.connect("127.0.0.1", port)
            break
        except OSError:
            time.sleep(0.1)
    while not answers:
        client.loop(0.1)
    client.disconnect()
    return answers[0]


def test_the_add_on_is_of_this_version_and_each_option_is_explained():
    given = addon()
    assert given["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(given["options"]) == set(given["schema"])
    for path in (ADDON / "translations").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())["configuration"]) == set(given["options"]), path
    assert {"name", "url", "maintainer"} <= set(yaml.safe_load((ADDON.parent / "repository.yaml").read_text()))
    script = (ADDON / "run.py").read_text()
    assert all(f'"{name}"' in script for name in given["options"])


@pytest.mark.parametrize("microphone", [False, True])
@pytest.mark.parametrize("senders", [False, True])
@pytest.mark.parametrize("broker", [None, {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons"}])
def test_whatever_people_choose_becomes_settings(microphone, senders, broker, tmp_path):
    script = run_script()
    options = addon()["options"] | {"microphone": microphone, "senders": senders, "language": "de"}
    settings = validated(script.settings_of(options, broker), tmp_path)
    assert settings.server.wyoming_port == script.WYOMING_PORT == 10300
    assert f"{settings.server.port}/tcp" in addon()["ports"]
    assert settings.delivery.mqtt.host == (broker and broker["host"])
    assert settings.speech.language == "de"
    assert len(settings.sources) == max(1, microphone + senders)
    assert validated(script.settings_of({}, None), tmp_path).model.name == "auto"

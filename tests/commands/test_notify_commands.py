"""`streamer alerts test` and `streamer alerts phone`, against a web server that plays ntfy."""

import json
import sys
from pathlib import Path

import pytest
import yaml

import streamer.commands.cli
from streamer.output import qr_code
from streamer.settings.config import resolve

sys.path.append(str(Path(__file__).parents[1] / "alerts"))
from web_receiver import receiver


def run(capsys, *arguments, status=0):
    assert streamer.commands.cli.main(["alerts", *arguments]) == status
    return capsys.readouterr()


@pytest.fixture
def server():
    with receiver() as state:
        state.base = state.url.split("/hook")[0]
        yield state


def own(tmp_path):
    return tmp_path / "config" / "streamer" / "config.yaml"  # see conftest.py


def test_a_line_for_each_delivery_and_status_1_where_one_fails(server, capsys, tmp_path):
    hooks = [{"name": "house", "url": server.url}, {"name": "gone", "url": "http://127.0.0.1:9/"}]
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"delivery": {"webhooks": hooks}}))
    lines = run(capsys, "test", "--config", str(config), status=1).out.splitlines()
    assert lines[0].startswith("webhook house (127.0.0.1): delivered after ")
    assert lines[1] == "webhook gone (127.0.0.1): NOT delivered: Connection refused"
    assert run(capsys, "test", "--config", str(config), "--to", "house", "--rule", "dog").out.count("\n") == 1
    assert json.loads(server.got[-1][1])["rule"] == "dog"
    refused = run(capsys, "test", status=2).err
    assert refused == "streamer: no delivery is configured: `streamer alerts phone` sets one up; see docs/alerts.md\n"
    run(capsys, "history")
    assert not (tmp_path / "state" / "streamer" / "alerts.jsonl").exists()


def test_a_phone_in_two_steps(server, capsys, tmp_path):
    shown = run(capsys, "phone", "--server", server.base).out
    settings = resolve([], [], {})  # one's own file, which is there now
    url = settings.delivery.push[0].url.get_secret_value()
    topic = url.rsplit("/", 1)[1]
    assert (len(topic), own(tmp_path).stat().st_mode & 0o777) == (33, 0o600)
    assert own(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert f"{server.base}/{topic}" in shown
    assert qr_code.for_terminal(f"{server.base}/{topic}", colours=False) in shown
    before, after = shown.split("push phone (ntfy): delivered after ")
    assert "tells it of alerts" not in before
    assert "Does the phone show the test? Then `streamer run` tells it of alerts." in after
    told = json.loads(server.got[0][1])
    assert (told["topic"], "TEST" in told["title"]) == (topic, True)
    again = run(capsys, "phone", "--svg", str(tmp_path / "code.svg")).out  # for a second phone: the same topic
    assert f"{server.base}/{topic}" in again
    assert (tmp_path / "code.svg").read_text() == qr_code.as_svg(f"{server.base}/{topic}")
    other = run(capsys, "phone", "--server", "https://ntfy.example.org", status=2).err
    assert f"--server: 'phone' is at {server.base} already" in other
    assert resolve([], [], {}) == settings


def test_a_file_that_somebody_wrote_is_not_changed(server, capsys, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("# mine\nspeech: {language: en}\n")
    shown = run(capsys, "phone", "--config", str(config), "--server", server.base).out
    assert config.read_text() == "# mine\nspeech: {language: en}\n"
    assert not own(tmp_path).exists()
    pasted = yaml.safe_load(shown.split("under `delivery:`\n\n")[1].split("\n\n")[0])
    assert pasted["delivery"]["push"][0]["url"].startswith("ntfy://127.0.0.1:")
    assert f"Then once the lines above stand in {config}, `streamer run --config {config}` tells it" in shown


def test_nothing_is_promised_of_a_phone_that_the_test_did_not_reach(capsys, tmp_path):
    shown = run(capsys, "phone", "--server", "http://127.0.0.1:9", status=1).out
    assert "push phone (ntfy): NOT delivered" in shown
    assert shown.endswith("; `streamer alerts test --to phone` tries again.\n")
    assert "tells it of alerts" not in shown


def test_a_given_file_that_is_not_there_is_written(server, capsys, tmp_path):
    config = tmp_path / "new" / "phone.yaml"
    shown = run(capsys, "phone", "--config", str(config), "--server", server.base).out
    assert f"`streamer run --config {config}` tells it of alerts" in shown
    assert resolve([config], [], {}).delivery.push[0].name == "phone"


def test_two_phones_never_have_a_topic_in_common(server, capsys, tmp_path):
    for name in ("a", "b"):
        run(capsys, "phone", "--config", str(tmp_path / name), "--server", server.base)
    assert len({json.loads(body)["topic"] for _, body in server.got}) == 2


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("ntfys://ntfy.sh/streamer-x", "https://ntfy.sh/streamer-x"),
        ("ntfys://streamer-x", "https://ntfy.sh/streamer-x"),
        ("ntfy://house:81/x", "http://house:81/x"),
    ],
)
def test_a_topic_that_is_there_is_shown(url, web, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("streamer.commands.notify._tell", lambda *asked: 0)  # to ntfy.sh: nothing leaves a test
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"delivery": {"push": [{"name": "phone", "url": url}]}}))
    assert f"subscribe in the app to\n   {web}\n" in run(capsys, "phone", "--config", str(config)).out


def test_wrong_addresses_are_one_line(capsys, tmp_path):
    for given in ("ntfy.example.org", "https://ntfy.example.org/topic", "ftp://x"):
        assert "--server: must be a server such as https://" in run(capsys, "phone", "--server", given, status=2).err
    config = tmp_path / "mine.yaml"
    config.write_text("delivery: {push: [{name: phone, url: 'tgram://topsecret/1'}]}\n")
    shown = run(capsys, "phone", "--config", str(config), status=2)
    assert "is no ntfy topic that could be shown" in shown.err
    assert "topsecret" not in shown.err + shown.out


def test_without_the_library_there_is_the_address_and_what_to_install(server, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "segno", None)  # as where it is not installed
    shown = run(capsys, "phone", "--server", server.base).out
    assert "pip install '.[notify]' in Streamer's folder" in shown
    assert f"{server.base}/streamer-" in shown
    refused = run(capsys, "phone", "--svg", str(tmp_path / "x.svg"), status=2).err
    assert "--svg" in refused
    assert "pip install '.[notify]' in Streamer's folder" in refused

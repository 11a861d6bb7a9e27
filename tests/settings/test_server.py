"""Where the server's token comes from, and that it is shown nowhere."""

import logging
import os

import pytest

from streamer.commands.cli import parser
from streamer.commands.run import given_settings
from streamer.errors import ConfigError
from streamer.settings import server
from streamer.settings.config import resolve
from streamer.settings.server import ServerSettings, with_token

TOKEN, OTHER = "a-long-token", "another-long-token"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nnot this line\n")
    path.chmod(0o600)
    return path


def given(*arguments: str, files=()) -> ServerSettings:
    return resolve(files, (), given_settings(parser().parse_args(["run", *arguments]))).server


def test_a_file_or_the_environment_gives_the_token(file):
    assert with_token(ServerSettings(token_file=str(file)), {}).token == TOKEN
    assert with_token(ServerSettings(), {"STREAMER_TOKEN": f" {TOKEN}\n"}).token == TOKEN
    assert with_token(ServerSettings(), {}).token is None


def test_what_is_nearer_comes_first(file, tmp_path):
    environment = {"STREAMER_TOKEN": OTHER}
    assert with_token(given("--token-file", str(file)), environment).token == TOKEN
    assert with_token(given("--token", TOKEN), environment).token == TOKEN
    config = tmp_path / "config.yaml"
    config.write_text(f"server: {{token: {OTHER}}}")
    assert with_token(given("--token-file", str(file), files=[config]), environment).token == TOKEN
    config.write_text(f"server: {{token_file: {file}}}")
    assert with_token(given("--token", OTHER, files=[config]), environment).token == OTHER


def test_two_are_one_too_many(file):
    with pytest.raises(ConfigError, match="give only one of them"):
        given("--token-file", str(file), "--token", TOKEN)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe\x00\x01\x02\x03\x04\x05\n", "zu-kürz-und-ä".encode()])
def test_what_is_no_token_is_refused_by_name_and_not_shown(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"--token-file {path}: ") as caught:
        with_token(ServerSettings(token_file=str(path)), {})
    assert "\n" not in str(caught.value)
    assert "short" not in str(caught.value)
    with pytest.raises(ConfigError, match="STREAMER_TOKEN: the token must be at least 8"):
        with_token(ServerSettings(), {"STREAMER_TOKEN": "short"})


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        with_token(ServerSettings(token_file=str(tmp_path / "none")), {})
    assert with_token(ServerSettings(token_file=str(tmp_path / "none"), enabled=False), {}).token is None


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
def test_it_is_said_when_others_can_read_the_file(file, caplog):
    with caplog.at_level(logging.WARNING):
        with_token(ServerSettings(token_file=str(file)), {})
        assert not caplog.records
        file.chmod(0o640)
        with_token(ServerSettings(token_file=str(file)), {})
    (record,) = caplog.records
    assert "chmod 600" in record.getMessage()
    assert TOKEN not in caplog.text


def test_nobody_is_told_of_the_rights_of_a_containers_secret(file, caplog, monkeypatch):
    monkeypatch.setattr(server, "SECRETS", file.parent)
    file.chmod(0o444)
    assert with_token(ServerSettings(token_file=str(file)), {}).token == TOKEN
    assert not caplog.records


def test_settings_that_are_printed_show_the_file_and_no_token(file):
    settings = resolve((), (), {"server.token_file": str(file)})
    assert str(file) in settings.to_yaml()
    assert TOKEN not in settings.to_yaml()
    assert TOKEN not in repr(with_token(settings.server, {}))


def test_proxies_are_addresses():
    assert ServerSettings(proxies=("127.0.0.1", "::1")).proxies == ("127.0.0.1", "::1")
    with pytest.raises(ConfigError, match=r"server\.proxies: must be addresses"):
        resolve((), ("server.proxies=[proxy.example]",), {})

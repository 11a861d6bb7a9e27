"""`streamer serve`: senders bring the sound, and nothing else does unless it is named."""

import pytest
import yaml

from streamer.commands.cli import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--input", "demo"), "--input demo: `streamer serve` hears who sends; `streamer run --input demo` plays"),
        (("--set", "audio.input=demo"), "--input demo: `streamer serve` hears who sends"),
        (("--no-server",), "--no-server: without the server nobody can send sound to `streamer serve`"),
        (("--speed", "0"), "--input ingest: senders cannot be heard at --speed 0"),
        (("--replicas", "2..8"), "--replicas: engines of a cluster; give --cluster, too"),
        (("--replicas", "2..", "--cluster"), "--replicas: invalid value: '2..'; 2, or 2..8"),
        (("--replicas", "8..2", "--cluster"), "cluster: max_replicas: must be at least replicas (8); is 2"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], arguments, says):
    assert main(["serve", *arguments]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(("given", "found"), [("3", (3, None)), ("2..8", (2, 8))])
def test_engines_are_a_number_or_a_range(capsys: pytest.CaptureFixture[str], given, found):
    assert main(["serve", "--cluster", "--replicas", given, "--print-config"]) == 0
    cluster = yaml.safe_load(capsys.readouterr().out)["cluster"]
    assert (cluster["replicas"], cluster["max_replicas"]) == found

"""A file that is plainly no settings is called what it is, and what takes it is named."""

from pathlib import Path

import pytest

from streamer.commands.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "audiogram:\n  left: {500: 20}\n  right: {500: 25}\n",
            "an audiogram: `streamer run --monitor OUTPUT --set mon",
        ),
        ("left: {500: 20}\nright: {500: 25}\n", "an audiogram: "),
        ("rules:\n  - {id: dog, enabled: false}\n", "alert rules: in settings they stand below `alerts:`"),
        ("- {id: dog, enabled: false}\n", "alert rules: "),
        ("damn\nhell\n# birds are not meant\ntit\n", "a list of words: `--set speech.mask="),
        ((ROOT / "configs/train_head.yaml").read_text(), "what a training does: `streamer train head --config "),
        ((ROOT / "configs/train_ears.yaml").read_text(), "what a training does: `streamer train head --config "),
        ((ROOT / "configs/train_nano.yaml").read_text(), "what a training does: `streamer train nano --config "),
        ((ROOT / "streamer/data/heads/base.json").read_text(), "what belongs to a tagging head: "),
        ((ROOT / "streamer/data/nano.json").read_text(), "what belongs to a checkpoint: "),
        ((ROOT / "configs/containers/compose.yaml").read_text(), "for containers: `docker compose"),
        ((ROOT / "configs/cluster/ray.yaml").read_text(), "for Ray's own launcher: "),
        ((ROOT / "configs/home-assistant/streamer/config.yaml").read_text(), "an add-on of Home Assistant"),
    ],
)
@pytest.mark.parametrize("command", [("check-config",), ("run", "--config")])
def test_a_file_of_another_kind_is_named(tmp_path, capsys, command, content, says):
    path = tmp_path / "file.yaml"
    path.write_text(content)
    assert main([*command, str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"streamer: {path}: not settings, but {says}")


def test_settings_are_never_taken_for_something_else(capsys):
    files = [path for path in (ROOT / "configs").glob("*.yaml") if not path.name.startswith("train_")]
    files += [ROOT / "configs/containers/streamer.yaml", ROOT / "configs/cluster/cluster.yaml"]
    files += [ROOT / "streamer/data/alerts.yaml"]
    assert main(["check-config", *map(str, files)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [("this is prose\nand nothing else\n", "must be a mapping of sections"), ("windo: {}\n", "windo: unknown key")],
)
def test_what_nobody_knows_is_refused_as_settings(tmp_path, capsys, content, says):
    path = tmp_path / "file.yaml"
    path.write_text(content)
    assert main(["check-config", str(path)]) == 2
    assert says in capsys.readouterr().err

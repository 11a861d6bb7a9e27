import tomllib
from pathlib import Path

import pytest

from streamer.commands import train
from streamer.commands.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("what", [["nano"], ["sirens", "--data", "x"], ["t4", "--data", "x"]])
def test_recipes_run_from_a_checkout(what, monkeypatch, capsys):
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    assert main(["train", *what]) == 2
    said = capsys.readouterr().err
    assert f"train {what[0]}: runs from a checkout" in said
    assert said.count("\n") == 1


def test_recipes_are_left_out_of_the_wheel():
    setuptools = pytest.importorskip("setuptools")
    find = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = setuptools.find_packages(ROOT, **find)
    assert "streamer.training.context" in packages
    assert not [name for name in packages if name.startswith("streamer.recipes")]

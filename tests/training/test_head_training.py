import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tiny_data import SOUNDS, head_config, head_settings, write_backbone, write_manifest

from streamer.errors import CheckpointError, ConfigError, InputError
from streamer.model.checkpoint import load_model
from streamer.model.head import HeadKind, load_head
from streamer.sound import labels
from streamer.training import evaluation, trainer
from streamer.training.head_settings import HeadTraining, RecipeSection, read_settings
from streamer.training.head_training import compare_heads, main, train_head
from streamer.training.manifests import ManifestSettings
from streamer.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    write_manifest(folder)
    write_backbone(folder)
    return folder


def _out(settings: HeadTraining, path) -> HeadTraining:
    return settings.model_copy(update={"out": path})


def _weights(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("kind", list(HeadKind))
def test_every_kind_trains_and_loads(place, tmp_path, kind):
    settings = head_settings(place, epochs=2, average_from=2)
    settings = settings.model_copy(update={"head": settings.head.model_copy(update={"kind": kind})})
    made = train_head(_out(settings, tmp_path / "x_at.pth"), ALONE)
    assert all(key.startswith("at_model.") for key in _weights(made.path))
    head = load_head(made.path)
    assert head.module.shape.kind is kind
    assert len(made.losses) == 2


def test_a_head_learns_what_it_was_shown_and_nothing_else(place, tmp_path):
    settings = head_settings(
        place, epochs=100, average_from=81, rate=1e-2, mixup=0.0, time_mask_share=0.0, spans_s=(10,)
    )
    settings = settings.model_copy(update={"head": settings.head.model_copy(update={"kind": HeadKind.WA_MLP})})
    made = train_head(_out(settings, tmp_path / "x_at.pth"), ALONE)
    assert made.losses[-1] < 0.2 * made.losses[0]
    described = json.loads(made.path.with_suffix(".json").read_text())
    assert described["trained_spans_s"] == [10.0, 10.0]
    assert (described["kind"], described["backbone"]) == ("wa_mlp", "tiny")
    report = evaluation.main(
        str(place / "tiny.pt"),
        [ManifestSettings(path=place / "manifest.csv")],
        tmp_path / "eval",
        head=str(made.path),
        split="train",
        cache=place / "taps",
        dtype="float32",
        device="cpu",
        progress=False,
    )
    assert report.result["spans"][0]["mAP"] > 0.9
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"tags.json", "tags.md", "tags.png"}
    assert json.loads((tmp_path / "eval" / "tags.json").read_text())["spans"][1]["span_s"] == 1.0
    model = load_model(place / "tiny.pt", head=made.path, device="cpu", dtype="float32")
    scores = model.probabilities(model.tag(30 * torch.randn(4, 2, 12, 64)))
    trained = [labels.find(name).index for name in SOUNDS]
    others = [index for index in range(527) if index not in trained]
    assert float(scores[:, others].max()) < 1e-6


class _StopHereError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_a_stopped_run_goes_on_to_the_same_bits(place, tmp_path, monkeypatch, stop_after):
    settings = head_settings(place, save_every_steps=1)
    train_head(_out(settings, tmp_path / "whole_at.pth"), ALONE)
    calls, save = [], trainer.save

    def save_and_stop(run, path):
        save(run, path)
        calls.append(1)
        if len(calls) == stop_after:
            raise _StopHereError

    monkeypatch.setattr(trainer, "save", save_and_stop)
    stopped = _out(settings, tmp_path / "stopped_at.pth")
    with pytest.raises(_StopHereError):
        train_head(stopped, ALONE)
    assert not stopped.out.exists()
    monkeypatch.setattr(trainer, "save", save)
    train_head(stopped, ALONE)
    assert (tmp_path / "stopped_at.pth").read_bytes() == (tmp_path / "whole_at.pth").read_bytes()
    assert trainer.load_safely(tmp_path / "stopped_at.pth.training", "state")["losses"] == pytest.approx(
        trainer.load_safely(tmp_path / "whole_at.pth.training", "state")["losses"], rel=1e-4
    )


def _command(folder, out, *overrides):
    config = folder / "train_head.yaml"
    config.write_text(yaml.safe_dump(head_config(folder, epochs=24, average_from=13, save_every_steps=1)))
    code = (
        "import sys; from pathlib import Path; from streamer.training.head_training import main; "
        "main(Path(sys.argv[1]), sys.argv[2:], progress=False)"
    )
    return [sys.executable, "-c", code, str(config), f"out={out}", "head.kind=wa_tr", *overrides]


def test_a_killed_process_goes_on_to_the_same_bits(place, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(_command(place, tmp_path / "killed_at.pth"), env=environment)
    state = tmp_path / "killed_at.pth.training"
    deadline = time.monotonic() + 120
    while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    content = trainer.load_safely(state, "state")
    assert content["epoch"] < 24
    subprocess.run(_command(place, tmp_path / "killed_at.pth"), env=environment, check=True)
    subprocess.run(_command(place, tmp_path / "whole_at.pth"), env=environment, check=True)
    assert (tmp_path / "killed_at.pth").read_bytes() == (tmp_path / "whole_at.pth").read_bytes()


def test_two_processes_train_what_one_does(place, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    few = ("recipe.epochs=5", "recipe.average_from=4", f"features.cache={tmp_path / 'taps'}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    two = subprocess.run(
        [*launch, *_command(place, tmp_path / "two_at.pth", *few)], env=environment, capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr
    main(place / "train_head.yaml", (f"out={tmp_path / 'one_at.pth'}", "head.kind=wa_tr", *few), progress=False)
    one, both = _weights(tmp_path / "one_at.pth"), _weights(tmp_path / "two_at.pth")
    for name, value in one.items():
        assert torch.allclose(value, both[name], atol=1e-4), name


def test_a_state_of_other_settings_is_refused(place, tmp_path):
    settings = _out(head_settings(place), tmp_path / "x_at.pth")
    train_head(settings, ALONE)
    other = settings.model_copy(update={"seed": 9})
    with pytest.raises(CheckpointError, match="belongs to other settings"):
        train_head(other, ALONE)


def test_a_head_goes_on_from_another_and_from_no_other_shape(place, tmp_path):
    first = train_head(_out(head_settings(place, epochs=2, average_from=2), tmp_path / "one.pth"), ALONE)
    settings = _out(head_settings(place, epochs=1, average_from=1, rate=1e-9), tmp_path / "two.pth")
    on = settings.model_copy(update={"head": settings.head.model_copy(update={"start": first.path})})
    second = _weights(train_head(on, ALONE).path)
    assert all(torch.allclose(value, second[name], atol=1e-5) for name, value in _weights(first.path).items())
    far = _out(head_settings(place, epochs=1, average_from=1, rate=0.1), tmp_path / "far.pth")
    moved = {}
    for keep in (0.0, 0.9):
        head = far.head.model_copy(update={"start": first.path, "keep": keep})
        made = far.model_copy(update={"head": head, "out": tmp_path / f"far{keep}.pth"})
        weights = _weights(train_head(made, ALONE).path)
        moved[keep] = sum(float((value - weights[name]).abs().sum()) for name, value in _weights(first.path).items())
    assert moved[0.9] == pytest.approx(0.1 * moved[0.0], rel=0.05)
    other = on.model_copy(update={"head": on.head.model_copy(update={"kind": HeadKind.WA_MLP})})
    with pytest.raises(InputError, match=r"head\.start: .*one\.pth is .* what is to be trained is"):
        train_head(_out(other, tmp_path / "three.pth"), ALONE)


def test_the_rate_warms_up_and_decays_as_written():
    recipe = RecipeSection(rate=1.0, decay_from=15, decay_every=5, decay=0.75, warmup_steps=4)
    assert [trainer.rate(recipe, 1, step) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]
    assert [trainer.rate(recipe, epoch, 99) for epoch in (14, 15, 19, 20)] == [1.0, 0.75, 0.75, 0.75**2]


def test_settings_are_refused_by_key(place, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(head_config(place)))
    assert read_settings(path, HeadTraining, ("recipe.epochs=7",)).recipe.epochs == 7
    with pytest.raises(ConfigError, match=r"recipe\.batch"):
        read_settings(path, HeadTraining, ("recipe.batch=0",))
    with pytest.raises(ConfigError, match=r"recipe.*average_from is 9"):
        read_settings(path, HeadTraining, ("recipe.average_from=9",))
    with pytest.raises(ConfigError, match="out is x"):
        read_settings(path, HeadTraining, ("out=x.pt",))


@pytest.mark.parametrize("name", ["train_head", "train_ears", "train_ears_on"])
def test_the_shipped_configurations_are_valid(name):
    settings = read_settings(Path(__file__).parents[2] / "configs" / f"{name}.yaml", HeadTraining)
    assert settings.head.kind is HeadKind.TL_TR


def test_keeping_needs_a_start(place, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(head_config(place)))
    with pytest.raises(ConfigError, match=r"head: keep is 0\.5: it needs a start"):
        read_settings(path, HeadTraining, ("head.keep=0.5",))


def test_kinds_are_compared_and_an_existing_head_stands_beside_them(tmp_path):
    write_manifest(tmp_path)
    write_backbone(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(head_config(tmp_path, epochs=2, average_from=2)))
    kinds = (HeadKind.LAST_MLP, HeadKind.WA_MLP)
    compare_heads(config, tmp_path / "a", kinds=kinds[:1], rates=(1e-3,), seeds=1, progress=False)
    beside = [tmp_path / "a" / "last_mlp_0.001_0.pth"]
    report = compare_heads(
        config, tmp_path / "b", kinds=kinds, rates=(1e-3, 1e-2), seeds=2, beside=beside, progress=False
    )
    heads = report.result["heads"]
    assert [row["head"] for row in heads] == ["last_mlp", "wa_mlp", beside[0].name]
    assert {row["rate"] for row in heads[:2]} <= {"0.001", "0.01"}
    assert heads[2]["rate"] is None
    assert len(list((tmp_path / "b").glob("*.pth"))) == 6
    assert (tmp_path / "b" / "heads.md").is_file()

"""The heads that come with Streamer: found by the weights they were taught for, and of use from the first seconds."""

import json
from importlib.resources import files

import numpy as np
import pytest

import streamer
from streamer.model import catalog
from streamer.model.checkpoint import load_module
from streamer.model.head import CLASSES, HeadDescription, bundled_head
from streamer.model.whisper import Model
from streamer.settings.rules import AlertRules

NAMES = ("tiny.en", "base")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if catalog.on_disk(request.param) is None:
        pytest.skip(f"needs {request.param} on disk: `streamer pull {request.param}`")
    return str(request.param)


@pytest.mark.parametrize("head", NAMES)
def test_its_description_holds_what_serving_needs(head: str) -> None:
    text = files("streamer").joinpath(f"data/heads/{head}.json").read_text(encoding="utf-8")
    described = HeadDescription.model_validate_json(text)
    assert described.thresholds is not None
    assert described.calibration is not None
    assert described.trained_classes is not None
    assert 100 < len(described.trained_classes) < CLASSES
    assert json.loads(text)["backbone"] == head
    fitted = {rule.id: rule for rule in AlertRules.default().fitted(described.rules).rules}
    for rule, fields in described.rules.items():
        assert {key: getattr(fitted[rule], key) for key in fields} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }


def test_it_is_found_for_its_weights_and_for_no_others(name: str) -> None:
    encoder = load_module(name).encoder
    found = bundled_head(encoder)
    assert found is not None
    assert found.name == name
    found.check_fits(len(encoder.blocks), encoder.ln_post.weight.shape[0], name)
    encoder.conv1.weight.data *= 1.01
    assert bundled_head(encoder) is None


def test_five_seconds_of_a_smoke_alarm_raise_one_alert_and_speechless_noise_none(name: str) -> None:
    model = streamer.load_model(name)
    assert model.head is not None
    time = np.arange(5 * 16_000) / 16_000
    beeps = np.sin(2 * np.pi * 3150 * time) * ((time % 1.0) < 0.5)
    hiss = np.random.default_rng(0).normal(0, 1e-3, 11 * 16_000)
    alarm = hiss.copy()
    alarm[3 * 16_000 : 8 * 16_000] += 0.2 * beeps
    raised = {kind: _raised(model, samples) for kind, samples in (("alarm", alarm), ("hiss", hiss))}
    assert [rule for rule, _ in raised["alarm"]] == ["smoke_alarm"]
    assert raised["alarm"][0][1] <= 8
    assert raised["hiss"] == []


def _raised(model: Model, samples: np.ndarray) -> list[tuple[str, float]]:
    stream = streamer.Stream(model)
    events = [event for at in range(0, len(samples), 8000) for event in stream.push(samples[at : at + 8000])]
    events += stream.finish()
    told = [json.loads(event.to_json()) for event in events]
    return [(e["rule"], e["audio_t"]) for e in told if e["type"] == "alert" and e["state"] == "raised"]

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nano_bank import small_bank

from streamer.errors import ConfigError, InputError
from streamer.recipes.nano import loop, tagging
from streamer.recipes.nano.batches import make_batch, stream
from streamer.recipes.nano.compose import Recipe, _turn
from streamer.recipes.nano.make import audioset_labels, balanced, with_made_sounds
from streamer.recipes.nano.publish import shipped_form, write_backbone, write_head
from streamer.recipes.nano.settings import Data, load
from streamer.recipes.nano.vocabulary import used_tokens
from streamer.recipes.nano.words import vocabulary
from streamer.recipes.synthesis.clips import is_validation, read_recordings

WORDS = used_tokens()
PHONES = loop.Phones({word: (1 + index % 7, 2) for index, word in enumerate(vocabulary())}, 8)
BANK = small_bank()


def settings_in(folder: Path, steps: int = 3, long: int = 1):
    path = folder / "config.yaml"
    path.write_text(
        f"""
data: {{manifest: none.csv}}
out: {folder / "out"}
network: {{width: 16, encoder_layers: 1, decoder_layers: 2, encoder_heads: 2, decoder_heads: 2}}
composition: {{audio_s: 6, short_steps: 1, padded: 0.0, lengths_s: [2, 3], shares: [0.5, 0.5]}}
schedule:
  {{steps: {steps}, warmup: 2, save_every: 2, threads: 1, processes: 1,
   long: {{steps: {long}, shares: [0.0, 1.0], padded: 0.0}}}}
"""
    )
    return load(path)


def train(settings, bank=BANK):
    run = loop.start(settings, WORDS, PHONES)
    loop.train(run, bank, WORDS, PHONES, settings, lambda line: None)
    return run


def test_a_killed_run_that_goes_on_gives_the_same_weights(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = train(settings_in(tmp_path / "whole"))

    settings = settings_in(tmp_path / "killed")
    run = loop.start(settings, WORDS, PHONES)
    lines = iter(stream(BANK, WORDS, loop.plan_of(settings), first=0, last=4))
    for _ in range(2):
        loop.step(run, next(lines), WORDS, PHONES, settings.schedule)
    loop.save(run, settings.out)
    loop.step(run, next(lines), WORDS, PHONES, settings.schedule)  # lost with the kill
    lines.close()

    resumed = train(settings)
    assert resumed.step == whole.step == 4
    for ours, theirs in zip(resumed.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_parameter_has_one_place_in_the_optimiser_and_its_own_speed(tmp_path):
    settings = settings_in(tmp_path)
    model = loop.start(settings, WORDS, PHONES).model
    state = loop.Optimiser(model, settings.schedule).state_dict()
    sizes = [sum(len(group["params"]) for group in state[name]["param_groups"]) for name in ("adam", "muon")]
    assert sum(sizes) == len(list(model.parameters()))
    assert sizes[1] == 6 + 2 * 10  # query, key, value, out and two of the MLP; a decoder block attends twice

    def moved(rate):
        torch.manual_seed(1)
        model = loop.start(settings, WORDS, PHONES).model
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        for value in model.parameters():
            value.grad = torch.randn_like(value)
        loop.Optimiser(model, settings.schedule).step(rate)
        return {name: (value.detach() - before[name]).abs().mean().item() for name, value in model.named_parameters()}

    slow, fast = moved(1e-3), moved(2e-3)
    matrix, bias, head = "whisper.encoder.blocks.0.mlp.0.weight", "phones.bias", "head.mlp_layer.1.bias"
    for name in (matrix, bias, head):
        assert fast[name] == pytest.approx(2 * slow[name], rel=0.05)
    assert slow[head] == pytest.approx(settings.schedule.head_speed * slow[bias], rel=0.05)


def test_all_kinds_of_sounds_are_equally_frequent():
    bank = replace(BANK, sounds=BANK.sounds + BANK.sounds[:1] * 2)
    assert sorted(clip.category for clip in balanced(bank).sounds) == ["cat"] * 3 + ["water"] * 3
    made = with_made_sounds(BANK, Data(manifest=Path("m.csv"), beepers=1, household=1))
    assert {"cat", "water", "made_baby", "far_siren", "music"} <= {clip.category for clip in made.sounds}


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    plan = loop.plan_of(settings_in(tmp_path))
    first, second = (make_batch(BANK, WORDS, plan, 7) for _ in range(2))
    other = make_batch(BANK, WORDS, replace(plan, seed=99), 7)
    assert np.array_equal(first.audio, second.audio)
    assert np.array_equal(first.tokens, second.tokens)
    assert first.audio.shape != other.audio.shape or not np.array_equal(first.audio, other.audio)


def test_the_last_stage_has_its_own_lengths_and_its_own_rate(tmp_path):
    settings = settings_in(tmp_path, steps=60, long=40)
    plan, schedule = loop.plan_of(settings), settings.schedule
    seconds = [make_batch(BANK, WORDS, plan, step).audio.shape[1] / 16_000 for step in range(60, 66)]
    assert min(seconds) >= 2.5
    rates = [loop.learning_rate(schedule, step) for step in range(loop.all_steps(schedule))]
    assert rates[59] < 0.03 * schedule.learning_rate
    assert max(rates[60:]) == pytest.approx(schedule.long.learning_rate, rel=0.01)
    assert rates[-1] < 0.1 * schedule.long.learning_rate


def test_the_share_of_flite_is_kept(tmp_path):
    sentence = BANK.sentences[0]
    bank = replace(
        BANK, sentences=(replace(sentence, voice="flite:slt:100"), replace(sentence, voice="espeak:en:50:140"))
    )
    assert [clip.voice[:5] for clip in (*bank.flite, *bank.espeak)] == ["flite", "espea"]
    random = np.random.default_rng(3)
    recipe = Recipe(recorded=0.0, flite=1.0)
    voices = {_turn(bank, random, 99_999, recipe).voice for _ in range(60)}
    assert voices == {"tone", "flite:slt:100"}


def test_workers_deliver_in_order(tmp_path):
    plan = loop.plan_of(settings_in(tmp_path))
    assert [batch.step for batch in stream(BANK, WORDS, plan, first=3, last=8, workers=2)] == [3, 4, 5, 6, 7]


def test_the_shipped_files_are_written_and_load(tmp_path):
    import whisper

    settings = settings_in(tmp_path, steps=1, long=0)
    run = train(settings)
    shipped = shipped_form(run.average, WORDS)
    taps = tagging.cache(shipped, BANK, groups=3, seed=1, of=4)
    head = tagging.train_head(run.average.head, taps, steps=4, seed=1)
    trained = tagging.trained_classes(BANK)
    calibration = tagging.calibrate(head, taps, trained, seed=2)
    assert len(calibration["thresholds"]) == 527
    never = sorted(set(range(527)) - set(trained.tolist()))
    assert all(calibration["calibration"]["scale"][index] == 0 for index in never)
    assert all(calibration["calibration"]["offset"][index] <= -20 for index in never)
    write_backbone(run.average, WORDS, tmp_path / "shipped")
    write_head(run.average, calibration, tmp_path / "shipped")
    assert whisper.load_model(str(tmp_path / "shipped" / "nano.pt")).dims.n_vocab == 51864


def test_settings_name_the_key_that_is_wrong(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("data: {manifest: m.csv}\nout: o\nschedule: {step: 3}\n")
    with pytest.raises(ConfigError, match=r"schedule\.step"):
        load(path)
    path.write_text("data: {manifest: m.csv}\nout: o\nschedule: {long: {shares: [1.0]}}\n")
    with pytest.raises(ConfigError, match=r"^schedule\.long\.shares: must have 9 numbers"):
        load(path)
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "missing.yaml")


def test_a_library_that_is_missing_is_named(monkeypatch, capsys):
    import sys

    from streamer.commands.cli import main

    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["train", "nano"]) == 2
    assert "scikit-learn is needed here: pip install '.[eval]' in Streamer's folder" in capsys.readouterr().err


def test_the_package_lists_audiosets_classes():
    labels = audioset_labels(Data(manifest=Path("m.csv")).labels)
    assert labels["Speech"] == 0
    assert labels["Siren"] == 396
    assert len(labels) == 527


def test_a_manifest_is_checked(tmp_path):
    with pytest.raises(InputError, match=r"data\.manifest .*: cannot be read: No such file"):
        read_recordings(tmp_path / "none.csv", {}, part="train")
    bad = tmp_path / "bad.csv"
    bad.write_text("path,kind\na,b\n")
    with pytest.raises(InputError, match="category"):
        read_recordings(bad, {}, part="train")


def test_validation_takes_about_one_recording_in_twelve():
    share = np.mean([is_validation(f"digits/{i}.flac") for i in range(5000)])
    assert 0.06 < share < 0.11

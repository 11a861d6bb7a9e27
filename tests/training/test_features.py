import numpy as np
import pytest
import torch
from tiny_data import sound, write_backbone, write_manifest, write_wav

from streamer.errors import InputError
from streamer.model.checkpoint import load_model
from streamer.training import features
from streamer.training.features import TapRecipe, cached_taps, clip_windows, recipe_hash
from streamer.training.manifests import Clip, read_manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    write_manifest(folder, per_label=3)
    write_backbone(folder)
    return folder


@pytest.fixture(scope="module")
def model(place):
    return load_model(place / "tiny.pt", head=None, device="cpu", dtype="float32")


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_cached_taps_equal_fresh_ones(place, model, tmp_path, stored):
    clips = read_manifest(place / "manifest.csv").clips
    recipe = TapRecipe(stored=stored, clips_per_shard=4)
    before = model.encoder_passes
    cached_taps(model, clips, tmp_path, recipe)
    assert model.encoder_passes - before == len(clips)
    taps = cached_taps(model, clips, tmp_path, recipe)
    assert model.encoder_passes - before == len(clips)  # the second time from the cache
    assert len(taps) == len(clips)
    for index, window in enumerate(taps.windows):
        ((fresh, _, _),) = clip_windows(model, window.clip, recipe)
        kept = fresh.numpy().astype(stored).astype(np.float32)
        assert np.array_equal(taps.taps(index).numpy(), kept)
        assert torch.equal(taps.taps(index, 1, 1), taps.taps(index)[:, 1:2])


def test_taps_are_those_that_the_live_engine_judges(place, model):
    from streamer.audio.mel import MelFrames
    from streamer.events.plans import StepRequest
    from streamer.model.engine import Engine

    seen = []

    class Recorder(type(model)):
        def encode_windows(self, *args, **options):
            encoded = super().encode_windows(*args, **options)
            seen.append(encoded.taps[0])
            return encoded

    samples = sound("Siren", 3.3, 1).astype(np.float32)
    own = features.encode_audio(model, samples, TapRecipe())
    model.__class__ = Recorder
    model.head = object()  # the engine asks for taps only where there is a head
    try:
        frames = MelFrames(80)
        frames.append(samples)
        engine = Engine(model)
        engine._judge = lambda windows: None
        engine.step([(frames, StepRequest(0, len(samples), (10.0,)))])
    finally:
        model.__class__ = Recorder.__base__
        model.head = None
    assert torch.equal(own, seen[0])


def test_a_long_recording_becomes_windows_and_a_short_one_is_filled(model, tmp_path):
    long = write_wav(tmp_path / "long.wav", sound("Rain", 24.5, 0))
    found = clip_windows(model, Clip(long, (1,)), TapRecipe())
    assert [(round(start), round(end, 1)) for _, start, end in found] == [(0, 10.0), (10, 20.0), (20, 24.5)]
    assert [taps.shape[1] for taps, _, _ in found] == [25, 25, 11]
    assert len(clip_windows(model, Clip(long, (1,), end_s=20.5), TapRecipe())) == 2
    short = write_wav(tmp_path / "short.wav", sound("Rain", 0.1, 0))
    ((taps, _, _),) = clip_windows(model, Clip(short, (1,)), TapRecipe())
    assert taps.shape[1] == 2  # one second


def test_stock_weights_see_padded_windows(tmp_path):
    write_backbone(tmp_path, variable_context=False)
    stock = load_model(tmp_path / "tiny.pt", head=None, device="cpu", dtype="float32")
    samples = sound("Bark", 5.0, 0).astype(np.float32)
    padded = features.encode_audio(stock, samples, TapRecipe())
    fit = features.encode_audio(stock, samples, TapRecipe(context="fit"))
    assert padded.shape == fit.shape == (2, 12, 64)
    assert not torch.allclose(padded, fit, atol=1e-3)


def test_a_span_of_a_file_is_its_own_clip(model, place, tmp_path):
    path = write_wav(tmp_path / "a.wav", np.concatenate([sound("Siren", 2, 0), sound("Rain", 2, 0)]))
    part, rest = Clip(path, (1,), end_s=2.0), Clip(path, (2,), start_s=2.0)
    taps = cached_taps(model, [part, rest], tmp_path / "cache", TapRecipe())
    assert not torch.equal(taps.taps(0), taps.taps(1))
    with pytest.raises(InputError, match=r"a\.wav has no sound from 7 s"):
        cached_taps(model, [Clip(path, (1,), start_s=7.0)], tmp_path / "cache", TapRecipe())


def test_other_weights_settings_and_contents_are_not_mistaken(model, place, tmp_path):
    other = load_model(place / "tiny.pt", head=None, device="cpu", dtype="float32")
    with torch.no_grad():
        other.module.encoder.blocks[0].mlp[0].weight[0, 0] += 1
    assert recipe_hash(model, TapRecipe()) != recipe_hash(other, TapRecipe())
    assert recipe_hash(model, TapRecipe()) != recipe_hash(model, TapRecipe(context="padded"))
    assert recipe_hash(model, TapRecipe()) == recipe_hash(model, TapRecipe(clips_per_shard=7))
    path = write_wav(tmp_path / "a.wav", sound("Siren", 2, 0))
    first = cached_taps(model, [Clip(path, (1,))], tmp_path / "cache", TapRecipe()).taps(0)
    write_wav(path, sound("Rain", 2, 0))
    second = cached_taps(model, [Clip(path, (1,))], tmp_path / "cache", TapRecipe()).taps(0)
    assert not torch.equal(first, second)


def test_a_damaged_shard_is_computed_again(model, place, tmp_path):
    clips = read_manifest(place / "manifest.csv").clips
    before = cached_taps(model, clips, tmp_path, TapRecipe())
    taps = [before.taps(index) for index in range(len(before))]
    (shard,) = tmp_path.rglob("*.npy")
    shard.write_bytes(shard.read_bytes()[:-100])
    after = cached_taps(model, clips, tmp_path, TapRecipe())
    assert all(torch.equal(after.taps(index), old) for index, old in enumerate(taps))
    with pytest.raises(InputError, match="cannot be read"):
        cached_taps(model, [Clip(tmp_path / "none.wav", (1,))], tmp_path, TapRecipe())

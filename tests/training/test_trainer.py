import numpy as np
import pytest
import torch

from streamer.model.head import CLASSES
from streamer.training.features import TapSet, TapWindow
from streamer.training.head_settings import RecipeSection
from streamer.training.manifests import Clip
from streamer.training.trainer import Sampler, balanced_weights

PLAIN = {"mixup": 0.0, "time_mask_share": 0.0}


@pytest.fixture
def taps(tmp_path):
    """40 windows of class 0 and 4 of class 1, of 2 to 25 steps; a step's value tells window and step."""
    steps = [2 + index % 24 for index in range(44)]
    values = np.concatenate([1000 * index + np.arange(count) for index, count in enumerate(steps)])
    shard = tmp_path / "shard.npy"
    np.save(shard, np.broadcast_to(values[:, None, None], (len(values), 2, 3)).astype(np.float32))
    windows, row = [], 0
    for index, count in enumerate(steps):
        windows.append(TapWindow(Clip(shard, (int(index >= 40),)), shard, row, count, 0.0, 0.4 * count))
        row += count
    return TapSet(windows, 2, 3)


def test_weights_are_the_papers():
    weights = balanced_weights([(0,), (0,), (0,), (0, 1)])
    expected = np.array([1000 / 4.01] * 3 + [1000 / 4.01 + 1000 / 1.01])
    assert np.allclose(weights, expected / expected.sum())
    assert balanced_weights([(0,), ()])[1] == pytest.approx(0.5)


def test_a_rare_class_is_drawn_as_often_as_a_common_one(taps):
    sampler = Sampler(taps, RecipeSection(batch=40, **PLAIN), 1)
    drawn = torch.cat([part.targets for step in range(10) for part in sampler.draw(1, step)])
    rare = float((drawn[:, 1] > 0.5).float().mean())
    assert 0.35 < rare < 0.65
    assert drawn.shape == (400, CLASSES)


def test_targets_are_smoothed_as_in_the_papers_code(taps):
    (part, *_) = Sampler(taps, RecipeSection(batch=4, **PLAIN), 1).draw(1, 0)
    assert part.targets.unique().tolist() == pytest.approx([0.1 / CLASSES, 0.9])


def test_crops_are_stretches_of_one_window_in_the_wanted_lengths(taps):
    sampler = Sampler(taps, RecipeSection(batch=30, **PLAIN), 2)
    lengths = set()
    for step in range(8):
        for part in sampler.draw(1, step):
            lengths.add(part.taps.shape[2])
            for item in part.taps[:, 0, :, 0]:
                assert torch.equal(item, item[0] + torch.arange(len(item)))
    assert {2, 5, 12, 25} <= lengths


def test_draws_depend_on_seed_epoch_and_step_alone(taps):
    def drawn(seed, epoch, step):
        parts = Sampler(taps, RecipeSection(batch=12), seed).draw(epoch, step)
        return torch.cat([part.taps.flatten() for part in parts])

    assert torch.equal(drawn(1, 2, 3), drawn(1, 2, 3))
    assert not any(torch.equal(drawn(1, 2, 3), drawn(*other)) for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)))


def test_two_processes_draw_the_halves_of_what_one_would(taps):
    sampler = Sampler(taps, RecipeSection(batch=13), 4)

    def items(rank, count):
        parts = sampler.draw(1, 0, rank, count)
        return sorted(item.sum().item() for part in parts for item in part.taps)

    assert sorted(items(0, 2) + items(1, 2)) == items(0, 1)


def test_mixup_and_masks_change_what_they_should(taps):
    mixed = Sampler(taps, RecipeSection(mixup=1.0, time_mask_share=0.0, batch=60), 3)
    targets = torch.cat([part.targets for part in mixed.draw(1, 0)])
    both = (targets[:, 0] > 0.1) & (targets[:, 1] > 0.1)
    assert both.any()
    assert torch.allclose(targets[both][:, :2].sum(1), torch.tensor(0.9 + 0.1 / CLASSES))
    masked = Sampler(taps, RecipeSection(mixup=0.0, time_mask_share=0.4, batch=60), 3)
    for part in masked.draw(1, 0):
        zeros = (part.taps[:, 0, 1:, 0] == 0).sum(1)
        assert int(zeros.max()) <= 0.4 * part.taps.shape[2]

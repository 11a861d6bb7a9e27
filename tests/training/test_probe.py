import numpy as np
import pytest

from streamer.errors import InputError
from streamer.training.features import TapSet, TapWindow
from streamer.training.manifests import Clip
from streamer.training.probe import partitions, probe


def _clips(path, count=60):
    return [
        Clip(path, (row % 3,), "test" if row % 4 == 0 else "train", category="abc"[row % 3], fold=str(row % 5 + 1))
        for row in range(count)
    ]


@pytest.fixture
def taps(tmp_path):
    """Layer 2 of 3 knows the category, the others are noise."""
    clips, random = _clips(tmp_path / "s.npy"), np.random.default_rng(0)
    values = random.normal(size=(len(clips) * 2, 3, 4))
    for row, clip in enumerate(clips):
        values[2 * row : 2 * row + 2, 1, "abc".index(clip.category)] += 8
    np.save(tmp_path / "s.npy", values.astype(np.float32))
    windows = [TapWindow(clip, tmp_path / "s.npy", 2 * row, 2, 0.0, 0.8) for row, clip in enumerate(clips)]
    return TapSet(windows, 3, 4)


@pytest.mark.parametrize("folds", ["split", "manifest"])
def test_the_layer_that_knows_is_found(taps, folds):
    scores = probe(taps, partitions([window.clip for window in taps.windows], folds))
    assert [score.layer for score in scores] == [1, 2, 3, 0]
    assert scores[1].accuracy > 0.95
    assert scores[0].accuracy < 0.7
    assert scores[1].f1.keys() == {"a", "b", "c"}
    assert len(scores[0].folds) == (1 if folds == "split" else 5)


def test_parts_never_overlap(tmp_path):
    for train, test in partitions(_clips(tmp_path), "manifest"):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 60


def test_clips_without_folds_are_refused(tmp_path):
    with pytest.raises(InputError, match="--folds manifest"):
        partitions([Clip(tmp_path, (1,), category="a")], "manifest")

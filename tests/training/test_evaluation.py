import math

import numpy as np
import pytest
import torch

from streamer.model.head import CLASSES, HeadKind, HeadModule, HeadShape
from streamer.training.evaluation import d_prime, expected_calibration_error, f1_at, judge_spans, tag_metrics
from streamer.training.features import TapSet, TapWindow
from streamer.training.manifests import Clip


def _truth(rows):
    truth = np.zeros((len(rows), CLASSES), np.float32)
    for row, labels in enumerate(rows):
        truth[row, list(labels)] = 1
    return truth


def test_perfect_and_reversed_scores():
    truth = _truth([(0,), (1,), (0, 2), (1,)])
    perfect = tag_metrics(truth, truth)
    assert (perfect.average_precision, perfect.auc, perfect.accuracy, perfect.classes) == (1.0, 1.0, 1.0, 3)
    reverse = tag_metrics(1 - truth, truth)
    assert reverse.auc == 0.0
    assert reverse.per_class.keys() == {0, 1, 2}


def test_chance_has_a_d_prime_of_zero():
    assert d_prime(0.5) == pytest.approx(0.0)
    assert d_prime(0.92) == pytest.approx(1.987, abs=1e-3)
    assert math.isnan(d_prime(math.nan))


def test_clips_without_labels_count_as_negatives():
    metrics = tag_metrics(_truth([(0,), (), (0,)]), _truth([(0,), (), (0,)]))
    assert (metrics.n, metrics.classes, metrics.accuracy) == (3, 1, 1.0)


def test_calibration_error_and_f1():
    scores = np.array([[0.8] * 10], np.float32)
    assert expected_calibration_error(scores, np.array([[1] * 8 + [0] * 2], np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert expected_calibration_error(scores, np.zeros((1, 10), np.float32)) == pytest.approx(0.8)
    truth = _truth([(0,), (1,)])
    assert f1_at(truth, truth, [0.5] * CLASSES) == 1.0


def test_spans_cover_a_window_from_its_end(tmp_path):
    steps = (13, 4, 25)
    values = np.concatenate([np.arange(count) for count in steps]).astype(np.float32)
    np.save(tmp_path / "s.npy", np.broadcast_to(values[:, None, None], (len(values), 1, 8)))
    rows = np.cumsum([0, *steps])
    windows = [
        TapWindow(Clip(tmp_path, (index,)), tmp_path / "s.npy", int(rows[index]), count, 0.0, 1.0)
        for index, count in enumerate(steps)
    ]
    taps = TapSet(windows, 1, 8)
    head = HeadModule(HeadShape(HeadKind.LAST_MLP, 8)).eval()
    judged = judge_spans(head, taps, 2.0)
    assert judged.windows.tolist() == [0, 0, 1, 2, 2, 2, 2, 2]
    assert judged.short == 1
    with torch.inference_mode():
        last = head(taps.taps(0, 8, 5)[None])[0].numpy()
    assert np.allclose(judged.logits[1], last, atol=1e-5)
    assert judged.truth.argmax(1).tolist() == judged.windows.tolist()
    assert judge_spans(head, taps, None).windows.tolist() == [0, 1, 2]

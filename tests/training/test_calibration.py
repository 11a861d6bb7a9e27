import numpy as np
import pytest

from streamer.model.head import CLASSES
from streamer.training.calibration import calibrate


def _judgements(n, seed=0, *, scale=0.5, shift=-1.0, rare=3):
    """Class 0 has many positives, class 1 `rare`; the true probability is logistic(scale * logit + shift)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (n, CLASSES)).astype(np.float32)
    truth = np.zeros((n, CLASSES), np.float32)
    truth[:, 0] = random.random(n) < 1 / (1 + np.exp(-(scale * logits[:, 0] + shift)))
    truth[:rare, 1] = 1
    logits[:rare, 1] += 6
    return logits, truth


def test_a_class_with_many_examples_gets_its_true_probability():
    logits, truth = _judgements(4000)
    fit = calibrate(logits, truth, np.arange(4000), [0, 1])
    assert fit.scale[0] == pytest.approx(0.5, abs=0.1)
    assert fit.offset[0] == pytest.approx(-1.0, abs=0.25)
    assert fit.own == (0,)
    scores = fit.scores(logits)
    assert abs(scores[:, 0].mean() - truth[:, 0].mean()) < 0.02


def test_untrained_classes_stay_near_zero_whatever_the_logit():
    logits, truth = _judgements(500)
    fit = calibrate(logits, truth, np.arange(500), [0, 1])
    assert fit.scores(np.full((1, CLASSES), 50, np.float32))[0, 2:].max() < 1e-6


def test_few_examples_move_little_and_never_turn_a_class_around():
    logits, truth = _judgements(500, rare=2)
    logits[:2, 1] = -9  # by bad luck the two examples scored lowest
    fit = calibrate(logits, truth, np.arange(500), [0, 1])
    alone = calibrate(logits, truth, np.arange(500), [0])
    assert fit.scale[1] > 0.2 * alone.scale[0]
    assert all(0 < threshold < 1 for threshold in fit.thresholds)
    assert all(scale >= 0 for scale in fit.scale)


def test_judgements_of_one_recording_count_once():
    logits, truth = _judgements(600)
    assert calibrate(logits, truth, np.zeros(600, np.int64), [0]).own == ()


def test_no_positive_at_all_leaves_the_logistic_function():
    logits = np.random.default_rng(0).normal(size=(50, CLASSES)).astype(np.float32)
    fit = calibrate(logits, np.zeros((50, CLASSES), np.float32), np.arange(50), [7])
    assert (fit.scale[7], fit.offset[7], fit.thresholds[7]) == (1.0, 0.0, 0.5)

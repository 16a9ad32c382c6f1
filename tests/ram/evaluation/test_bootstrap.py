"""Intervals: the closed form against repeated images, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from rasa.errors import InputError
from rasa_ram.evaluation.bootstrap import intervals, resample, weighted_average_precision, weighted_counts
from rasa_ram.evaluation.metrics import at_thresholds, average_precision, mean_average_precision, precision_recall


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4))
def test_a_resample_is_the_list_with_each_image_repeated(seed, images, classes):
    random = np.random.default_rng(seed)
    scores, truth = random.random((images, classes)), random.random((images, classes)) < 0.3
    weights = resample(images, resamples=70, seed=seed)  # more than are worked on together
    assert (weights.sum(axis=1) == images).all()
    values = weighted_average_precision(scores, truth, weights)
    for weight, row in zip(weights[::23], values[::23], strict=True):
        repeated = average_precision(np.repeat(scores, weight, 0), np.repeat(truth, weight, 0))
        np.testing.assert_allclose(row, repeated, rtol=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5))
def test_different_images_with_equal_scores_share_the_last_rank(seed, images, levels):
    random = np.random.default_rng(seed)
    scores, truth = random.integers(0, levels, (images, 3)).astype(float), random.random((images, 3)) < 0.4
    once = weighted_average_precision(scores, truth, np.ones((1, images), np.uint16))[0]
    np.testing.assert_allclose(once, average_precision(scores, truth, ties="together"), rtol=1e-9)


def test_the_originals_order_of_equal_scores_is_that_of_repeated_images():
    random = np.random.default_rng(5)
    scores, truth = random.integers(0, 4, (40, 3)).astype(float), random.random((40, 3)) < 0.4
    weights = resample(40, resamples=9, seed=3)
    values = weighted_average_precision(scores, truth, weights, ties="published")
    for weight, row in zip(weights, values, strict=True):
        repeated = average_precision(np.repeat(scores, weight, 0), np.repeat(truth, weight, 0))
        np.testing.assert_allclose(row, repeated, rtol=1e-9)


def test_ties_with_weights_are_scikit_learns():
    random = np.random.default_rng(3)
    # Every score comes at least twice: there, a copy of an image is one more image with the same score.
    scores, truth = np.repeat(random.random(30), 2), random.random(60) < 0.3
    weights = resample(60, resamples=20, seed=1)
    values = weighted_average_precision(scores[:, None], truth[:, None], weights)[:, 0]
    expected = [average_precision_score(truth, scores, sample_weight=weight) for weight in weights]
    np.testing.assert_allclose(values, expected, rtol=1e-7)


def test_counts_are_those_of_repeated_images():
    random = np.random.default_rng(0)
    table, weights = random.random((50, 7)) < 0.1, resample(50, resamples=9, seed=2)
    expected = [np.repeat(table, weight, 0).sum(axis=0) for weight in weights]
    np.testing.assert_array_equal(weighted_counts(table, weights), expected)
    assert not weighted_counts(np.zeros((50, 2), bool), weights).any()


def made(random, images, classes=3):
    truth = random.random((images, classes)) < [0.5, 0.2, 0.1]
    return random.normal(size=truth.shape) + 1.5 * truth, truth


def figures_of(scores, truth):
    found = precision_recall(at_thresholds(scores, 1.0), truth)
    return {
        "map": mean_average_precision(scores, truth),
        "published_map": mean_average_precision(scores, truth, no_positives="zero"),
        "class_precision": found.class_precision,
        "class_recall": found.class_recall,
        "overall_precision": found.overall_precision,
        "overall_recall": found.overall_recall,
    }


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(11)
    expected = figures_of(*made(random, 200_000))
    held = dict.fromkeys(expected, 0)
    trials = 120
    for trial in range(trials):
        scores, truth = made(random, 300)
        found = intervals(scores, truth, at_thresholds(scores, 1.0), resamples=200, seed=trial)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            held[name] += found[name].low <= value <= found[name].high
    # 95 % of 120 are 114, with a standard deviation of 2.4; few resamples and images cost a little.
    assert all(0.87 <= count / trials <= 0.995 for count in held.values()), held


def test_the_seed_decides():
    scores, truth = made(np.random.default_rng(0), 80)
    one, again, other = (intervals(scores, truth, None, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert list(one) == ["map", "published_map"]


def test_classes_without_positives_are_left_out_of_ours_and_count_0_in_the_originals():
    scores, truth = made(np.random.default_rng(0), 80)
    truth[:, 2] = False
    whole, rest = (intervals(scores[:, :n], truth[:, :n], None, resamples=50) for n in (3, 2))
    assert whole["map"] == rest["map"] == rest["published_map"]
    assert whole["published_map"].low == pytest.approx(rest["map"].low * 2 / 3)
    assert whole["published_map"].high == pytest.approx(rest["map"].high * 2 / 3)
    nothing = intervals(scores, np.zeros_like(truth), None, resamples=5)["map"]
    assert np.isnan([nothing.low, nothing.high]).all()


def test_numbers_out_of_range():
    scores, truth = made(np.random.default_rng(0), 10)
    with pytest.raises(InputError, match="confidence must be between 0 and 1"):
        intervals(scores, truth, None, confidence=1.0)
    with pytest.raises(InputError, match="needs images and resamples, got 0 and 3"):
        resample(0, resamples=3, seed=0)

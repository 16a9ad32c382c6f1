"""Metrics by hand, by brute force and beside scikit-learn; the published numbers are in test_golden_metrics.py."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from rasa.errors import InputError
from rasa_ram.evaluation.metrics import (
    AP_EPSILON,
    at_thresholds,
    average_precision,
    mean_average_precision,
    precision_recall,
    tag_matrix,
)

TIES = ["published", "together", "lowest", "highest"]


def columns(most=12, levels=None):
    """Scores and truth of one tag; few levels make ties."""
    values = st.sampled_from(levels) if levels else st.floats(-1e6, 1e6)
    return st.integers(1, most).flatmap(
        lambda n: st.tuples(
            arrays.arrays(np.float64, (n, 1), elements=values), arrays.arrays(bool, (n, 1), elements=st.booleans())
        )
    )


def brute_force(ranked):
    """Average precision of truth in rank order, straight from its definition."""
    precisions = [sum(ranked[: i + 1]) / (i + 1) for i, present in enumerate(ranked) if present]
    return sum(precisions) / (len(precisions) + AP_EPSILON)


def test_average_precision_by_hand():
    scores = [[0.9, 0.1], [0.8, 0.4], [0.7, 0.3], [0.6, 0.2]]
    truth = [[1, 1], [0, 0], [1, 0], [0, 0]]
    # First and third of four: (1 + 2/3) / 2; last of four: 1/4.
    np.testing.assert_allclose(average_precision(scores, truth), [5 / 6, 1 / 4], rtol=2e-8)
    assert mean_average_precision(scores, truth) == pytest.approx(13 / 24, rel=2e-8)


def test_ties_by_hand():
    scores, truth = [[0.5], [0.5], [0.5], [0.1]], [[1], [0], [0], [0]]
    values = {ties: average_precision(scores, truth, ties=ties)[0] for ties in TIES}
    # The positive is the first image: last of the three in the published order.
    expected = {"published": 1 / 3, "together": 1 / 3, "lowest": 1 / 3, "highest": 1}
    assert values == pytest.approx(expected, rel=2e-8)


def test_ties_together_can_exceed_the_best_order():
    scores, truth = [[0.5], [0.1], [0.1]], [[0], [1], [1]]
    # Precision at the shared rank is 2/3 for both; in order it is 1/2 and 2/3.
    assert average_precision(scores, truth, ties="together")[0] == pytest.approx(2 / 3, rel=2e-8)
    assert average_precision(scores, truth, ties="highest")[0] == pytest.approx(7 / 12, rel=2e-8)


def test_tags_without_positives_are_left_out_or_count_as_zero():
    scores, truth = [[0.9, 0.9], [0.1, 0.8]], [[1, 0], [0, 0]]
    np.testing.assert_allclose(average_precision(scores, truth), [1, np.nan], rtol=2e-8)
    np.testing.assert_allclose(average_precision(scores, truth, no_positives="zero"), [1, 0], rtol=2e-8)
    assert mean_average_precision(scores, truth) == pytest.approx(1, rel=2e-8)
    assert mean_average_precision(scores, truth, no_positives="zero") == pytest.approx(0.5, rel=2e-8)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_measure(shape):
    scores, truth = np.zeros(shape), np.zeros(shape, bool)
    assert average_precision(scores, truth, ties="together").shape == (shape[1],)
    assert math.isnan(mean_average_precision(scores, truth))
    figures = precision_recall(truth, truth)
    assert math.isnan(figures.class_f1)
    assert figures.overall_f1 == 0


@settings(max_examples=60)
@given(columns(most=6, levels=[0.1, 0.5, 0.9]))
def test_every_order_of_ties_lies_between_the_bounds(column):
    scores, truth = column
    orders = itertools.permutations(range(len(scores)))
    ranked = [o for o in orders if all(scores[a, 0] >= scores[b, 0] for a, b in itertools.pairwise(o))]
    possible = [brute_force([bool(truth[i, 0]) for i in order]) for order in ranked]
    values = {ties: average_precision(scores, truth, no_positives="zero", ties=ties)[0] for ties in TIES}
    assert values["lowest"] == pytest.approx(min(possible), abs=1e-12)
    assert values["highest"] == pytest.approx(max(possible), abs=1e-12)
    assert any(values["published"] == pytest.approx(value, abs=1e-12) for value in possible)
    assert values["together"] >= min(possible) - 1e-12


@given(columns(levels=[0.0, 0.25, 0.5, 1.0]))
def test_ties_together_are_scikit_learns(column):
    scores, truth = column
    if truth.any():
        value = average_precision(scores, truth, ties="together")[0]
        expected = average_precision_score(truth[:, 0], scores[:, 0]) * truth.sum() / (truth.sum() + AP_EPSILON)
        assert value == pytest.approx(expected, rel=1e-12)


@given(columns(), st.sampled_from(TIES))
def test_without_ties_all_orders_are_scikit_learns(column, ties):
    scores, truth = column
    if truth.any() and len(np.unique(scores)) == len(scores):
        value = average_precision(scores, truth, ties=ties)[0]
        assert value == pytest.approx(average_precision_score(truth[:, 0], scores[:, 0]), rel=1e-7)


@given(columns(levels=[0.0, 0.5, 1.0]), st.randoms())
def test_the_order_of_images_matters_only_to_the_published_ties(column, random):
    scores, truth = column
    order = random.sample(range(len(scores)), len(scores))
    for ties in ("together", "lowest", "highest"):
        before = average_precision(scores, truth, ties=ties)
        np.testing.assert_allclose(average_precision(scores[order], truth[order], ties=ties), before, rtol=1e-12)


def test_many_images_beside_scikit_learn_in_float32():
    rng = np.random.default_rng(0)
    scores, truth = rng.random((2000, 30), np.float32).round(2), rng.random((2000, 30)) < 0.05
    expected = average_precision_score(truth, scores, average="macro")
    assert mean_average_precision(scores, truth, ties="together") == pytest.approx(expected, rel=1e-8)


def test_precision_and_recall_by_hand():
    predicted = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]])
    truth = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]])
    figures = precision_recall(predicted, truth)
    np.testing.assert_allclose(figures.precision, [1 / 2, 1 / 2, 0, np.nan], rtol=2e-9)
    np.testing.assert_allclose(figures.recall, [1 / 2, 1, 0, np.nan], rtol=2e-9)
    np.testing.assert_allclose(figures.f1, [1 / 2, 2 / 3, 0, np.nan], rtol=2e-9)
    # The false positive of the fourth tag counts overall.
    assert (figures.class_precision, figures.class_recall) == pytest.approx((1 / 3, 1 / 2), rel=2e-9)
    assert (figures.overall_precision, figures.overall_recall) == pytest.approx((2 / 5, 2 / 5), rel=2e-9)
    assert (figures.class_f1, figures.overall_f1) == pytest.approx((2 / 5, 2 / 5), rel=2e-9)
    zero = precision_recall(predicted, truth, no_positives="zero")
    assert (zero.class_precision, zero.class_recall) == pytest.approx((1 / 4, 3 / 8), rel=2e-9)
    assert zero.overall_f1 == figures.overall_f1


@settings(max_examples=50)
@given(arrays.arrays(bool, (2, 6, 4), elements=st.booleans()))
def test_precision_and_recall_are_scikit_learns(both):
    predicted, truth = both
    figures = precision_recall(predicted, truth, no_positives="zero")
    *per_tag, _support = precision_recall_fscore_support(truth, predicted, zero_division=0)
    for mine, theirs in zip((figures.precision, figures.recall, figures.f1), per_tag, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-8)
    *overall, _support = precision_recall_fscore_support(truth, predicted, average="micro", zero_division=0)
    mine = (figures.overall_precision, figures.overall_recall, figures.overall_f1)
    np.testing.assert_allclose(mine, overall, atol=1e-8)


def test_a_score_equal_to_its_threshold_counts():
    # As float32, 0.7 is below the float64 of that name.
    scores = np.array([[0.7, 0.5], [0.67, 0.4]], np.float32)
    np.testing.assert_array_equal(at_thresholds(scores, 0.7), [[True, False], [False, False]])
    np.testing.assert_array_equal(at_thresholds(scores, [0.67, 0.45]), [[True, True], [True, False]])
    np.testing.assert_array_equal(at_thresholds([[1, 0]], 0.5), [[True, False]])


def test_tag_matrix_fills_every_column_of_a_repeated_name():
    matrix = tag_matrix([["train"], [], ["car", "car"]], ["train", "car", "train"])
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    with pytest.raises(InputError, match="tag 'trian' is none of the 2 tags; did you mean \"train\""):
        tag_matrix([["trian"]], ["train", "car"])


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.1, 0.2], [[1, 0]], r"scores must have shape \(any, any\), got \(2,\); a row for each image"),
        ([[0.1, 0.2]], [[1]], r"scores and truth must have the same shape, got \(1, 2\) and \(1, 1\)"),
        ([[0.1, np.nan]], [[1, 0]], "scores must not be NaN, 1 are; the first is image 0, tag 1"),
        ([[0.1, 0.2]], [[1, 2]], "truth must be bool or hold 0 and 1 only, got 2"),
        ([[0.1, 0.2]], [[1, np.nan]], "truth must be bool or hold 0 and 1 only, got nan"),
        ([["a", "b"]], [[1, 0]], "scores must be .*float64.* values"),
        ([[0.1, 0.2], [0.3]], [[1, 0]], "scores must be .*float64.* values"),
    ],
)
def test_bad_input_is_named(scores, truth, message):
    with pytest.raises(InputError, match=message):
        average_precision(scores, truth)


def test_bad_predictions_thresholds_and_options_are_named():
    with pytest.raises(InputError, match=r"predicted must be bool or hold 0 and 1 only, got 0\.7; see at_thresholds"):
        precision_recall([[0.7]], [[1]])
    with pytest.raises(InputError, match="predicted and truth must have the same shape"):
        precision_recall([[1]], [[1, 0]])
    with pytest.raises(InputError, match=r"thresholds must have shape \(2\), got \(3,\)"):
        at_thresholds([[0.1, 0.2]], [0.5, 0.5, 0.5])
    with pytest.raises(InputError, match="thresholds must not be NaN"):
        at_thresholds([[0.1, 0.2]], [0.5, np.nan])
    with pytest.raises(InputError, match="no_positives must be one of 'exclude', 'zero', got 'skip'"):
        precision_recall([[1]], [[1]], no_positives="skip")
    with pytest.raises(InputError, match=r"ties must be one of 'published', .*, got 'random'"):
        average_precision([[1]], [[1]], ties="random")

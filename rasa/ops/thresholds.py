"""Thresholds for tags out of a small labelled set: the best F1, or the most that can be found at a given precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import BoolArray, FloatArray, IntArray, read_only
from rasa.errors import InputError

Objective = Literal["f1"] | float
Numbers = NDArray[np.float64]

_AT_ONCE = 2**22  # scores that are sorted together


@dataclass(frozen=True, slots=True, eq=False)
class TunedThresholds:
    """Thresholds, and what they do on the images that they were chosen on.

    Attributes:
        thresholds: float32 ``(T,)`` in [0, 1]; a tag is given where its score is greater. NaN where none was chosen:
            the tag has too few examples, none of them has a score, or the precision cannot be reached.
        precision: float64 ``(T,)``, share of the images given the tag that have it; NaN where there is no threshold.
        recall: float64 ``(T,)``, share of the images with the tag that are given it; NaN likewise.
        positives: int64 ``(T,)``, images that have the tag.
    """

    thresholds: FloatArray
    precision: Numbers
    recall: Numbers
    positives: IntArray

    @property
    def f1(self) -> Numbers:
        """float64 ``(T,)``: harmonic mean of precision and recall; NaN where there is no threshold."""
        total = self.precision + self.recall
        scores: Numbers = 2 * self.precision * self.recall / np.where(total > 0, total, 1)
        return scores


def tune_thresholds(
    scores: FloatArray, truth: BoolArray, *, objective: Objective = "f1", min_positives: int = 1
) -> TunedThresholds:
    """Choose a threshold for each tag on labelled images.

    A threshold lies half-way between the lowest score that it lets through and the next lower one, on three decimals
    where there is room. Nothing is known below a score whose next is 0, so there it lies just under the score.

    Args:
        scores: ``(N, T)`` in [0, 1] of N images and T tags; 0 where the tagger gave none.
        truth: bool ``(N, T)``, which tags the images have.
        objective: ``"f1"`` for the best F1 score, the highest such threshold; or a precision in (0, 1]: the best
            recall of all thresholds that reach it, the highest such threshold.
        min_positives: Fewest images with a tag for it to get a threshold, at least 1.

    Raises:
        InputError: If an argument has a wrong shape or value.
    """
    scores = read_only("scores", scores, dtype=np.float32, shape=(None, None))
    truth = read_only("truth", truth, dtype=np.bool_, shape=scores.shape, hint="one row per image, one column per tag")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("scores must be in [0, 1], after the sigmoid")
    if objective != "f1" and not (isinstance(objective, int | float) and 0 < objective <= 1):
        raise InputError(f'objective must be "f1" or a precision in (0, 1], got {objective!r}')
    if min_positives < 1:
        raise InputError(f"min_positives must be at least 1, got {min_positives!r}")
    count, tags = scores.shape
    step = max(1, _AT_ONCE // max(count, 1))
    thresholds, precision, recall = numbers = np.full((3, tags), np.nan)
    for start in range(0, tags if count else 0, step):
        chosen = slice(start, start + step)
        numbers[:, chosen] = _tuned(scores[:, chosen], truth[:, chosen], objective)
    positives = np.count_nonzero(truth, axis=0).astype(np.int64)
    values = [np.where(positives >= min_positives, value, np.nan) for value in (thresholds, precision, recall)]
    return TunedThresholds(values[0].astype(np.float32), values[1], values[2], positives)


def threshold_quality(scores: FloatArray, truth: BoolArray, thresholds: FloatArray) -> Numbers:
    """F1 of given thresholds, float64 ``(T,)``; 0 where a tag is neither given nor there."""
    given = scores > thresholds
    right = np.count_nonzero(given & truth, axis=0)
    total = np.count_nonzero(given, axis=0) + np.count_nonzero(truth, axis=0)
    quality: Numbers = 2 * right / np.maximum(total, 1)
    return quality


def _tuned(scores: FloatArray, truth: BoolArray, objective: Objective) -> Numbers:
    """``(3, T)``: thresholds, precision and recall, NaN where there is none."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    right = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0)  # among the best k
    below = np.concatenate([ranked[1:], np.zeros_like(ranked[:1])])
    positives, given = right[-1], np.arange(1, len(scores) + 1)[:, None]
    possible = (ranked > below) & (right > 0)  # equal scores stand or fall together
    precision, recall = right / given, right / np.maximum(positives, 1)
    if objective == "f1":
        value = 2 * right / (given + positives)
    else:
        value, possible = recall, possible & (precision >= objective)
    # The first of the best is the highest threshold.
    best = np.argmax(np.where(possible, value, -1), axis=0)[None]
    chosen = [np.take_along_axis(table, best, axis=0)[0] for table in (ranked, below, precision, recall, possible)]
    numbers = np.stack([_between(chosen[1], chosen[0]), chosen[2], chosen[3]])
    return np.where(chosen[4], numbers, np.nan)


def _between(low: FloatArray, high: FloatArray) -> Numbers:
    """A number below ``high`` and not below ``low``, both float32, that float32 can hold."""
    middle = np.where(low > 0, (low.astype(np.float64) + high) / 2, high)
    short = (np.floor(middle * 1000) / 1000).astype(np.float32)
    exact = middle.astype(np.float32)
    exact = np.where(exact < high, exact, np.nextafter(high, np.float32(0)))
    return np.where((low < short) & (short < high), short, exact).astype(np.float64)

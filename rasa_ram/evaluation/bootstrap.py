"""Intervals of the figures by the bootstrap over images.

A resample gives each image a whole weight: how often it was drawn. The average precision of a weighted image list is
that of the list with each image repeated, in closed form: if R images with K of the class stand before a positive
drawn w times, its copies add sum (K + j) / (R + j) over j = 1..w, which is w - (R - K) (H(R + w) - H(R)) with the
harmonic numbers H. So a class is sorted once, and a resample costs one pass over the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rasa.arrays import BoolArray
from rasa.errors import InputError
from rasa_ram.evaluation.metrics import AP_EPSILON, tied_columns

Figures = NDArray[np.float64]

# Resamples that are worked on together: their weights of 57,000 images, 7 MB, stay in the processor's cache.
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """Percentile interval of a figure.

    Attributes:
        low: 2.5 % of the resamples are below, at a confidence of 0.95.
        high: 2.5 % are above.
    """

    low: float
    high: float


def resample(images: int, *, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each image is drawn: ``(resamples, images)``, each row adding up to ``images``.

    Raises:
        InputError: If there is no image or no resample.
    """
    if images < 1 or resamples < 1:
        raise InputError(f"the bootstrap needs images and resamples, got {images} and {resamples}")
    random = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.uint16)
    for row in weights:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return weights


def weighted_average_precision(
    scores: NDArray[Any],
    truth: BoolArray,
    weights: NDArray[np.uint16],
    *,
    ties: Literal["together", "published"] = "together",
) -> Figures:
    """Average precision of every class for every resample.

    Args:
        scores: Float ``(N, T)``.
        truth: bool ``(N, T)``.
        weights: ``(R, N)``, see :func:`resample`.
        ties: Of different images with equal scores, as in :func:`rasa_ram.evaluation.metrics.average_precision`.

    Returns:
        float64 ``(R, T)``; NaN where a resample has no image of the class.
    """
    count = weights.shape[1]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])
    values = np.full((len(weights), scores.shape[1]), np.nan)
    # A resample has `count` images in all, which no sum exceeds; narrow numbers are added up several at once.
    kind = np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32
    # Image by image, the weights of a part of the resamples lie side by side.
    parts = [
        (slice(start, start + _TOGETHER), np.ascontiguousarray(weights[start : start + _TOGETHER].T, kind))
        for start in range(0, len(weights), _TOGETHER)
    ]
    for index in range(scores.shape[1]):
        column = _column(scores[:, index], truth[:, index], apart=ties == "published")
        if column is not None:
            for chosen, part in parts:
                values[chosen, index] = _weighted(column, part, harmonic)
    return values


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One class, its images best first: those with equal scores form a group, and groups with positives count.

    Attributes:
        order: ``(M,)``, images up to the end of the last group that counts.
        positives: ``(P,)``, images of the class, in that order.
        firsts: ``(G,)``, which of the positives starts a group that counts.
        bounds: ``(2 G + 1,)``, ranks between which weights are added up: 0, then start and end of each group.
        single: bool ``(G,)``, whether the group is one image.
    """

    order: NDArray[np.int32]
    positives: NDArray[np.intp]
    firsts: NDArray[np.intp]
    bounds: NDArray[np.int32]
    single: BoolArray


def _column(scores: NDArray[Any], present: BoolArray, *, apart: bool) -> _Column | None:
    """The class, or None if no image shows it; with ``apart`` images with equal scores are groups of their own."""
    order = np.argsort(scores, kind="stable")[::-1]
    places = np.flatnonzero(present[order])
    if not places.size:
        return None
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], (ranked[1:] != ranked[:-1]) | apart]))
    groups, firsts = np.unique(np.searchsorted(starts, places, side="right") - 1, return_index=True)
    edges = np.stack([starts[groups], np.append(starts, len(ranked))[groups + 1]], axis=1)
    bounds = np.concatenate([[0], edges.ravel()]).astype(np.int32)
    single = edges[:, 1] - edges[:, 0] == 1
    return _Column(order[: bounds[-1]].astype(np.int32), order[places], firsts, bounds, single)


def _weighted(column: _Column, part: NDArray[Any], harmonic: Figures) -> Figures:
    """Average precision of one class for some resamples; ``part`` is ``(N, r)``."""
    ones = np.ones(len(column.order), part.dtype)
    segments = csr_array((ones, column.order, column.bounds), shape=(len(column.bounds) - 1, len(part)))
    until = np.cumsum(segments @ part, axis=0, dtype=np.int64)
    before, through = until[::2], until[1::2]  # images before each group, and up to its end
    drawn = np.add.reduceat(part[column.positives], column.firsts, axis=0, dtype=np.int64)
    found = np.cumsum(drawn, axis=0)
    alone = drawn - (before - found + drawn) * (harmonic[before + drawn] - harmonic[before])
    tied = drawn * (found / np.maximum(through, 1))
    gained = np.where(column.single[:, None], alone, tied).sum(axis=0)
    total = found[-1]
    return np.where(total > 0, gained / (total + AP_EPSILON), np.nan)


def weighted_counts(table: BoolArray, weights: NDArray[np.uint16]) -> Figures:
    """How often each class is True in every resample, float64 ``(R, T)``; ``table`` is ``(N, T)``."""
    totals = np.zeros((len(weights), table.shape[1]))
    # Few entries are True: their weights are added up class by class.
    rows, columns = np.nonzero(table)
    order = np.argsort(columns, kind="stable")
    rows, columns = rows[order], columns[order]
    if rows.size:
        starts = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]]))
        for total, weight in zip(totals, weights, strict=True):
            total[columns[starts]] = np.add.reduceat(weight[rows].astype(np.float64), starts)
    return totals


def intervals(
    scores: NDArray[Any],
    truth: BoolArray,
    predicted: BoolArray | None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Mapping[str, Interval]:
    """Percentile intervals of the figures of an evaluation.

    Classes without positives in a resample are left out of its means; those without any positives count as 0 in
    ``published_map``, as in the original's mAP, whose order of equal scores it has too. Images that are drawn twice
    lift the average precision of rare classes, so where that is low the percentiles lean upwards.

    Args:
        scores: Float ``(N, T)``.
        truth: bool ``(N, T)``.
        predicted: bool ``(N, T)``, or None where there are no thresholds.
        resamples: Drawn from the images with replacement.
        seed: Of the random numbers; the same seed gives the same intervals.
        confidence: Share of the resamples inside, in (0, 1).

    Returns:
        Those of ``map``, ``published_map`` and, with ``predicted``, ``class_precision``, ``class_recall``,
        ``overall_precision`` and ``overall_recall``.

    Raises:
        InputError: If a number is out of range.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, got {confidence}")
    weights = resample(len(truth), resamples=resamples, seed=seed)
    values = weighted_average_precision(scores, truth, weights)
    figures = {"map": _mean(values), "published_map": _published(values, scores, truth, weights)}
    if predicted is not None:
        hits, given, there = (weighted_counts(table, weights) for table in (predicted & truth, predicted, truth))
        counted = there > 0
        figures["class_precision"] = _mean(np.where(counted, hits / np.maximum(given, 1), np.nan))
        figures["class_recall"] = _mean(np.where(counted, hits / np.maximum(there, 1), np.nan))
        figures["overall_precision"] = hits.sum(axis=1) / np.maximum(given.sum(axis=1), 1)
        figures["overall_recall"] = hits.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return {name: _percentiles(values, confidence) for name, values in figures.items()}


def _published(values: Figures, scores: NDArray[Any], truth: BoolArray, weights: NDArray[np.uint16]) -> Figures:
    """The original's mAP of every resample; ``values`` are average precisions with ties together."""
    if tied := tied_columns(scores):
        values = values.copy()
        values[:, tied] = weighted_average_precision(scores[:, tied], truth[:, tied], weights, ties="published")
    return np.asarray(_mean(values) * truth.any(axis=0).mean())


def _mean(values: Figures) -> Figures:
    """Over the classes that count; NaN where none does."""
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0).sum(axis=1)
    return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)


def _percentiles(values: Figures, confidence: float) -> Interval:
    known = values[~np.isnan(values)]
    if not known.size:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))

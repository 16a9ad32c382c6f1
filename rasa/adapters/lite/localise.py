"""Boxes for words that the detector does not know, from class maps and, where it is there, DINOv2.

A class map says roughly where the classifiers see a word, mostly on its head or its wheels. DINOv2's patches say
what belongs together: its nearest neighbours carry the word from the sure places to the whole object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rasa.adapters.lite.dinov2 import Features
from rasa.arrays import FloatArray

# Class maps alone.
_GRID = 28  # cells along the longer side
_TOP_CLASSES = 5  # of a word, by their peak
_MAP_THRESHOLD = 0.3

# With DINOv2.
_LIMIT = 4.0  # log-odds beyond this are as sure as can be
_BASE, _IMPORTANCE = 0.35, 0.65  # weight of a place that does not stand out, and of one that does
_SEED, _GROUND = 0.6, 0.2
_ROUNDS, _NEIGHBOURS = 4, 5
_PRIOR, _PRIOR_AT = 0.1, 0.35  # pull of the class map on the similarity
_MARGIN, _SHARPNESS = 0.05, 12.0
_FEWEST_SEEDS, _FEWEST_GROUND = 4, 10

_PART = 0.3  # of the weight of the best part: lighter parts are noise
_MOST_PARTS = 4
_FEWEST_CELLS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a word was found.

    Attributes:
        box: float32 ``(4,)``, xyxy in pixels.
        peak: Highest evidence in it, relative to the photo's, in [0, 1].
    """

    box: FloatArray
    peak: float


def places_from_maps(maps: Sequence[FloatArray], classes: Sequence[int], size: tuple[int, int]) -> list[Place]:
    """Boxes around the peaks of the class maps.

    Args:
        maps: Logits ``(1000, h, w)``, each covering the whole photo.
        classes: ImageNet indices of the word.
        size: ``(height, width)`` of the photo, in pixels.
    """
    grid = _grid(size, _GRID)
    total = np.zeros(grid, np.float32)
    for class_map in maps:
        chosen = class_map[list(classes)]
        best = np.argsort(-chosen.max((1, 2)), kind="stable")[:_TOP_CLASSES]
        total += _stretch(_resize(np.maximum(chosen[best], 0).mean(0), grid))
    total = _stretch(total)
    return _places(total > _MAP_THRESHOLD, total, total, size)


def places_from_patches(
    maps: Sequence[FloatArray], classes: Sequence[int], features: Features, size: tuple[int, int]
) -> list[Place]:
    """Boxes around the patches that DINOv2 finds alike to where the class maps are sure.

    Args:
        maps: Logits ``(1000, h, w)``, each covering the whole photo.
        classes: ImageNet indices of the word.
        features: Of the whole photo.
        size: ``(height, width)`` of the photo, in pixels.
    """
    grid = (features.tokens.shape[0], features.tokens.shape[1])
    prior = _stretch(np.sum([_stretch(_resize(_log_odds(m, classes), grid)) for m in maps], axis=0)).ravel()
    importance = _stretch(cv2.resize(features.importance, grid[::-1], interpolation=cv2.INTER_AREA)).ravel()
    leaning = _spread(prior, importance, features.tokens.reshape(prior.size, -1))
    soft = (1 / (1 + np.exp(-_SHARPNESS * leaning))).reshape(grid).astype(np.float32)
    return _places(soft > 0.5, soft * prior.reshape(grid), prior.reshape(grid), size)


def _spread(prior: FloatArray, importance: FloatArray, tokens: FloatArray) -> FloatArray:
    """How much more each patch resembles the object than the ground, positive for the object."""
    seeds = _stretch(prior * (_BASE + _IMPORTANCE * importance))
    front, ground = seeds >= _SEED, seeds < _GROUND
    if front.sum() < _FEWEST_SEEDS:
        front = seeds >= np.quantile(seeds, 0.95)
    if ground.sum() < _FEWEST_GROUND:
        ground = seeds <= np.quantile(seeds, 0.3)
    similarity = tokens @ tokens.T
    leaning = seeds - 0.5
    for _ in range(_ROUNDS):
        leaning = _nearness(similarity, front) - _nearness(similarity, ground) + _PRIOR * (prior - _PRIOR_AT)
        new_front, new_ground = leaning > 0, leaning < -_MARGIN
        if new_front.sum() < 3 or new_ground.sum() < 3 or (new_front == front).all():
            break
        front, ground = new_front, new_ground
    return leaning


def _nearness(similarity: FloatArray, chosen: np.ndarray) -> FloatArray:
    """Mean similarity of each patch to the most alike of the chosen ones."""
    count = int(np.clip(chosen.sum() // 3, 1, _NEIGHBOURS))
    columns = similarity[:, chosen]
    nearness: FloatArray = np.partition(columns, columns.shape[1] - count, axis=1)[:, -count:].mean(1)
    return nearness


def _log_odds(class_map: FloatArray, classes: Sequence[int]) -> FloatArray:
    inside = np.zeros(len(class_map), np.bool_)
    inside[list(classes)] = True
    odds = _log_sum_exp(class_map[inside]) - _log_sum_exp(class_map[~inside])
    limited: FloatArray = np.clip(odds, -_LIMIT, _LIMIT)
    return limited


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    if not len(logits):
        return np.full(logits.shape[1:], -np.inf, np.float32)
    top = logits.max(0)
    total: FloatArray = top + np.log(np.exp(logits - top).sum(0))
    return total


def _places(mask: np.ndarray, weight: FloatArray, peaks: FloatArray, size: tuple[int, int]) -> list[Place]:
    """Boxes in pixels around the connected parts that carry enough weight, heaviest first."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    weights = np.bincount(parts.ravel(), weight.ravel(), minlength=count)[1:]
    fewest = min(_FEWEST_CELLS, mask.size)
    scale = np.array([size[1] / mask.shape[1], size[0] / mask.shape[0]])
    places = []
    for i in np.argsort(-weights, kind="stable")[:_MOST_PARTS]:
        x, y, width, height, cells = stats[i + 1]
        if cells >= fewest and weights[i] >= _PART * weights.max():
            box = np.array([x, y, x + width, y + height]) * np.tile(scale, 2)
            places.append(Place(box.astype(np.float32), float(peaks[parts == i + 1].max())))
    return places


def _grid(size: tuple[int, int], longest: int) -> tuple[int, int]:
    height, width = (max(1, round(length * longest / max(size))) for length in size)
    return height, width


def _resize(values: FloatArray, grid: tuple[int, int]) -> FloatArray:
    return np.asarray(cv2.resize(values, grid[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _stretch(values: FloatArray) -> FloatArray:
    low, high = float(values.min()), float(values.max())
    stretched: FloatArray = ((values - low) / max(high - low, 1e-9)).astype(np.float32)
    return stretched

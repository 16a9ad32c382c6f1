"""Which patches of a crop belong to the object in a box: a classifier trained on that crop alone.

Patches outside the box are background for sure; those inside are foreground to the degree that
they stand out and lie centrally. A ridge regression on the tokens separates the two, its answer
replaces the guess, and so on. Being linear in few dimensions it keeps to what all of the object
shares, where nearest neighbours also find the one patch outside that looks alike.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rasa.adapters.lite.dinov2 import Features
from rasa.arrays import BoolArray, FloatArray

_COMPONENTS = 96
_RIDGE = 0.05
_ROUNDS = 8
_SLOPE = 6.0  # from the regression's answer, about -1..1, to a logit
_MARGIN = 0.7  # patches around the box that may still hold some of the object
_LOGIT_LIMIT = 4.0
_SOME_SALIENCE, _EVEN_CENTRALITY = 0.3, 0.7  # of the generous beginning

Array = NDArray[np.float64]


def patch_logits(features: Features, box: FloatArray, *, generous: bool = False) -> FloatArray:
    """How much each patch belongs to the object that fills the box.

    Args:
        features: Of the crop around the box.
        box: float32 ``(4,)``, xyxy in patches of the grid.
        generous: Begin with all that stands out at all, wherever in the box, and not with the most
            salient part of its middle: a face then brings the body along.

    Returns:
        float32 ``(h, w)``, logits in [-4, 4]; above 0 is foreground. Outside the box they are
        as the classifier has it.
    """
    height, width, _ = features.tokens.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = _within(x, y, box, 0.0).ravel()
    outside = ~_within(x, y, box, _MARGIN).ravel()
    if not inside.any():  # a box thinner than a patch
        inside = _within(x, y, box, 0.5).ravel()
    salience = _salience(features, inside, outside)
    centrality = _centrality(x, y, box).ravel()
    if generous:
        salience = np.clip(salience / _SOME_SALIENCE, 0, 1)
        centrality = np.full_like(centrality, _EVEN_CENTRALITY)
    tokens = _principal_components(features.tokens.reshape(height * width, -1))
    foreground = np.where(inside, np.clip(0.15 + 0.45 * salience + 0.4 * centrality, 0.05, 0.95), 0.0)
    logits = np.zeros(height * width)
    for _ in range(_ROUNDS):
        logits = _SLOPE * _separate(tokens, foreground, inside, outside)
        belief = logits + (salience - 0.5) + 0.8 * (centrality - 0.4)
        foreground = np.where(inside, sigmoid(belief), 0.0)
    return np.clip(logits, -_LOGIT_LIMIT, _LOGIT_LIMIT).reshape(height, width).astype(np.float32)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """The logistic function, without overflow."""
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


def _within(x: Array, y: Array, box: FloatArray, margin: float) -> BoolArray:
    x1, y1, x2, y2 = box
    return (x > x1 - margin) & (x < x2 + margin) & (y > y1 - margin) & (y < y2 + margin)


def _centrality(x: Array, y: Array, box: FloatArray) -> Array:
    x1, y1, x2, y2 = box.astype(np.float64)
    across = (2 * x - x1 - x2) / max(x2 - x1, 1e-6)
    down = (2 * y - y1 - y2) / max(y2 - y1, 1e-6)
    return np.exp(-0.7 * (across**2 + down**2))


def _salience(features: Features, inside: BoolArray, outside: BoolArray) -> Array:
    """Importance from 0, as outside the box, to 1, as at the object's most important places."""
    height, width, _ = features.tokens.shape
    importance = cv2.resize(features.importance, (width, height), interpolation=cv2.INTER_AREA).ravel()
    low, high = np.quantile(importance[inside], (0.05, 0.95))
    if outside.any():
        low = min(low, np.median(importance[outside]))
    # A crop in which nothing stands out keeps its differences small.
    return np.clip((importance - low) / max(high - low, 0.05), 0, 1).astype(np.float64)


def _principal_components(tokens: FloatArray) -> Array:
    """The leading components of ``(L, D)`` tokens, mean squared length one, and a column of ones."""
    centred = tokens.astype(np.float64) - tokens.mean(axis=0)
    if len(tokens) < tokens.shape[1]:  # the smaller of the two Gram matrices has the same answer
        values, vectors = np.linalg.eigh(centred @ centred.T)
        parts = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :_COMPONENTS]
    else:
        parts = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :_COMPONENTS]
    parts /= max(float(np.sqrt((parts**2).sum(axis=1).mean())), 1e-6)
    return np.hstack([parts, np.ones((len(tokens), 1))])


def _separate(tokens: Array, foreground: Array, inside: BoolArray, outside: BoolArray) -> Array:
    """Ridge regression to +1 on the foreground and -1 on the rest, both sides of equal weight."""
    background = np.where(inside, 1 - foreground, np.where(outside, 1.0, 0.0))
    positive = foreground / max(foreground.sum(), 1e-6)
    negative = background / max(background.sum(), 1e-6)
    penalty = np.full(tokens.shape[1], _RIDGE)
    penalty[-1] = 1e-6  # the constant is free
    gram = (tokens * (positive + negative)[:, None]).T @ tokens
    return tokens @ np.linalg.solve(gram + np.diag(penalty), tokens.T @ (positive - negative))

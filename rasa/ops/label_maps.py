"""Masks laid over one another in one map, smaller ones in front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import BoolArray, FloatArray, IntArray

LabelMap = NDArray[np.uint8 | np.uint16]


def label_map(masks: BoolArray, *, scores: FloatArray | None = None) -> LabelMap:
    """Merge masks, smaller ones in front.

    Args:
        masks: bool ``(N, H, W)``, N at most 65535.
        scores: ``(N,)``; of masks of one size the one with the higher score lies in front. Without them, and where
            they are equal, it is the later one.

    Returns:
        ``(H, W)``: position of the mask counted from 1, 0 where there is none; uint8 up to 255 masks, else uint16.
    """
    values = np.zeros(masks.shape[1:], np.uint8 if len(masks) <= 255 else np.uint16)
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    for i in np.lexsort((np.zeros(len(masks)) if scores is None else scores, -areas)).tolist():
        rows = np.flatnonzero(masks[i].any(axis=1))
        if len(rows):
            band = slice(rows[0], rows[-1] + 1)
            np.copyto(values[band], values.dtype.type(i + 1), where=masks[i, band])
    return values


def visible_areas(values: LabelMap, count: int) -> IntArray:
    """Pixels that each of ``count`` masks has in their :func:`label_map`, int64 ``(N,)``."""
    areas: IntArray = np.bincount(values.ravel(), minlength=count + 1)[1:].astype(np.int64)
    return areas

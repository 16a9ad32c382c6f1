"""Masks as bool ``(N, H, W)``."""

from __future__ import annotations

import numpy as np

from rasa.arrays import BoolArray, FloatArray, IntArray


def mask_areas(masks: BoolArray) -> IntArray:
    """Number of pixels of each mask, int64 ``(N,)``."""
    areas: IntArray = np.count_nonzero(masks, axis=(1, 2)).astype(np.int64).reshape(len(masks))
    return areas


def masks_to_boxes(masks: BoolArray) -> FloatArray:
    """Tightest box around each mask.

    Returns:
        float32 ``(N, 4)``, xyxy in pixels, where the last pixel counts in full
        (a mask of one pixel at (x, y) gives x, y, x + 1, y + 1); zeros for an empty mask.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if len(columns):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def mask_iou(masks: BoolArray, others: BoolArray) -> FloatArray:
    """Intersection over union of every pair, float32 ``(N, M)``; 0 where both masks are empty."""
    ious = np.zeros((len(masks), len(others)), np.float32)
    for i, mask in enumerate(masks):
        for j, other in enumerate(others):
            union = np.count_nonzero(mask | other)
            ious[i, j] = np.count_nonzero(mask & other) / union if union else 0.0
    return ious

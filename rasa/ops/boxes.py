"""Boxes as float32 ``(N, 4)``, xyxy in pixels; width is x2 - x1."""

from __future__ import annotations

import numpy as np

from rasa.arrays import FloatArray


def box_areas(boxes: FloatArray) -> FloatArray:
    """Areas in square pixels, float32 ``(N,)``."""
    areas: FloatArray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def clip_boxes(boxes: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Cut boxes to an image of ``size`` ``(height, width)``; one wholly outside becomes empty."""
    height, width = size
    limits = np.array([width, height, width, height], np.float32)
    clipped: FloatArray = np.clip(boxes, np.float32(0), limits)
    return clipped


def box_iou(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of every pair.

    Args:
        boxes: ``(N, 4)``.
        others: ``(M, 4)``.

    Returns:
        float32 ``(N, M)`` in [0, 1]; 0 where both boxes are empty.
    """
    overlap = _intersections(boxes, others)
    union = box_areas(boxes)[:, None] + box_areas(others)[None] - overlap
    ious: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ious


def box_coverage(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Share of each box that lies inside each other box.

    Args:
        boxes: ``(N, 4)``.
        others: ``(M, 4)``.

    Returns:
        float32 ``(N, M)`` in [0, 1]: intersection over the area of ``boxes``; 0 for empty boxes.
    """
    overlap = _intersections(boxes, others)
    areas = np.broadcast_to(box_areas(boxes)[:, None], overlap.shape)
    shares: FloatArray = np.divide(overlap, areas, out=np.zeros_like(overlap), where=areas > 0)
    return shares


def _intersections(boxes: FloatArray, others: FloatArray) -> FloatArray:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.clip(high - low, np.float32(0), None)
    overlaps: FloatArray = sides[..., 0] * sides[..., 1]
    return overlaps

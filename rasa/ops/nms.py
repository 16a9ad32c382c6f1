"""Greedy non-maximum suppression, with one threshold within labels and one across them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rasa.arrays import FloatArray, IntArray
from rasa.ops.boxes import box_iou


def nms(
    boxes: FloatArray, scores: FloatArray, labels: Sequence[str], *, nms_threshold: float, merge_threshold: float = 1.0
) -> IntArray:
    """Keep the best of every group of boxes that show one object.

    Boxes are visited from the best score down, ties in their given order. A box is
    dropped when its IoU with a kept box is above ``nms_threshold`` where the two
    have one label, or above ``merge_threshold`` where their labels differ.

    Args:
        boxes: ``(N, 4)``, xyxy.
        scores: ``(N,)``.
        labels: N labels.
        nms_threshold: In [0, 1]; 1 drops nothing.
        merge_threshold: In [0, 1]; 1, the default, is class-aware NMS.

    Returns:
        int64 positions of the boxes kept, in increasing order.
    """
    _, classes = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        limits = np.where(classes[rest] == classes[best], nms_threshold, merge_threshold)
        waiting = rest[box_iou(boxes[best][None], boxes[rest])[0] <= limits]
    return np.sort(np.array(kept, np.int64))

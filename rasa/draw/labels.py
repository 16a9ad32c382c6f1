"""Where labels go: beside their boxes, inside the picture, never on one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rasa.arrays import IntArray, read_only

Rect = tuple[int, int, int, int]

# What it costs to stand on an edge other than the first choice, in shares of a hidden smaller object.
_EDGE_COST = {"above": 0.0, "inside top": 0.1, "below": 0.15, "inside bottom": 0.2, "right": 0.25, "left": 0.3}
_SLIDES = 7


def place_labels(
    boxes: ArrayLike, sizes_wh: Sequence[tuple[int, int]], picture_wh: tuple[int, int], *, gap: int = 1
) -> list[Rect | None]:
    """Find a place for one label per box.

    A label stands above its box if it can, else inside or at another edge, where it hides the
    least of smaller objects. Small boxes choose first, as they have the fewest places.

    Args:
        boxes: ``(N, 4)``, xyxy in pixels.
        sizes_wh: N sizes of labels, ``(width, height)`` in pixels.
        picture_wh: ``(width, height)`` of the picture in pixels.
        gap: Pixels that stay free between two labels.

    Returns:
        N rectangles xyxy in pixels, inside the picture and of the sizes asked for; None where there is no room.

    Raises:
        InputError: If ``boxes`` is not one row per size.

    Example:
        >>> place_labels([[10, 20, 50, 60]], [(30, 8)], (100, 100))
        [(10, 12, 40, 20)]
    """
    corners = read_only("boxes", boxes, dtype=np.float64, shape=(len(sizes_wh), 4), hint="pass one size per box")
    corners = np.clip(corners, 0, [*picture_wh, *picture_wh])
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    placed: list[Rect | None] = [None] * len(sizes_wh)
    taken = np.zeros((0, 4), np.int64)
    for i in np.argsort(areas, kind="stable"):
        places, costs = _candidates(corners[i], sizes_wh[i], picture_wh)
        free = ~_overlap(places, taken + np.array([-gap, -gap, gap, gap])).any(axis=1)
        if not free.any():
            continue
        smaller = corners[(areas <= areas[i]) & (np.arange(len(areas)) != i)]
        hidden = _overlap(places[free], smaller).sum(axis=1) / max(1, sizes_wh[i][0] * sizes_wh[i][1])
        best = places[free][np.argmin(costs[free] + hidden)]
        placed[i] = (int(best[0]), int(best[1]), int(best[2]), int(best[3]))
        taken = np.vstack([taken, best])
    return placed


def _candidates(
    box: NDArray[np.float64], size_wh: tuple[int, int], picture_wh: tuple[int, int]
) -> tuple[IntArray, NDArray[np.float64]]:
    (width, height), (x1, y1, x2, y2) = size_wh, (round(float(v)) for v in box)
    if width > picture_wh[0] or height > picture_wh[1]:
        return np.zeros((0, 4), np.int64), np.zeros(0)
    rows, columns = (
        np.unique(np.linspace(low, max(low, high - length), _SLIDES).round().astype(np.int64))
        for low, high, length in ((y1, y2, height), (x1, x2, width))
    )
    edges = {"above": y1 - height, "inside top": y1, "below": y2, "inside bottom": y2 - height}
    corners = [(x, y, _EDGE_COST[edge] + 0.01 * i) for edge, y in edges.items() for i, x in enumerate(columns)]
    sides = {"right": x2, "left": x1 - width}
    corners += [(x, y, _EDGE_COST[edge] + 0.01 * i) for edge, x in sides.items() for i, y in enumerate(rows)]
    table = np.array(corners)
    left = np.clip(table[:, 0], 0, picture_wh[0] - width).astype(np.int64)
    top = np.clip(table[:, 1], 0, picture_wh[1] - height).astype(np.int64)
    return np.stack([left, top, left + width, top + height], axis=1), table[:, 2]


def _overlap(rects: NDArray[np.generic], others: NDArray[np.generic]) -> NDArray[np.float64]:
    """Area that each of ``(N, 4)`` shares with each of ``(M, 4)``: ``(N, M)``."""
    low = np.maximum(rects[:, None, :2], others[None, :, :2])
    high = np.minimum(rects[:, None, 2:], others[None, :, 2:])
    shared: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2).astype(np.float64)
    return shared

"""Masks as polygons along the edges of their pixels, and back.

A pixel at column x and row y is the square from (x, y) to (x + 1, y + 1), as in boxes. A polygon that follows
these edges is exact: filled where the centre of a pixel lies inside, or by pycocotools, it gives the same pixels.
Contours through the centres of the border pixels, which OpenCV gives, lose half a pixel all around.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rasa.arrays import BoolArray, IntArray
from rasa.errors import InputError

Ring = NDArray[np.float64]
"""Corners of a closed line, float64 ``(K, 2)`` as x, y in pixels; the last is joined to the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One part of a mask: all pixels that share sides with one another.

    Attributes:
        outer: The ring around it, clockwise as seen on the screen.
        holes: The rings around what is cut out of it, counterclockwise.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


def mask_to_polygons(mask: BoolArray) -> list[Polygon]:
    """Trace the parts of a mask along the edges of their pixels.

    Pixels that touch at a corner only are parts of their own, so that a gap which opens by a corner is no hole.

    Args:
        mask: bool ``(H, W)``.

    Returns:
        The parts by their first pixel, row by row; their corners are whole numbers. None for an empty mask.

    Raises:
        InputError: If ``mask`` has not two axes.

    Example:
        >>> import numpy as np
        >>> [part] = mask_to_polygons(np.ones((2, 3), bool))
        >>> part.outer.tolist()
        [[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]
    """
    if mask.ndim != 2:
        raise InputError(f"a mask must have shape (height, width), got {mask.shape}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    y, x = int(rows[0]), int(columns[0])
    cut = np.pad(mask[y : rows[-1] + 1, x : columns[-1] + 1].astype(np.bool_, copy=False), 1)
    corners, rings = _trace(cut)
    outside = cut[corners[:, 0] + 1, corners[:, 1] + 1][[ring[0] for ring in rings]]
    parents = _parents(cut.shape, corners, rings=rings, outside=outside)
    holes: dict[int, list[Ring]] = {i: [] for i in np.flatnonzero(outside).tolist()}
    points: Ring = np.add(corners[:, ::-1], (x, y), dtype=np.float64)
    for ring, parent, is_outer in zip(rings, parents, outside, strict=True):
        if not is_outer:
            holes[parent].append(points[[ring[0], *ring[:0:-1]]])
    return [Polygon(points[rings[i]], tuple(cut_out)) for i, cut_out in holes.items()]


def polygons_to_mask(polygons: Iterable[Polygon], size: tuple[int, int]) -> BoolArray:
    """Fill polygons: a pixel belongs to them if its centre does. The inverse of :func:`mask_to_polygons`.

    Args:
        polygons: Parts; what lies outside of the image is cut off.
        size: ``(height, width)`` of the mask in pixels.

    Returns:
        bool ``(H, W)``.

    Raises:
        InputError: If a ring is no list of finite points.
    """
    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        mask |= fill_rings([polygon.outer, *polygon.holes], size)
    return mask


def fill_rings(rings: Sequence[ArrayLike], size: tuple[int, int]) -> BoolArray:
    """Fill what lies within an odd number of rings.

    Args:
        rings: Each ``(K, 2)`` x, y in pixels.
        size: ``(height, width)`` of the mask in pixels.

    Returns:
        bool ``(H, W)``: whether the centre of the pixel is inside.

    Raises:
        InputError: If a ring is no list of finite points.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.int64)
    for ring in rings:
        points = _checked(ring)
        rows, xs = _crossings(points, np.roll(points, -1, axis=0), height)
        # A crossing flips every pixel whose centre lies to the right of it.
        columns = np.clip(np.ceil(xs - 0.5), 0, width).astype(np.int64)
        np.add.at(flips, (rows, columns), 1)
    inside: BoolArray = np.cumsum(flips, axis=1)[:, :width] % 2 == 1
    return inside


def outlines_iou(mask: BoolArray, polygons: Sequence[Polygon]) -> float:
    """How well the outer rings alone keep a mask: their intersection over union, 1 where there are no holes.

    Args:
        mask: bool ``(H, W)``.
        polygons: Those of :func:`mask_to_polygons`.

    Returns:
        In [0, 1]; 1 for an empty mask.
    """
    if not any(polygon.holes for polygon in polygons):
        return 1.0
    filled = polygons_to_mask([Polygon(polygon.outer) for polygon in polygons], (mask.shape[0], mask.shape[1]))
    return float(np.count_nonzero(filled & mask) / np.count_nonzero(filled | mask))


def _trace(cut: BoolArray) -> tuple[IntArray, list[list[int]]]:
    """Corners ``(K, 2)`` as y, x, row by row, and rings of their positions that begin with the first and go right."""
    one, two, three, four = cut[:-1, :-1], cut[:-1, 1:], cut[1:, :-1], cut[1:, 1:]
    # Around a corner an odd number of the four pixels is set, or two that touch there only: then two lines meet.
    crossed = (one == four) & (two == three) & (one != two)
    corner = (one ^ two ^ three ^ four) | crossed
    corners = np.argwhere(corner)
    twice = crossed[corner]
    corners = np.repeat(corners, twice.astype(np.int64) + 1, axis=0)
    second = np.zeros(len(corners), np.bool_)
    second[1:] = (corners[1:] == corners[:-1]).all(axis=1)
    # Of the two at one place, the first has the edge to the left and the second that to the right.
    across = np.arange(len(corners)).reshape(-1, 2)
    # The line bends around set pixels: where upper left is set, the one to the left goes up, else down.
    below = second ^ ~one[corners[:, 0], corners[:, 1]]
    along = np.lexsort((below, corners[:, 0], corners[:, 1])).reshape(-1, 2)
    return corners, _cycles(_partners(across), _partners(along))


def _partners(pairs: IntArray) -> list[int]:
    partner = np.zeros(pairs.size, np.int64)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return list(partner.tolist())


def _cycles(across: list[int], along: list[int]) -> list[list[int]]:
    free = [True] * len(across)
    rings: list[list[int]] = []
    for start in range(len(across)):
        ring: list[int] = []
        i = start
        while free[i]:
            j = across[i]
            free[i] = free[j] = False
            ring += (i, j)
            i = along[j]
        if ring:
            rings.append(ring)
    return rings


def _parents(shape: tuple[int, ...], corners: IntArray, *, rings: list[list[int]], outside: BoolArray) -> list[int]:
    """Of each ring, the outer ring of the part that it bounds."""
    parents = list(range(len(rings)))
    if outside.all():
        return parents
    owner = np.full(shape, -1, np.int64)
    for number, ring in enumerate(rings):
        places = corners[ring]
        for (y, x), (end, _) in zip(places[1::2].tolist(), np.roll(places, -2, axis=0)[::2].tolist(), strict=True):
            owner[min(y, end) : max(y, end), x] = number
    for number in np.flatnonzero(~outside).tolist():
        # The next line to the left of a hole belongs to the same part, and was found before.
        first = corners[rings[number][0]]
        line = owner[first[0], : first[1]]
        parents[number] = parents[line[np.flatnonzero(line >= 0)[-1]]]
    return parents


def _checked(ring: ArrayLike) -> Ring:
    try:
        points = np.asarray(ring, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a ring must be points (x, y) in pixels: {error}") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"a ring must be finite points of shape (K, 2), got shape {points.shape}")
    return points


def _crossings(start: Ring, end: Ring, height: int) -> tuple[IntArray, Ring]:
    """Where edges cross the centre lines of the rows: rows and x."""
    # From top to bottom always, so that a line and its way back round alike and cancel out.
    upward = (start[:, 1] > end[:, 1])[:, None]
    start, end = np.where(upward, end, start), np.where(upward, start, end)
    low, high = start[:, 1], end[:, 1]
    # Row r is crossed if low <= r + 0.5 < high, so that a corner on the line counts once.
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
    edge = np.repeat(np.arange(len(start)), last - first)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
    rise = end[edge, 1] - start[edge, 1]
    share = (rows + 0.5 - start[edge, 1]) / rise
    return rows, start[edge, 0] + share * (end[edge, 0] - start[edge, 0])

"""Rings joined to one line, for formats whose objects are one polygon, and read back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rasa.arrays import BoolArray
from rasa.errors import InputError
from rasa.ops.polygons import Ring, fill_rings

INSET = 0.01
"""Pixels by which :func:`inset` moves a ring; less than half, so that no centre of a pixel changes sides."""


def join_rings(rings: Sequence[Ring]) -> Ring:
    """One closed line through all rings, joined by bridges without width.

    A bridge is walked forth and back, so that it encloses nothing: filled by the even-odd rule, the line gives the
    same pixels as the rings, holes among them. It goes from corner to nearby corner.

    Args:
        rings: At least one, each ``(K, 2)`` x, y.

    Returns:
        ``(K1 + ... + 2 * (N - 1), 2)``: every ring that is joined adds its first corner and the bridge's start again.

    Source:
        The idea of ``merge_multi_segment`` in the COCO converter of ultralytics, for parts; here for holes too.
    """
    line = rings[0]
    for ring in rings[1:]:
        at, start = _near(line, ring)
        there = np.roll(ring, -start, axis=0)
        line = np.concatenate((line[: at + 1], there, there[:1], line[at:]))
    return line


def inset(ring: Ring) -> Ring:
    """A ring along edges of pixels, moved towards the mask by :data:`INSET` pixels on every side.

    OpenCV's ``fillPoly``, which trainers use, cuts coordinates to whole numbers and fills the pixels they name: at
    right and bottom, a ring along the edges would gain a pixel. Moved, it is exact there and by centres of pixels.

    Args:
        ring: Of :func:`rasa.ops.polygons.mask_to_polygons`, which keeps the mask to the right of the way.
    """
    way = np.sign(np.roll(ring, -1, axis=0) - ring)
    towards = np.stack((-way[:, 1], way[:, 0]), axis=1)
    moved: Ring = ring + INSET * (towards + np.roll(towards, 1, axis=0))
    return moved


def paint_rings(rings: Sequence[ArrayLike], mask: BoolArray) -> None:
    """Set the pixels of ``mask`` whose centre lies in an odd number of rings; the others keep their values.

    Args:
        rings: Each ``(K, 2)`` x, y in pixels, of untrusted origin.
        mask: bool ``(H, W)``, changed.

    Raises:
        InputError: If a ring is no list of finite points.
    """
    points = [np.asarray(ring, np.float64) for ring in rings]
    if not all(ring.ndim == 2 and ring.shape[1] == 2 and len(ring) and np.isfinite(ring).all() for ring in points):
        raise InputError("a polygon must be finite points (x, y) in pixels")
    if not points:
        return
    every = np.concatenate(points)
    limits = mask.shape[::-1]
    # Only the part around the rings is filled, which is most of the cost.
    x1, y1 = np.clip(np.floor(every.min(axis=0)), 0, limits).astype(int)
    x2, y2 = np.clip(np.ceil(every.max(axis=0)), 0, limits).astype(int)
    if x1 < x2 and y1 < y2:
        mask[y1:y2, x1:x2] |= fill_rings([ring - (x1, y1) for ring in points], (int(y2 - y1), int(x2 - x1)))


def _near(line: Ring, ring: Ring) -> tuple[int, int]:
    """Positions of a corner of each that are near one another."""
    at, start = 0, 0
    # Not the nearest pair of all, which takes the product of the lengths: a few steps to and fro.
    for _ in range(3):
        at = int(((line - ring[start]) ** 2).sum(axis=1).argmin())
        start = int(((ring - line[at]) ** 2).sum(axis=1).argmin())
    return at, start

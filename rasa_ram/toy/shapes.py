"""Outlines of the toy world's shapes, as polygons within the unit circle; y points down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import InputError

# Corners of a curve: more cannot be seen at 64 pixels.
_STEPS = 40


@cache
def outline(shape: str) -> tuple[FloatArray, ...]:
    """Polygons of ``shape``, each float32 ``(P, 2)`` of x and y in [-1, 1]; a later one is a hole in the first.

    Raises:
        InputError: If the world has no such shape.
    """
    if shape not in _MAKERS:
        raise InputError(f"the toy world has no shape {shape!r}; it has {', '.join(sorted(_MAKERS))}")
    return tuple(np.asarray(polygon, np.float32) for polygon in _MAKERS[shape]())


def _arc(*, radius: float = 1.0, start: float = 0.0, end: float = 360.0, x: float = 0.0, y: float = 0.0) -> FloatArray:
    """Points on a circle around (x, y), from ``start`` to ``end`` in degrees, clockwise on the screen."""
    angles = np.radians(np.linspace(start, end, _STEPS))
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).astype(np.float32)


def _regular(corners: int) -> FloatArray:
    angles = np.radians(-90 + 360 / corners * np.arange(corners))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _star() -> list[FloatArray]:
    points = _regular(10)
    points[1::2] *= 0.42
    return [points]


def _heart() -> list[FloatArray]:
    t = np.linspace(0, 2 * np.pi, _STEPS)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.asarray(np.stack([x, y], axis=1) / 17, np.float32)]


def _cross() -> list[list[tuple[float, float]]]:
    a, b = 0.33, 0.95
    return [
        [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    ]


def _crescent() -> list[FloatArray]:
    # The inner circle passes through both ends of the outer arc.
    return [np.concatenate([_arc(start=50, end=310), _arc(radius=0.773, start=262, end=98, x=0.75)])]


def _flower() -> list[FloatArray]:
    angles = np.linspace(0, 2 * np.pi, 2 * _STEPS)
    radius = 0.72 + 0.28 * np.cos(5 * angles)
    return [np.stack([radius * np.sin(angles), -radius * np.cos(angles)], axis=1)]


def _drop() -> list[FloatArray]:
    return [np.concatenate([_arc(radius=0.62, start=-30, end=210, y=0.38), np.array([[0, -1]])])]


def _fish() -> list[FloatArray]:
    body = _arc(start=25, end=335) * np.array([-0.7, 0.55]) + np.array([-0.25, 0])
    return [np.concatenate([body, np.array([[0.85, -0.5], [0.85, 0.5]])[:: -1 if body[-1, 1] > 0 else 1]])]


def _key() -> list[FloatArray]:
    bow = _arc(radius=0.48, start=20, end=340, x=-0.5)
    bit = np.array(
        [[0.95, -0.16], [0.9, 0.42], [0.75, 0.42], [0.75, 0.16], [0.5, 0.16], [0.5, 0.42], [0.3, 0.42], [0.3, 0.16]]
    )
    return [np.concatenate([bow, bit]), _arc(radius=0.22, x=-0.5)]


def _tree() -> list[list[tuple[float, float]]]:
    right = [(0.0, -1.0), (0.55, -0.35), (0.25, -0.35), (0.8, 0.5), (0.15, 0.5), (0.15, 0.95)]
    return [[*right, *((-x, y) for x, y in reversed(right[1:]))]]


_MAKERS: dict[str, Callable[[], Sequence[Any]]] = {
    "circle": lambda: [_arc(radius=0.95)],
    "square": lambda: [[(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]],
    "triangle": lambda: [_regular(3)],
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "diamond": lambda: [[(0, -1), (0.62, 0), (0, 1), (-0.62, 0)]],
    "crescent": _crescent,
    "arrow": lambda: [[(-0.95, -0.25), (0.15, -0.25), (0.15, -0.7), (1, 0), (0.15, 0.7), (0.15, 0.25), (-0.95, 0.25)]],
    "ring": lambda: [_arc(), _arc(radius=0.55)],
    "hourglass": lambda: [[(-0.6, -0.78), (0.6, -0.78), (0.08, 0), (0.6, 0.78), (-0.6, 0.78), (-0.08, 0)]],
    "flower": _flower,
    "drop": _drop,
    "house": lambda: [[(0, -1), (0.95, -0.15), (0.6, -0.15), (0.6, 0.75), (-0.6, 0.75), (-0.6, -0.15), (-0.95, -0.15)]],
    "tree": _tree,
    "lightning bolt": lambda: [[(0.25, -0.95), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 0.95), (0.6, -0.25), (0.05, -0.25)]],
    "fish": _fish,
    "key": _key,
}

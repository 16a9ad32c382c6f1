"""RandAugment as the published training has it: which operations, how strong, and how they change a picture.

N operations are drawn with replacement, and each is then applied with probability one half. At magnitude m of 10:

| operation | what it does |
| --- | --- |
| Identity | nothing |
| AutoContrast, Equalize | per channel, as ``PIL.ImageOps`` |
| Brightness, Sharpness | as ``PIL.ImageEnhance``, factor 0.1 + 1.8 m / 10: 1.0, which is nothing, at the published 5 |
| ShearX, ShearY | by 0.3 m / 10 or its negative; the origin is the middle of the first pixel |
| TranslateX, TranslateY | by m pixels or -m |
| Rotate | by 3 m degrees or -3 m about (W / 2, H / 2), counted from the middle of the first pixel |

What comes in from outside is grey 128. Geometry is bilinear. The published code warps with OpenCV, which blends the
outermost half pixel with the grey; Pillow repeats the edge there, and agrees elsewhere up to rounding.

An operation is first made a *change*: a table of values, a map of positions in units of the side, or a factor. The
same change fits a picture of any size, so two views of one crop are changed alike.

Source:
    RandAugment, arXiv:1909.13719; ``RandomAugment(2, 5, isPIL=True, augs=...)`` of github.com/salesforce/BLIP
    (transform/randaugment.py) and of github.com/xinyu1205/recognize-anything.
"""  # fmt: skip

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageEnhance

from rasa.arrays import IntArray
from rasa.errors import InputError

OPERATIONS = (
    "Identity", "AutoContrast", "Brightness", "Sharpness", "Equalize", "ShearX", "ShearY", "TranslateX", "TranslateY",
    "Rotate",
)  # fmt: skip
MAX_MAGNITUDE = 10.0
FILL = (128, 128, 128)

_SIGNED = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})
_APPLIED = 0.5  # probability of each drawn operation
_SAME = tuple(range(256))


@dataclass(frozen=True, slots=True)
class ValueTable:
    """New values of the red, green and blue channel, 256 each."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PositionMap:
    """Where the pixel at (x, y) comes from: (a x + b y + c, d x + e y + f), both in units of the side."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float


@dataclass(frozen=True, slots=True)
class Sharpening:
    """Factor of ``PIL.ImageEnhance.Sharpness``; below 1 it blurs."""

    factor: float


Change = ValueTable | PositionMap | Sharpening


def draw_operations(rng: np.random.Generator, count: int, magnitude: float) -> list[tuple[str, float]]:
    """Draw ``count`` operations and keep those that the coin is for, with their strength in the module's units.

    Args:
        rng: Source of all randomness.
        count: N.
        magnitude: m in [0, ``MAX_MAGNITUDE``].
    """
    names = rng.choice(len(OPERATIONS), size=count)
    coins, signs = rng.random((2, count))
    return [
        (OPERATIONS[name], strength(OPERATIONS[name], magnitude) * (-1 if OPERATIONS[name] in _SIGNED and flip else 1))
        for name, coin, flip in zip(names, coins < _APPLIED, signs < 0.5, strict=True)
        if coin
    ]


def strength(name: str, magnitude: float) -> float:
    """What ``magnitude`` means for an operation: a factor, a slope, pixels or degrees; 0 where it means nothing.

    Raises:
        InputError: If there is no such operation.
    """
    share = magnitude / MAX_MAGNITUDE
    factor = 0.1 + 1.8 * share
    values = {
        "Brightness": factor, "Sharpness": factor, "ShearX": 0.3 * share, "ShearY": 0.3 * share,
        "TranslateX": 10 * share, "TranslateY": 10 * share, "Rotate": 30 * share,
    }  # fmt: skip
    if name not in OPERATIONS:
        raise InputError(f"unknown operation {name!r}; there are {', '.join(OPERATIONS)}")
    return values.get(name, 0.0)


def to_change(name: str, amount: float, picture: PIL.Image.Image) -> Change | None:
    """The change that an operation makes of a square RGB ``picture``; None where it changes nothing."""
    if name == "Identity" or (name in {"Brightness", "Sharpness"} and amount == 1):
        return None
    if name == "Sharpness":
        return Sharpening(amount)
    if name in _SIGNED:
        return _position_map(name, amount, picture.width)
    if name == "Brightness":
        return ValueTable(tuple(np.clip(np.arange(256) * amount, 0, 255).astype(int).tolist()) * 3)
    return _table_of(name, picture)


def apply_change(picture: PIL.Image.Image, what: Change) -> PIL.Image.Image:
    """Apply a change to a square RGB picture."""
    if isinstance(what, ValueTable):
        return picture.point(what.values)
    if isinstance(what, Sharpening):
        return ImageEnhance.Sharpness(picture).enhance(what.factor)
    side = picture.width
    data = (what.a, what.b, what.c * side, what.d, what.e, what.f * side)
    affine, bilinear = PIL.Image.Transform.AFFINE, PIL.Image.Resampling.BILINEAR
    return picture.transform(picture.size, affine, data, bilinear, fillcolor=FILL)


def _table_of(name: str, picture: PIL.Image.Image) -> ValueTable | None:
    counts = np.array(picture.histogram(), dtype=np.int64).reshape(3, 256)
    row = _contrast_row if name == "AutoContrast" else _equal_row
    values = tuple(value for channel in counts for value in row(channel))
    return None if values == _SAME * 3 else ValueTable(values)


def _contrast_row(counts: IntArray) -> tuple[int, ...]:
    """Stretch the values that occur to 0 to 255."""
    low, high = np.flatnonzero(counts)[[0, -1]].tolist()
    if low == high:
        return _SAME
    scale = 255 / (high - low)
    return tuple(min(255, max(0, int(value * scale - low * scale))) for value in range(256))


def _equal_row(counts: IntArray) -> tuple[int, ...]:
    """Spread the values so that about as many pixels have each: (pixels below + step / 2) / step, cut to integers."""
    step = int(counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if step == 0:
        return _SAME
    below = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return tuple(np.minimum((step // 2 + below) // step, 255).tolist())


def _position_map(name: str, amount: float, side: int) -> PositionMap:
    """Undo the published map of pixels (x, y), whose middles Pillow counts as x + 1/2 and y + 1/2."""
    half = 0.5 / side
    if name == "ShearX":
        return PositionMap(1, -amount, amount * half, 0, 1, 0)
    if name == "ShearY":
        return PositionMap(1, 0, 0, -amount, 1, amount * half)
    if name == "TranslateX":
        return PositionMap(1, 0, amount / side, 0, 1, 0)
    if name == "TranslateY":
        return PositionMap(1, 0, 0, 0, 1, amount / side)
    cos, sin, middle = math.cos(math.radians(amount)), math.sin(math.radians(amount)), 0.5 + half
    return PositionMap(cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - cos - sin))

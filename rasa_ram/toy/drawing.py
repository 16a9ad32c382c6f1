"""Pixels of the toy world: shapes with colour, texture and outline on a background."""

from __future__ import annotations

from functools import cache

import numpy as np
import PIL.Image
from PIL import ImageDraw

from rasa.arrays import BoolArray, ByteArray, FloatArray
from rasa.errors import InputError
from rasa_ram.toy.shapes import outline

# Side of a scene, in pixels.
SIDE = 64
# Drawn larger and averaged, for smooth edges.
_FINE = 4
# Side of a texture's stripe or field, in pixels: two of them are a patch of the toy model.
_FIELD = 4
# Pictures of a background are cut out of a larger one.
_CANVAS = 2 * SIDE


def coverage(shape: str, centre: tuple[float, float], radius: float) -> FloatArray:
    """How much of each pixel a shape covers: float32 ``(64, 64)`` in [0, 1].

    Args:
        shape: One of the world's.
        centre: x and y, in pixels.
        radius: Of the circle around it, in pixels.
    """
    left, top, right, bottom = _window(centre, radius)
    picture = PIL.Image.new("L", ((right - left) * _FINE, (bottom - top) * _FINE))
    pen = ImageDraw.Draw(picture)
    for hole, polygon in enumerate(outline(shape)):
        points = (polygon * radius + centre - (left, top)) * _FINE
        pen.polygon(points.ravel().tolist(), fill=0 if hole else 255)
    covered = np.zeros((SIDE, SIDE), np.float32)
    covered[top:bottom, left:right] = np.asarray(picture.reduce(_FINE), np.float32) / 255
    return covered


def paint(pixels: FloatArray, covered: FloatArray, fill: FloatArray, *, edge: FloatArray) -> None:
    """Lay a shape over ``pixels``, float32 ``(64, 64, 3)`` in [0, 255], in place.

    Args:
        pixels: The scene so far.
        covered: ``(64, 64)`` from :func:`coverage`.
        fill: ``(64, 64, 3)``, the shape's colours.
        edge: ``(3,)``, colour of the line around it.
    """
    rim = _widen(covered)[..., None]
    pixels += rim * (edge - pixels)
    pixels += covered[..., None] * (fill - pixels)


def texture_fill(colour: FloatArray, texture: str | None, *, centre: tuple[float, float]) -> FloatArray:
    """Colours of a textured area: float32 ``(64, 64, 3)``; a texture's second colour is lighter or darker.

    Raises:
        InputError: If the world has no such texture.
    """
    if texture is None:
        return np.broadcast_to(colour, (SIDE, SIDE, 3))
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    second = colour * 0.35 if colour.mean() > 110 else colour + (255 - colour) * 0.65
    return np.where(
        _pattern(texture, (x - centre[0]) / _FIELD, (y - centre[1]) / _FIELD)[..., None], second, colour
    ).astype(np.float32)


def _pattern(texture: str, u: FloatArray, v: FloatArray) -> BoolArray:
    if texture == "striped":
        return np.asarray(np.floor(v) % 2 == 1)
    if texture == "checkered":
        return np.asarray((np.floor(u) + np.floor(v)) % 2 == 1)
    if texture == "dotted":
        return np.asarray((u % 2 - 1) ** 2 + (v % 2 - 1) ** 2 < 0.3)
    raise InputError(f"the toy world has no texture {texture!r}; it has striped, dotted and checkered")


def background(name: str, rng: np.random.Generator) -> FloatArray:
    """A background, another part of it and another brightness each time: float32 ``(64, 64, 3)`` in [0, 255].

    Raises:
        InputError: If the world has no such background.
    """
    y, x = rng.integers(0, _CANVAS - SIDE, 2)
    part = _canvas(name)[y : y + SIDE, x : x + SIDE].astype(np.float32)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return np.asarray(part * np.float32(rng.uniform(0.88, 1.12)) + np.float32(rng.uniform(-10, 10)), np.float32)


def finish(pixels: FloatArray, rng: np.random.Generator) -> ByteArray:
    """Add a camera's noise and round: uint8 ``(64, 64, 3)``."""
    noise = rng.integers(-6, 7, pixels.shape, np.int8)
    return np.asarray(np.clip(pixels + noise, 0, 255), np.uint8)


def _window(centre: tuple[float, float], radius: float) -> tuple[int, int, int, int]:
    """Whole pixels around a circle, within the scene: left, top, right, bottom."""
    low = [max(0, int(np.floor(c - radius)) - 1) for c in centre]
    high = [min(SIDE, int(np.ceil(c + radius)) + 1) for c in centre]
    return low[0], low[1], high[0], high[1]


def _widen(covered: FloatArray) -> FloatArray:
    """Widen a shape by one pixel in each direction."""
    wide = np.pad(covered, 1)
    wide = np.maximum(np.maximum(wide[:-2], wide[2:]), wide[1:-1])
    return np.asarray(np.maximum(np.maximum(wide[:, :-2], wide[:, 2:]), wide[:, 1:-1]), np.float32)


@cache
def _canvas(name: str) -> ByteArray:
    """The whole of a background, the same in every process: uint8 ``(128, 128, 3)``."""
    if name not in _CANVASES:
        raise InputError(f"the toy world has no background {name!r}; it has {', '.join(_CANVASES)}")
    rng = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[:_CANVAS, :_CANVAS]
    canvas = _CANVASES[name](np.asarray(x, np.float32), np.asarray(y, np.float32), rng)
    picture = np.clip(canvas, 0, 255).astype(np.uint8)
    picture.setflags(write=False)
    return picture


def _grain(rng: np.random.Generator, strength: float) -> FloatArray:
    return np.asarray(rng.normal(0, strength, (_CANVAS, _CANVAS, 1)), np.float32)


def _mix(mask: BoolArray, colour: tuple[int, int, int], other: tuple[int, int, int]) -> FloatArray:
    return np.where(mask[..., None], np.array(colour, np.float32), np.array(other, np.float32))


def _meadow(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    blades = (x + 3 * rng.random(x.shape)) % 5 < 1.5
    return _mix(blades, (90, 160, 70), (130, 195, 100)) + _grain(rng, 8)


def _desert(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    dunes = np.sin((y + 4 * np.sin(x / 14)) / 4.0)[..., None]
    return np.array((225, 195, 140), np.float32) + 14 * dunes + _grain(rng, 5)


def _sea(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    crests = np.sin(y / 1.6 + 1.5 * np.sin(x / 5)) > 0.75
    return _mix(crests, (170, 205, 235), (95, 150, 205)) + _grain(rng, 4)


def _snow(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    return np.array((225, 230, 240), np.float32) + 6 * np.sin((x + 2 * y) / 25)[..., None] + _grain(rng, 4)


def _night(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _mix(rng.random(x.shape) < 0.02, (250, 250, 220), (35, 38, 75)) + _grain(rng, 3)


def _bricks(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    joints = (y % 8 < 1.2) | ((x + 8 * (y // 8 % 2)) % 16 < 1.2)
    return _mix(joints, (205, 195, 185), (170, 100, 85)) + _grain(rng, 6)


def _planks(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    grain = 8 * np.sin(y / 3 + np.sin(x / 3))[..., None]
    return _mix(x % 11 < 1, (120, 90, 60), (190, 150, 105)) + grain + _grain(rng, 4)


def _paper(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _mix((x % 8 < 1) | (y % 8 < 1), (165, 195, 225), (240, 238, 225)) + _grain(rng, 2)


_CANVASES = {
    "meadow": _meadow,
    "desert": _desert,
    "sea": _sea,
    "snow": _snow,
    "night sky": _night,
    "brick wall": _bricks,
    "wooden floor": _planks,
    "paper": _paper,
}

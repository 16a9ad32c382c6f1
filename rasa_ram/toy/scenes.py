"""Scenes of the toy world: what is where, how it looks, and all that is true of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from rasa.arrays import BoolArray, ByteArray, FloatArray
from rasa.errors import InputError
from rasa_ram.toy.drawing import SIDE, background, coverage, finish, paint, texture_fill
from rasa_ram.toy.words import BACKGROUNDS, RELATIONS, SIZES, TEXTURES, all_pairs, colour_values, new_pairs, seen_pairs

Split = Literal["seen", "all", "new"]
"""What objects are drawn from: seen pairs alone; all pairs of the base world; or one new pair among seen ones."""

# Everything lies on a grid of the toy model's patches: centres are multiples of it, radii are 1, 2 or 3 of it. A Swin
# has no overlapping windows to learn "anywhere" from: with free places, sizes and turns its encoder told 11 % of single
# shapes after a minute's training, on the grid 76 % (two cores, 12 shapes).
GRID = 8
# Radius of a size, in pixels.
RADII: Mapping[str, int] = MappingProxyType({"small": GRID, "large": 2 * GRID})
# Of the outer one where one object is inside another.
_AROUND = 3 * GRID
# How often each relation is drawn; the order is that of RELATIONS.
_WEIGHTS = (0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1)
# Share of objects with a texture.
_TEXTURED = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object of a scene.

    Attributes:
        shape: Its tag.
        colour: Its tag.
        texture: Its tag; None if it is plain.
        size: ``"small"`` or ``"large"``.
        centre: x and y, in pixels.
        radius: Of the circle around it, in pixels.
    """

    shape: str
    colour: str
    texture: str | None
    size: str
    centre: tuple[int, int]
    radius: int

    @property
    def tags(self) -> tuple[str, ...]:
        """Shape, colour, size and texture, and each of the last three with the shape."""
        words = [word for word in (self.colour, self.size, self.texture) if word is not None]
        return (self.shape, *words, *(f"{word} {self.shape}" for word in words))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture of N objects and the truth about it.

    Attributes:
        pixels: uint8 ``(64, 64, 3)``, RGB.
        things: N objects, at least one; a later one covers an earlier one.
        background: Its tag.
        relation: How the objects stand to each other, a tag.
        masks: bool ``(N, 64, 64)``, what is seen of each object.
    """

    pixels: ByteArray
    things: tuple[Thing, ...]
    background: str
    relation: str
    masks: BoolArray

    @cached_property
    def boxes(self) -> FloatArray:
        """float32 ``(N, 4)``, xyxy in pixels, tight around the masks."""
        boxes = [_box(mask) for mask in self.masks]
        return np.array(boxes, np.float32)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Everything that is true of the scene, distinct, objects first."""
        tags = [tag for thing in self.things for tag in thing.tags]
        return tuple(dict.fromkeys((*tags, self.background, self.relation)))


def draw_scene(
    seed: int, index: int, *, split: Split = "seen", new_tag: str | None = None, relation: str | None = None
) -> Scene:
    """Draw scene number ``index`` of a series; the same arguments give the same scene, whatever was drawn before.

    Args:
        seed: Which series.
        index: Counted from 0.
        split: What objects are drawn from. Scenes of ``"seen"`` never hold a held-out pair or a new word.
        new_tag: For ``"new"``: one of :func:`rasa_ram.toy.words.new_tags`, which the scene then has; None draws one.
        relation: How the objects stand to each other; None draws it.

    Raises:
        InputError: If the seed or the index is negative, the split or the relation is unknown, or ``new_tag`` does not
            fit.
    """
    if seed < 0 or index < 0:
        raise InputError(f"seed and index of a scene are counted from 0, got {seed} and {index}")
    if split not in get_args(Split):
        raise InputError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if relation is not None and relation not in RELATIONS:
        raise InputError(f"relation must be one of {', '.join(RELATIONS)}, got {relation!r}")
    rng = np.random.default_rng((seed, index, get_args(Split).index(split)))
    drawn = str(rng.choice(RELATIONS, p=_WEIGHTS))
    relation = drawn if relation is None else relation
    places = _LAYOUTS[relation](rng)
    pairs = _draw_pairs(rng, len(places), split=split, new_tag=new_tag)
    things = tuple(_thing(rng, pair, place) for pair, place in zip(pairs, places, strict=True))
    return _render(things, str(rng.choice(BACKGROUNDS)), relation, rng=rng)


# What is drawn where

_Place = tuple[str, int, int, int]  # size, x, y, radius


def _anywhere(rng: np.random.Generator, low: int, high: int) -> int:
    """A coordinate on the grid, both ends included."""
    return int(rng.integers(low // GRID, high // GRID + 1)) * GRID


def _size(rng: np.random.Generator) -> tuple[str, int]:
    size = str(rng.choice(SIZES))
    return size, RADII[size]


def _alone(rng: np.random.Generator) -> list[_Place]:
    size, radius = _size(rng)
    return [(size, _anywhere(rng, radius, SIDE - radius), _anywhere(rng, radius, SIDE - radius), radius)]


def _pair(rng: np.random.Generator) -> list[_Place]:
    """Two objects on one level, each in its half."""
    level, places = _anywhere(rng, 2 * GRID, SIDE - 2 * GRID), list[_Place]()
    for left in (0, SIDE // 2):
        size, radius = _size(rng)
        places.append((size, _anywhere(rng, left + radius, left + SIDE // 2 - radius), level, radius))
    return places


def _three(rng: np.random.Generator) -> list[_Place]:
    """Three small objects on one level."""
    level = _anywhere(rng, GRID, SIDE - GRID)
    return [("small", x, level, GRID) for x in (GRID, SIDE // 2, SIDE - GRID)]


def _turned(places: Sequence[_Place]) -> list[_Place]:
    return [(size, y, x, radius) for size, x, y, radius in places]


def _inside(rng: np.random.Generator) -> list[_Place]:
    x, y = (_anywhere(rng, _AROUND, SIDE - _AROUND) for _ in range(2))
    return [("large", x, y, _AROUND), ("small", x, y, RADII["small"])]


def _overlapping(rng: np.random.Generator) -> list[_Place]:
    radius = RADII["large"]
    across, down = ((2, 0), (0, 2), (1, 1), (1, -1))[int(rng.integers(4))]
    x = _anywhere(rng, radius, SIDE - radius - across * GRID)
    y = _anywhere(rng, radius - min(0, down) * GRID, SIDE - radius - max(0, down) * GRID)
    return [("large", x, y, radius), ("large", x + across * GRID, y + down * GRID, radius)]


def _diagonal(rng: np.random.Generator) -> list[_Place]:
    upwards, places = rng.random() < 0.5, list[_Place]()
    for corner in (SIDE // 4, SIDE - SIDE // 4):
        size, radius = _size(rng)
        places.append((size, corner, SIDE - corner if upwards else corner, radius))
    return places


_LAYOUTS: Mapping[str, Callable[[np.random.Generator], list[_Place]]] = {
    "alone": _alone,
    "above": lambda rng: _turned(_pair(rng)),
    "beside": _pair,
    "inside": _inside,
    "overlapping": _overlapping,
    "diagonal": _diagonal,
    "row": _three,
    "column": lambda rng: _turned(_three(rng)),
}


def _draw_pairs(rng: np.random.Generator, count: int, *, split: Split, new_tag: str | None) -> list[tuple[str, str]]:
    pool = all_pairs() if split == "all" else seen_pairs()
    pairs = [pool[i] for i in rng.integers(0, len(pool), count)]
    if split != "new":
        if new_tag is not None:
            raise InputError(f'new_tag is for the split "new", got {new_tag!r} with {split!r}')
        return pairs
    fitting = [pair for pair in new_pairs() if new_tag is None or new_tag in {*pair, " ".join(pair)}]
    if not fitting:
        raise InputError(f"{new_tag!r} is none of the toy world's new tags; see rasa_ram.toy.words.new_tags")
    pairs[int(rng.integers(count))] = fitting[int(rng.integers(len(fitting)))]
    return pairs


def _thing(rng: np.random.Generator, pair: tuple[str, str], place: _Place) -> Thing:
    size, x, y, radius = place
    texture = str(rng.choice(TEXTURES)) if rng.random() < _TEXTURED else None
    colour, shape = pair
    return Thing(shape=shape, colour=colour, texture=texture, size=size, centre=(x, y), radius=radius)


# How it looks


def _render(things: tuple[Thing, ...], name: str, relation: str, *, rng: np.random.Generator) -> Scene:
    pixels = background(name, rng)
    covered = np.zeros((len(things), SIDE, SIDE), np.float32)
    for i, thing in enumerate(things):
        covered[i] = coverage(thing.shape, thing.centre, thing.radius)
        colour = np.clip(np.array(colour_values()[thing.colour], np.float32) + rng.uniform(-12, 12, 3), 0, 255).astype(
            np.float32
        )
        edge = np.full(3, 235 if colour.mean() < 60 else 20, np.float32)
        fill = texture_fill(colour, thing.texture, centre=thing.centre)
        paint(pixels, covered[i], fill, edge=edge)
    masks = covered > 0.5
    for i in range(len(things) - 1):
        masks[i] &= ~masks[i + 1 :].any(axis=0)
    return Scene(pixels=finish(pixels, rng), things=things, background=name, relation=relation, masks=masks)


def _box(mask: BoolArray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

"""The words of the toy world: what can be drawn, how it can be said, and what training never sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from rasa_ram.vocabulary import Vocabulary

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross",
    "diamond", "crescent", "arrow", "ring", "hourglass", "tree",
)  # fmt: skip
# sRGB of a saturated object; each scene shifts it a little.
COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType({
    "red": (215, 35, 35), "green": (40, 150, 50), "blue": (40, 70, 210), "yellow": (240, 215, 40),
    "orange": (240, 135, 25), "purple": (125, 45, 165), "pink": (245, 140, 185), "brown": (120, 75, 40),
    "black": (25, 25, 25), "white": (245, 245, 245), "gray": (135, 135, 135), "turquoise": (50, 200, 195),
})  # fmt: skip
TEXTURES = ("striped", "dotted", "checkered")
SIZES = ("small", "large")
BACKGROUNDS = ("meadow", "desert", "sea", "snow", "night sky", "brick wall", "wooden floor", "paper")
RELATIONS = ("alone", "above", "beside", "inside", "overlapping", "diagonal", "row", "column")

# For fine-tuning on tags of one's own: no training scene of the base model has any of them.
NEW_SHAPES = ("lightning bolt", "flower", "house", "fish", "key", "drop")
NEW_COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType({
    "maroon": (100, 10, 40), "lime": (175, 240, 40), "beige": (225, 205, 165), "indigo": (50, 25, 110),
})  # fmt: skip

# Other words that captions use and that mean a tag.
SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "circle": ("round shape",), "square": ("quadratic shape",), "triangle": ("three-sided shape",),
    "star": ("starlet",), "heart": ("love symbol",), "cross": ("plus sign",), "diamond": ("lozenge",),
    "crescent": ("sickle",), "arrow": ("pointer",), "ring": ("hoop",),
    "hourglass": ("egg timer",), "tree": ("fir",),
    "red": ("scarlet",), "green": ("grass green",), "blue": ("azure",), "yellow": ("golden",), "orange": ("amber",),
    "purple": ("lavender",), "pink": ("rosy",), "brown": ("chestnut",), "black": ("pitch black",),
    "white": ("snowy white",), "gray": ("ashen",), "turquoise": ("teal",),
    "striped": ("banded",), "dotted": ("spotted",), "checkered": ("checked",),
    "small": ("little",), "large": ("big", "huge"),
    "meadow": ("lawn",), "desert": ("sand",), "sea": ("ocean",), "snow": ("white field",), "night sky": ("darkness",),
    "brick wall": ("bricks",), "wooden floor": ("planks",), "paper": ("squared paper",),
    "alone": ("on its own", "by itself"), "above": ("over",), "beside": ("next to",), "inside": ("within",),
    "overlapping": ("partly covering",), "diagonal": ("in the opposite corner",), "row": ("side by side line",),
    "column": ("stack",),
})  # fmt: skip

# Words that no caption and no tag of training uses, and the tag whose pictures they must find. Chosen by hand as plain
# English synonyms, before any of them was scored.
UNSEEN_SYNONYMS: Mapping[str, str] = MappingProxyType({
    "disc": "circle", "box": "square", "pyramid": "triangle", "asterisk": "star", "valentine": "heart",
    "crucifix": "cross", "rhombus": "diamond", "half moon": "crescent", "donut": "ring", "sandglass": "hourglass",
    "pine tree": "tree",
    "crimson": "red", "emerald": "green", "navy": "blue", "violet": "purple", "chocolate": "brown", "ebony": "black",
    "ivory": "white", "grey": "gray", "cyan": "turquoise", "polka-dotted": "dotted",
    "stripy": "striped", "tiny": "small",
})  # fmt: skip


def _held_out_pairs() -> tuple[tuple[str, str], ...]:
    """Two colours of every shape, spread so that each colour is held out twice."""
    names = tuple(COLOURS)
    return tuple((names[(5 * i + step) % len(names)], shape) for i, shape in enumerate(SHAPES) for step in (0, 7))


HELD_OUT_PAIRS = _held_out_pairs()


def all_pairs() -> tuple[tuple[str, str], ...]:
    """Every (colour, shape) of the base world, 144."""
    return tuple((colour, shape) for shape in SHAPES for colour in COLOURS)


def seen_pairs() -> tuple[tuple[str, str], ...]:
    """The 120 that training scenes are drawn from."""
    held_out = set(HELD_OUT_PAIRS)
    return tuple(pair for pair in all_pairs() if pair not in held_out)


@cache
def toy_vocabulary() -> Vocabulary:
    """The 225 tags of training: single words, seen pairs, sizes and textures of shapes, backgrounds, relations.

    Synonyms are those that captions use. Kinds: shapes and all that names a thing are objects, backgrounds scenes,
    relations actions, the rest attributes.
    """
    return _vocabulary([f"{colour} {shape}" for colour, shape in seen_pairs()])


@cache
def full_vocabulary() -> Vocabulary:
    """:func:`toy_vocabulary` and, behind it, the 24 pairs that training never sees: 249 tags."""
    own = toy_vocabulary()
    names = (*own.names, *(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS))
    kinds = (*(own.kinds or ()), *("object" for _ in HELD_OUT_PAIRS))
    return Vocabulary(names, kinds=kinds, synonyms=(*(own.synonyms or ()), *(() for _ in HELD_OUT_PAIRS)))


def new_tags() -> tuple[str, ...]:
    """The 30 tags to fine-tune on: 6 shapes, 4 colours, and 20 pairs with one of them."""
    shapes, colours = NEW_SHAPES, tuple(NEW_COLOURS)
    return (*shapes, *colours, *(f"{colour} {shape}" for colour, shape in new_pairs()))


def new_pairs() -> tuple[tuple[str, str], ...]:
    """20 (colour, shape): each new shape in two old colours, each new colour on two old shapes."""
    old_colours, old_shapes = tuple(COLOURS), SHAPES
    of_shapes = [(old_colours[(i * 3 + step) % 12], shape) for i, shape in enumerate(NEW_SHAPES) for step in (0, 1)]
    of_colours = [(colour, old_shapes[(i * 3 + step) % 12]) for i, colour in enumerate(NEW_COLOURS) for step in (0, 1)]
    return (*of_shapes, *of_colours)


def colour_values() -> Mapping[str, tuple[int, int, int]]:
    """SRGB of all colours, the new ones included."""
    return {**COLOURS, **NEW_COLOURS}


def _vocabulary(pairs: Sequence[str]) -> Vocabulary:
    of_kind = {
        "object": (
            *SHAPES,
            *pairs,
            *(f"{size} {shape}" for size in SIZES for shape in SHAPES),
            *(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES),
        ),
        "attribute": (*COLOURS, *TEXTURES, *SIZES),
        "scene": BACKGROUNDS,
        "action": RELATIONS,
    }
    names = tuple(name for group in of_kind.values() for name in group)
    kinds = tuple(kind for kind, group in of_kind.items() for _ in group)
    return Vocabulary(names, kinds=kinds, synonyms=tuple(SYNONYMS.get(name, ()) for name in names))

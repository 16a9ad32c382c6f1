"""Sentences about toy scenes, and the exact way back from a sentence to tags."""

from __future__ import annotations

from functools import cache

import numpy as np

from rasa_ram.toy.scenes import Scene, Thing
from rasa_ram.toy.words import (
    BACKGROUNDS,
    COLOURS,
    NEW_COLOURS,
    NEW_SHAPES,
    RELATIONS,
    SHAPES,
    SIZES,
    SYNONYMS,
    TEXTURES,
)

# Share of words that a caption says by a synonym.
_SYNONYM_SHARE = 0.3
# Share of a brief caption's adjectives, and of its backgrounds, that are left out.
_LEFT_OUT = 0.5

# How two or three objects in a relation are told of; the word itself may be a synonym.
_TOLD = {
    "alone": "{0} {word}", "above": "{0} {word} {1}", "beside": "{0} {word} {1}", "inside": "{1} {word} {0}",
    "overlapping": "{1} {word} {0}", "diagonal": "{0} and {1} {word}", "row": "{0}, {1} and {2} in a {word}",
    "column": "{0}, {1} and {2} in a {word}",
}  # fmt: skip
_PLACED = {
    "meadow": "on a {}", "desert": "in the {}", "sea": "at {}", "snow": "in the {}", "night sky": "under a {}",
    "brick wall": "in front of a {}", "wooden floor": "on a {}", "paper": "on {}",
}  # fmt: skip


def write_captions(scene: Scene, rng: np.random.Generator) -> tuple[str, str, str]:
    """Three sentences about a scene: one that says everything, and two that leave things out and use synonyms."""
    whole = _sentence(scene, rng, left_out=0.0)
    return whole, _sentence(scene, rng, left_out=_LEFT_OUT), _sentence(scene, rng, left_out=_LEFT_OUT)


def parse_caption(caption: str) -> tuple[str, ...]:
    """The tags that a sentence of this world says, distinct, in order of appearance.

    The longest known expression is taken at every place. Adjectives that stand right before a shape form tags with
    it: "small scarlet disc" is "small", "red", "circle", "small circle", "red circle". Unknown words are passed over.

    >>> parse_caption("A little scarlet star on a lawn")
    ('small', 'red', 'star', 'small star', 'red star', 'meadow')
    """
    words = caption.lower().replace(",", " , ").replace(".", " ").split()
    tags: list[str] = []
    adjectives: list[str] = []
    position = 0
    while position < len(words):
        tag, length = _expression_at(words, position)
        position += length
        if tag is not None:
            tags.append(tag)
        if tag in _SHAPES:
            tags.extend(f"{word} {tag}" for word in adjectives)
        adjectives = [*adjectives, tag] if tag in _ADJECTIVES and tag is not None else []
    return tuple(dict.fromkeys(tags))


_SHAPES = frozenset((*SHAPES, *NEW_SHAPES))
_ADJECTIVES = frozenset((*SIZES, *TEXTURES, *COLOURS, *NEW_COLOURS))


@cache
def _expressions() -> dict[tuple[str, ...], str]:
    """Each expression, word by word, to its tag."""
    own = (*SHAPES, *NEW_SHAPES, *COLOURS, *NEW_COLOURS, *TEXTURES, *SIZES, *BACKGROUNDS, *RELATIONS)
    plain = {tuple(tag.split()): tag for tag in own}
    return plain | {tuple(word.split()): tag for tag, words in SYNONYMS.items() for word in words}


def _expression_at(words: list[str], position: int) -> tuple[str | None, int]:
    longest = max(map(len, _expressions()))
    for length in range(min(longest, len(words) - position), 0, -1):
        tag = _expressions().get(tuple(words[position : position + length]))
        if tag is not None:
            return tag, length
    return None, 1


def _sentence(scene: Scene, rng: np.random.Generator, *, left_out: float) -> str:
    told = [_phrase(thing, rng, left_out=left_out) for thing in scene.things]
    text = _TOLD[scene.relation].format(*told, word=_say(scene.relation, rng))
    if rng.random() >= left_out:
        text = f"{text} {_PLACED[scene.background].format(_say(scene.background, rng))}"
    return text


def _phrase(thing: Thing, rng: np.random.Generator, *, left_out: float) -> str:
    words = [word for word in (thing.size, thing.texture, thing.colour) if word is not None]
    words = [_say(word, rng) for word in words if rng.random() >= left_out]
    phrase = " ".join((*words, _say(thing.shape, rng)))
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _say(tag: str, rng: np.random.Generator) -> str:
    synonyms = SYNONYMS.get(tag, ())
    return str(rng.choice(synonyms)) if synonyms and rng.random() < _SYNONYM_SHARE else tag

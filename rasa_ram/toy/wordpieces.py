"""The toy captioner's WordPiece vocabulary: every word of the toy world, and letters for all others."""

from __future__ import annotations

import string
from functools import cache

from rasa_ram.tokenizer import CaptionTokenizer
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

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What sentences consist of besides tags, the prompt "a picture of" and the separator of tags included.
_GRAMMAR = ("a", "an", "and", "at", "front", "in", "of", "on", "picture", "the", "under", ",", "|", "-")


@cache
def toy_wordpieces() -> tuple[str, ...]:
    """Pieces in the order of their ids: special tokens, words, letters, and letters within a word."""
    tags = (*SHAPES, *NEW_SHAPES, *COLOURS, *NEW_COLOURS, *TEXTURES, *SIZES, *BACKGROUNDS, *RELATIONS)
    synonyms = [word for words in SYNONYMS.values() for word in words]
    words = [word for phrase in (*tags, *synonyms) for word in phrase.replace("-", " ").split()]
    letters = string.ascii_lowercase + string.digits
    return tuple(dict.fromkeys((*_SPECIAL, *_GRAMMAR, *words, *letters, *(f"##{letter}" for letter in letters))))


def toy_tokenizer() -> CaptionTokenizer:
    """The tokenizer of the toy captioner."""
    return CaptionTokenizer(toy_wordpieces())

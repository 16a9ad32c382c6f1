"""Cleaning of training captions."""

from __future__ import annotations

import re

from rasa.errors import InputError

# Words kept of a caption in the published data sets (BLIP's cleaning, arXiv:2201.12086, keeps 50 elsewhere).
MAX_WORDS = 30

_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")


def clean_caption(text: str, *, max_words: int = MAX_WORDS) -> str:
    """Bring a caption into the form that the published models were trained on.

    Lower case; each of ``. ! " ( ) * # : ; ~`` becomes a space; two or more white-space characters become
    one space; trailing line ends, then spaces at both ends, are removed; words past ``max_words`` are cut.

    Args:
        text: Any caption.
        max_words: Words to keep, at least 1; words are what single spaces separate.

    Raises:
        InputError: If ``max_words`` is below 1.

    >>> clean_caption("  Two dogs,  playing   in the snow!  ")
    'two dogs, playing in the snow'
    """
    if max_words < 1:
        raise InputError(f"max_words must be at least 1, got {max_words}")
    spaced = _SPACES.sub(" ", _PUNCTUATION.sub(" ", text.lower()))
    words = spaced.rstrip("\n").strip(" ").split(" ")
    return " ".join(words[:max_words])

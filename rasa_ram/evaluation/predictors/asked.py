"""What a model is asked for: distinct words, and which of them stands for which class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Distinct words for the classes of a benchmark, two of which may share one.

    Attributes:
        words: W distinct words.
        columns: int64 ``(T,)``, the place of each class's word.
    """

    words: tuple[str, ...]
    columns: IntArray

    @classmethod
    def of(cls, words: Sequence[str]) -> Asked:
        """From one word per class."""
        places = {word: place for place, word in enumerate(dict.fromkeys(words))}
        return cls(tuple(places), np.array([places[word] for word in words], np.int64))

    def spread(self, scores: NDArray[Any]) -> NDArray[Any]:
        """``(..., W)`` scores of the words as ``(..., T)`` of the classes."""
        return scores[..., self.columns]


def places_of_words(words: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Word, whatever its case, to the classes that it means."""
    places: dict[str, list[int]] = {}
    for column, row in enumerate(words):
        for word in dict.fromkeys(word.casefold() for word in row):
            places.setdefault(word, []).append(column)
    return places

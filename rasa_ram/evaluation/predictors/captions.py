"""Captioners as taggers: a class counts as given if the caption names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rasa.arrays import FloatArray
from rasa.types import Image
from rasa_ram._fingerprint import json_hash
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.predictors.asked import places_of_words
from rasa_ram.evaluation.predictors.told import told

Parse = Callable[[str], Iterable[str]]


class Captioner(Protocol):
    """Writes a sentence about each image."""

    def caption(self, images: Sequence[Image]) -> Sequence[Any]:
        """One caption per image: a text, or an object with the attribute ``text``."""
        ...


class WordParser:
    """Finds the words of the classes in a caption: whole words, the longest first, plurals in -s and -es too.

    Plain on purpose; for lemmas and synonyms give a parser of :mod:`rasa_ram.engine` in its place.

    Args:
        words: To look for, in any case.
    """

    def __init__(self, words: Iterable[str]) -> None:
        ordered = sorted({word.casefold() for word in words}, key=lambda word: (-len(word), word))
        self._words = ordered
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ordered))})(?:e?s)?(?!\w)") if ordered else None

    def __call__(self, caption: str) -> list[str]:
        """The words that stand in ``caption``, in its order."""
        if self._pattern is None:
            return []
        return [match[1] for match in self._pattern.finditer(caption.casefold())]

    def describe(self) -> Mapping[str, Any]:
        """Hash of the words."""
        return {"words": json_hash(self._words)}


class CaptionPredictor:
    """A captioner by the classes that its captions name: 1 or 0, so precision and recall are what counts.

    Args:
        captioner: Any captioner.
        benchmark: Gives the words of the classes.
        name: Of the model; a cache of scores knows one without ``describe`` by this alone.
        parse: From a caption to words or tags; a :class:`WordParser` of the benchmark's words unless given.
            A cache knows one without ``describe`` by its qualified name alone.
    """

    def __init__(self, captioner: Captioner, benchmark: Benchmark, *, name: str, parse: Parse | None = None) -> None:
        self._captioner, self._name = captioner, name
        self._places = places_of_words(benchmark.words or ())
        self._parse = WordParser(self._places) if parse is None else parse
        self.thresholds: FloatArray | None = np.full(len(benchmark.classes), 0.5, np.float32)

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)``, 1 for a class that is named."""
        scores = np.zeros((len(images), len(self.thresholds if self.thresholds is not None else ())), np.float32)
        for row, caption in zip(scores, self._captioner.caption(images), strict=True):
            for word in self._parse(str(getattr(caption, "text", caption))):
                row[self._places.get(word.casefold(), [])] = 1
        return scores

    def describe(self) -> Mapping[str, Any]:
        """Name, and what captioner and parser say of themselves."""
        parser = {"name": getattr(self._parse, "__qualname__", type(self._parse).__qualname__), **told(self._parse)}
        return {"model": self._name, **told(self._captioner), "parser": parser}

"""Taggers as predictors: RAM's family by their scores, any other by the tags that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.protocols import Tagger
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.class_words import prefer
from rasa_ram.evaluation.predictors.asked import Asked, places_of_words
from rasa_ram.evaluation.predictors.told import told
from rasa_ram.tagger import OPEN_THRESHOLD, THRESHOLD, RamTagger

if TYPE_CHECKING:  # open_clip is needed for tags outside the vocabulary alone
    from rasa_ram.text_encoder import TextEncoder

# Of the precision and recall in the RAM paper's table 3; batch_inference.py takes it as `--threshold`.
RAM_TABLE_THRESHOLD = 0.86


class TaggerPredictor:
    """Any tagger by the tags that it gives: a class gets the best score of its words, or 0.

    Give it a low threshold: what a tagger leaves out cannot be ranked.

    Args:
        tagger: Any :class:`rasa.protocols.Tagger`.
        benchmark: Its words are looked up among the tags, whatever their case.
        name: Of the model; a cache of scores knows one without ``describe`` by this alone.
    """

    thresholds: FloatArray | None = None

    def __init__(self, tagger: Tagger, benchmark: Benchmark, *, name: str) -> None:
        self._tagger, self._name, self._classes = tagger, name, len(benchmark.classes)
        self._places = places_of_words(benchmark.words or ())

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)`` in [0, 1]."""
        scores = np.zeros((len(images), self._classes), np.float32)
        for row, tags in zip(scores, self._tagger.tag(images), strict=True):
            for tag, score in zip(tags.names, tags.scores, strict=True):
                for column in self._places.get(tag.casefold(), ()):
                    row[column] = max(row[column], score)
        return scores

    def describe(self) -> Mapping[str, Any]:
        """Name, and what the tagger says of itself."""
        return {"model": self._name, **told(self._tagger)}


class RamPredictor:
    """RAM, RAM++ or Tag2Text by the scores of the classes, closed or open set.

    Args:
        tagger: Of the model's whole vocabulary.
        benchmark: Gives the classes: by their rows where it has class ids, else by the first of their words that is in
            the vocabulary.
        name: Of the model, as the tables call it.
        open_set: Whether all classes count as unseen and are encoded by their published names.
        threshold: For precision and recall: a number; ``"published"`` for 0.86 (RAM), 0.68 (Tag2Text) or 0.5 (open
            set); ``"by-tag"`` for those of the vocabulary.
        text_encoder: For classes outside the vocabulary; that of the published models unless given.
        descriptions: Some classes of an open set to sentences, for RAM++.

    Raises:
        InputError: If a class is not in the vocabulary of a closed set.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice, and all but three have defaults)
        self,
        tagger: RamTagger,
        benchmark: Benchmark,
        *,
        name: str,
        open_set: bool = False,
        threshold: float | Literal["published", "by-tag"] = "published",
        text_encoder: TextEncoder | None = None,
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._name, self._open_set = name, open_set
        if open_set:
            asked = Asked.of(benchmark.asked)
            self._tagger = tagger.with_tags(asked.words, descriptions=descriptions, text_encoder=text_encoder)
            self._rows = [[int(i)] for i in asked.columns]
        else:
            self._rows = _closed_rows(tagger, benchmark)
            self._tagger = tagger
            if tagger.describe()["model"] != "tag2text" and all(len(row) == 1 for row in self._rows):
                # Only the classes go through the decoder.
                asked = Asked.of([tagger.vocabulary.names[row[0]] for row in self._rows])
                self._tagger, self._rows = tagger.with_tags(asked.words), [[int(i)] for i in asked.columns]
        self.thresholds = self._limits(threshold)

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)`` in [0, 1]; of two meanings of a word the better score."""
        scores = self._tagger.scores(images)
        return np.stack([scores[:, row].max(axis=1) for row in self._rows], axis=1)

    def describe(self) -> Mapping[str, Any]:
        """Name, whether the set is open, and what the tagger says of itself."""
        told = dict(self._tagger.describe())
        return told | {"family": told.get("model"), "model": self._name, "open_set": self._open_set}

    def _limits(self, threshold: float | Literal["published", "by-tag"]) -> FloatArray:
        table = self._tagger.vocabulary
        if threshold == "by-tag":
            own = np.full(len(table), THRESHOLD, np.float32) if table.thresholds is None else table.thresholds
            return np.array([own[row].min() for row in self._rows], np.float32)
        if threshold == "published":
            tag2text = self._tagger.describe()["model"] == "tag2text"
            threshold = OPEN_THRESHOLD if self._open_set else THRESHOLD if tag2text else RAM_TABLE_THRESHOLD
        return np.full(len(self._rows), threshold, np.float32)


def _closed_rows(tagger: RamTagger, benchmark: Benchmark) -> list[list[int]]:
    """For each class its places in the tagger's vocabulary."""
    table = tagger.vocabulary
    if benchmark.class_ids is not None:
        places = {int(number): place for place, number in enumerate(table.ids)}
        if missing := [int(number) for number in benchmark.class_ids if int(number) not in places]:
            raise InputError(
                f"the tagger does not look for row {missing[0]}; give it the whole vocabulary, deny nothing"
            )
        return [[places[int(number)]] for number in benchmark.class_ids]
    words = [row[0] for row in prefer(benchmark, table.names)]
    if missing_words := [word for word in words if word not in table]:
        count = f"{len(missing_words)} of {len(words)} classes of {benchmark.name}"
        raise InputError(f"{count} are not in the vocabulary, such as {missing_words[0]!r}; evaluate as an open set")
    return [table.positions([word]) for word in words]

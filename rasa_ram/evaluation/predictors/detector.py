"""A detector as tagger, such as Grounding DINO: a class gets the score of its best box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.protocols import Detector
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.predictors.asked import Asked
from rasa_ram.evaluation.predictors.told import told


class DetectorPredictor:
    """Any detector by its boxes; a class without a box gets 0.

    Give it low thresholds: what it leaves out cannot be ranked.

    Args:
        detector: Any :class:`rasa.protocols.Detector`.
        benchmark: Gives the words that are asked for.
        name: Of the model; a cache of scores knows one without ``describe`` by this alone.
        at_once: Words of one question; a text encoder reads only so many, and each detector mixes them up sooner.

    Raises:
        InputError: If ``at_once`` is not positive.
    """

    thresholds: FloatArray | None = None

    def __init__(self, detector: Detector, benchmark: Benchmark, *, name: str, at_once: int = 40) -> None:
        if at_once < 1:
            raise InputError(f"at_once must be at least 1 word, got {at_once}")
        self._detector, self._name, self._at_once = detector, name, at_once
        self._asked = Asked.of(benchmark.asked)

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)`` in [0, 1]."""
        words = self._asked.words
        scores = np.zeros((len(images), len(words)), np.float32)
        places = {word: place for place, word in enumerate(words)}
        for start in range(0, len(words), self._at_once):
            part = words[start : start + self._at_once]
            for row, found in zip(scores, self._detector.detect(images, [part] * len(images)), strict=True):
                columns = [places[label] for label in found.labels]
                np.maximum.at(row, columns, found.scores)
        return self._asked.spread(scores)

    def describe(self) -> Mapping[str, Any]:
        """Name, words at once, and what the detector says of itself."""
        return {"model": self._name, "at_once": self._at_once, **told(self._detector)}

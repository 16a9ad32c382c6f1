"""Tags: ImageNet classes seen through sliding windows, rolled up to everyday words, and the detector's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rasa.adapters.lite.evidence import sightings
from rasa.adapters.lite.sight import Looker, describe_looker, load_looker
from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image, Tags

TAG_THRESHOLD = 0.35

# One threshold serves three kinds of evidence: a score is raised to the power of its kind, so that at the default of
# 0.35 a parent needs a probability of 0.35, the name of a single class 0.45, and a box of the detector 0.50.
_OWN_NAME_POWER = 1.3
_DETECTOR_POWER = 1.5


class LiteTagger:
    """Names what photos show, from a vocabulary of about 1300 words.

    A score is the probability of a word in the best window of the photo, made comparable between kinds of
    evidence. Tags are distinct and sorted by score; ``ids`` are positions in the vocabulary.

    Args:
        looker: The networks.
        tag_threshold: Lowest score of a tag, in [0, 1].

    Raises:
        InputError: If the threshold is outside [0, 1].
    """

    def __init__(self, looker: Looker, *, tag_threshold: float = TAG_THRESHOLD) -> None:
        if not 0 <= tag_threshold <= 1:
            raise InputError(f"tag_threshold must be in [0, 1], got {tag_threshold}")
        self._looker = looker
        self._threshold = float(tag_threshold)
        self._powers = np.array(
            [_OWN_NAME_POWER if word.is_own_name else 1.0 for word in looker.vocabulary.words.values()], np.float32
        )

    def tag(self, images: Sequence[Image]) -> list[Tags]:
        """One :class:`rasa.Tags` per image; see :class:`rasa.protocols.Tagger`."""
        return [self._tag(image) for image in images]

    def describe(self) -> Mapping[str, Any]:
        """Name, checkpoints and threshold."""
        return {"model": "lite-tagger", **describe_looker(self._looker), "tag_threshold": self._threshold}

    def _tag(self, image: Image) -> Tags:
        scores = self._looker.classify(image).scores ** self._powers
        scores = np.maximum(scores, self._detected(image))
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= self._threshold]
        names = self._looker.vocabulary.names
        return Tags(tuple(names[i] for i in order), scores[order], order)

    def _detected(self, image: Image) -> FloatArray:
        vocabulary = self._looker.vocabulary
        scores = np.zeros(len(vocabulary.names), np.float32)
        for sighting in sightings(self._looker, image, threshold=self._threshold ** (1 / _DETECTOR_POWER)):
            # The widest parent alone: an error of the detector should not become a chain of tags.
            for name in (sighting.word, vocabulary.broadest(sighting.word)):
                position = vocabulary.positions[name]
                scores[position] = max(scores[position], sighting.score**_DETECTOR_POWER)
        return scores


def build_tagger(*, device: str = "cpu", dtype: str = "float32", tag_threshold: float | None = None) -> LiteTagger:
    """The tagger with its weights, fetched if need be.

    Args:
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        tag_threshold: Lowest score of a tag, in [0, 1]; None is :data:`TAG_THRESHOLD`.

    Raises:
        WeightsError: If the classifier's weights cannot be had.
        InputError: If an argument is out of range.
    """
    threshold = TAG_THRESHOLD if tag_threshold is None else tag_threshold
    return LiteTagger(load_looker(device=device, dtype=dtype), tag_threshold=threshold)

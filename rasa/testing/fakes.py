"""Models that cost nothing and answer by rule; they pass the checks of their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rasa.arrays import FloatArray
from rasa.types import Image, Instances, Masks, Tags


class FakeTagger:
    """Gives every image the same tags, with falling scores."""

    def __init__(self, names: Sequence[str] = ("cat", "dog")) -> None:
        self._tags = Tags(tuple(names), np.linspace(1.0, 0.5, len(names), dtype=np.float32))

    def tag(self, images: Sequence[Image]) -> list[Tags]:
        """The same tags for each image."""
        return [self._tags for _ in images]

    def describe(self) -> Mapping[str, Any]:
        """The tags."""
        return {"model": "fake-tagger", "names": list(self._tags.names)}


class FakeDetector:
    """Gives every tag one box, its share of the image from left to right."""

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One box per tag: with T tags, tag i covers the i-th of T equal columns."""
        return [self._columns(image, tuple(dict.fromkeys(names))) for image, names in zip(images, tags, strict=True)]

    def _columns(self, image: Image, names: tuple[str, ...]) -> Instances:
        height, width = image.size
        edges = np.linspace(0, width, len(names) + 1, dtype=np.float32)
        boxes = np.zeros((len(names), 4), np.float32)
        boxes[:, 0], boxes[:, 2], boxes[:, 3] = edges[:-1], edges[1:], height
        return Instances(boxes, np.full(len(names), 0.9, np.float32), names)

    def describe(self) -> Mapping[str, Any]:
        """Its name."""
        return {"model": "fake-detector"}


class FakeDetectorSegmenter:
    """Gives every tag one box and fills it: :class:`FakeDetector` and :class:`FakeSegmenter` in one."""

    def detect_and_segment(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One filled box per tag, with the mask score 1."""
        found = FakeDetector().detect(images, tags)
        masks = FakeSegmenter().segment(images, [instances.boxes for instances in found])
        return [
            replace(instances, masks=filled.masks, mask_scores=filled.scores)
            for instances, filled in zip(found, masks, strict=True)
        ]

    def describe(self) -> Mapping[str, Any]:
        """Its name."""
        return {"model": "fake-detector-segmenter"}


class FakeSegmenter:
    """Fills every box."""

    def segment(self, images: Sequence[Image], boxes: Sequence[FloatArray]) -> list[Masks]:
        """Masks of all pixels whose centre lies in the box, each with the score 1."""
        return [self._filled(image, rows) for image, rows in zip(images, boxes, strict=True)]

    def _filled(self, image: Image, boxes: FloatArray) -> Masks:
        height, width = image.size
        masks = np.zeros((len(boxes), height, width), np.bool_)
        limits = np.array([width, height, width, height], np.float32)
        # A pixel's centre is half a pixel from its edges: rounding the edges decides it.
        for mask, box in zip(masks, np.rint(np.clip(boxes, 0, limits)).astype(int), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
        return Masks(masks, np.ones(len(boxes), np.float32))

    def describe(self) -> Mapping[str, Any]:
        """Its name."""
        return {"model": "fake-segmenter"}

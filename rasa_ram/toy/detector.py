"""A stand-in for a detector: the true boxes, with the faults of a real one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasa.arrays import FloatArray
from rasa.types import Image, Instances
from rasa_ram.toy.data import scene_of
from rasa_ram.toy.drawing import SIDE
from rasa_ram.toy.scenes import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyDetector:
    """Finds what tags name in toy scenes; a :class:`rasa.protocols.Detector` that knows the truth and errs at random.

    It reads the truth from an image's name, not its pixels. Equal questions get equal answers.

    Attributes:
        missed: Probability that an object which has the tag is not found.
        invented: Probability that a tag which no object has gets the box of some object all the same, as open-set
            detectors do.
        margin: Surroundings around each side of a box, in pixels, so that a crop looks like a scene.
        jitter: Most that each side is off, in pixels.
        seed: Of the faults.
    """

    missed: float = 0.1
    invented: float = 0.5
    margin: float = 6.0
    jitter: float = 2.0
    seed: int = 0

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`Instances` per image; backgrounds and relations have no box.

        Raises:
            InputError: If an image is no toy scene.
        """
        return [self._detect(image.name, asked) for image, asked in zip(images, tags, strict=True)]

    def _detect(self, path: str, asked: Sequence[str]) -> Instances:
        scene = scene_of(path)
        found = [(tag, box, score) for tag in asked for box, score in self._boxes(scene, path, tag)]
        return Instances(
            boxes=np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
            scores=np.array([score for _, _, score in found], np.float32),
            labels=tuple(tag for tag, _, _ in found),
        )

    def _boxes(self, scene: Scene, path: str, tag: str) -> list[tuple[FloatArray, float]]:
        rng = np.random.default_rng((self.seed, zlib.crc32(f"{path} {tag}".encode())))
        true = [i for i, thing in enumerate(scene.things) if tag in thing.tags]
        chosen = [i for i in true if rng.random() >= self.missed]
        if not true and rng.random() < self.invented:
            chosen = [int(rng.integers(len(scene.things)))]
        return [(self._shifted(scene.boxes[i], rng), float(rng.uniform(0.3, 0.9))) for i in chosen]

    def _shifted(self, box: FloatArray, rng: np.random.Generator) -> FloatArray:
        wide = box + np.float32(self.margin) * np.array([-1, -1, 1, 1], np.float32)
        return np.clip(wide + rng.uniform(-self.jitter, self.jitter, 4), 0, SIDE).astype(np.float32)

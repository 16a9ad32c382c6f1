"""Tags to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rasa.errors import ContractError
from rasa.ops.boxes import clip_boxes
from rasa.protocols import Detector
from rasa.stages._checks import answers_of, describe_model
from rasa.types import Image, Instances, Result


@dataclass(frozen=True)
class Detect:
    """Find the objects that the tags of each image name, with ``detector``.

    Boxes that reach over the border are cut to the image; detectors predict
    centres and sizes, so theirs often do by a fraction of a pixel.
    """

    detector: Detector
    name: ClassVar[str] = "detect"
    provides: ClassVar[str] = "boxes"

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with the instances of their images, without masks.

        Raises:
            ContractError: If the detector does not give one ``Instances`` per
                image, or a label is none of the tags it was asked for.
        """
        asked = [result.tags.names for result in results]
        found = answers_of(self.detector, self.detector.detect(images, asked), len(images), Instances)
        return [
            result.with_instances(self._checked(instances, image, tags))
            for image, result, instances, tags in zip(images, results, found, asked, strict=True)
        ]

    def _checked(self, instances: Instances, image: Image, tags: Sequence[str]) -> Instances:
        strays = set(instances.labels) - set(tags)
        if strays:
            detector, label = type(self.detector).__name__, sorted(strays)[0]
            raise ContractError(f"{detector} gave the label {label!r}, which is none of the tags asked for")
        return replace(instances, boxes=clip_boxes(instances.boxes, image.size))

    def describe(self) -> Mapping[str, Any]:
        """The detector, as plain JSON values."""
        return describe_model(self.detector)

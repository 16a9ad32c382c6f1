"""Tags to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rasa.protocols import Detector
from rasa.stages._checks import answers_of, asked_tags, checked_instances, describe_model
from rasa.types import Image, Instances, Result


@dataclass(frozen=True)
class Detect:
    """Find the objects that the tags of each image name, with ``detector``.

    Boxes that reach over the border are cut to the image; detectors predict
    centres and sizes, so theirs often do by a fraction of a pixel.

    Attributes:
        detector: Asked for the tags of each image.
        objects_only: Whether scene, action and attribute tags, which have no box, are not asked
            for; a tag of no known kind is. They remain tags of the image.
    """

    detector: Detector
    objects_only: bool = True
    name: ClassVar[str] = "detect"
    provides: ClassVar[str] = "boxes"

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with the instances of their images, without masks.

        Raises:
            ContractError: If the detector does not give one ``Instances`` per
                image, or a label is none of the tags it was asked for.
        """
        asked = asked_tags(results, objects_only=self.objects_only)
        found = answers_of(self.detector, self.detector.detect(images, asked), len(images), Instances)
        return [
            result.with_instances(checked_instances(self.detector, instances, image=image, tags=tags))
            for image, result, instances, tags in zip(images, results, found, asked, strict=True)
        ]

    def describe(self) -> Mapping[str, Any]:
        """The detector, and which tags it is asked for, as plain JSON values."""
        return {**describe_model(self.detector), "objects_only": self.objects_only}

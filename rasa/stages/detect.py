"""Tags to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rasa.protocols import Detector
from rasa.stages._checks import Search
from rasa.types import Image, Result


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
        return self._search(images, results)

    def describe(self) -> Mapping[str, Any]:
        """The detector, and which tags it is asked for, as plain JSON values."""
        return self._search.describe()

    @property
    def _search(self) -> Search:
        return Search(self.detector, self.detector.detect, self.objects_only)

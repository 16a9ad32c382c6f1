"""Tags to boxes with masks, by one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rasa.protocols import DetectorSegmenter
from rasa.stages._checks import Search
from rasa.types import Image, Result


@dataclass(frozen=True)
class DetectAndSegment:
    """Find the objects that the tags of each image name, with their masks, with ``model``.

    Stands for ``Detect`` and ``Segment`` together; ``Filter`` and ``Suppress`` fit behind it, as they take the mask
    of a box away with the box. Left out, as ``Detect`` is, when the caller hands in boxes; those then
    have no masks.

    Attributes:
        model: Asked for the tags of each image.
        objects_only: Whether scene, action and attribute tags, which have no box, are not asked
            for; a tag of no known kind is. They remain tags of the image.
    """

    model: DetectorSegmenter
    objects_only: bool = True
    name: ClassVar[str] = "detect_and_segment"
    provides: ClassVar[str] = "boxes"

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with the instances of their images, also where there are none (then zero masks).

        Raises:
            ContractError: If the model does not give one ``Instances`` with masks per
                image, or a label is none of the tags it was asked for.
            InputError: If the size of the masks is not that of the image.
        """
        return self._search(images, results)

    def describe(self) -> Mapping[str, Any]:
        """The model, and which tags it is asked for, as plain JSON values."""
        return self._search.describe()

    @property
    def _search(self) -> Search:
        return Search(self.model, self.model.detect_and_segment, self.objects_only, masks=True)

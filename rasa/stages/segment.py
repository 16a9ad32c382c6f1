"""Boxes to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rasa.protocols import Segmenter
from rasa.stages._checks import answers_of, describe_model
from rasa.types import Image, Masks, Result


@dataclass(frozen=True)
class Segment:
    """Give every instance a mask by prompting ``segmenter`` with its box."""

    segmenter: Segmenter
    name: ClassVar[str] = "segment"

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results whose instances have masks, also where there are none (then zero masks).

        Raises:
            ContractError: If the segmenter does not give one ``Masks`` per image.
            InputError: If the number or the size of the masks does not fit an image.
        """
        boxes = [result.instances.boxes for result in results]
        masks = answers_of(self.segmenter, self.segmenter.segment(images, boxes), len(images), Masks)
        return [result.with_masks(mask) for result, mask in zip(results, masks, strict=True)]

    def describe(self) -> Mapping[str, Any]:
        """The segmenter, as plain JSON values."""
        return describe_model(self.segmenter)

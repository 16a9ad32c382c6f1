"""Drop boxes that are not worth a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from rasa.errors import InputError
from rasa.ops.boxes import box_areas
from rasa.stages._checks import check_unit
from rasa.types import Image, Instances, Result


@dataclass(frozen=True)
class Filter:
    """Keep the instances that are sure and large enough, and of these the best.

    Attributes:
        box_threshold: Lowest score kept, in [0, 1]; 0 keeps all.
        min_area: Smallest box kept, in square pixels of the original image. The
            default is a box of 4 x 4, under which no mask says anything.
        max_instances: At most this many per image, the best scores; None keeps all.

    Raises:
        InputError: If a number is out of its range.
    """

    box_threshold: float = 0.0
    min_area: float = 16.0
    max_instances: int | None = None
    name: ClassVar[str] = "filter"
    provides: ClassVar[str] = "boxes"

    def __post_init__(self) -> None:
        check_unit("box_threshold", self.box_threshold)
        if not self.min_area >= 0:
            raise InputError(f"min_area must be at least 0 square pixels, got {self.min_area!r}")
        if self.max_instances is not None and not self.max_instances >= 0:
            raise InputError(f"max_instances must be at least 0 or None, got {self.max_instances!r}")

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with fewer instances, in the order they had."""
        return [result.with_instances(self._kept(result.instances)) for result in results]

    def _kept(self, found: Instances) -> Instances:
        # A float32 score equal to the threshold must pass: 0.3 as float32 is above 0.3, 0.7 is below.
        sure = found.scores >= np.float32(self.box_threshold)
        kept = np.flatnonzero(sure & (box_areas(found.boxes) >= self.min_area))
        if self.max_instances is not None and len(kept) > self.max_instances:
            best = np.argsort(-found.scores[kept], kind="stable")[: self.max_instances]
            kept = np.sort(kept[best])
        return found if len(kept) == len(found) else found.take(kept)

    def describe(self) -> Mapping[str, Any]:
        """The thresholds."""
        return asdict(self)

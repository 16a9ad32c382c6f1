"""Drop boxes that show the same object twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rasa.ops.nms import nms
from rasa.stages._checks import check_unit
from rasa.types import Image, Instances, Result


@dataclass(frozen=True)
class Suppress:
    """Keep one box per object: first among boxes of one label, then across labels.

    Attributes:
        nms_threshold: Two boxes of one label with a larger IoU are one object;
            the better score stays. 1 keeps all.
        merge_threshold: Two boxes of different labels with a larger IoU are one
            object that got two tags ("dog", "puppy"); the better score stays.
            The losing tag remains a tag of the image. 1 keeps all.

    Raises:
        InputError: If a threshold is outside [0, 1].
    """

    nms_threshold: float = 0.5
    merge_threshold: float = 0.85
    name: ClassVar[str] = "suppress"
    provides: ClassVar[str] = "boxes"

    def __post_init__(self) -> None:
        check_unit("nms_threshold", self.nms_threshold)
        check_unit("merge_threshold", self.merge_threshold)

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with fewer instances, in the order they had."""
        return [result.with_instances(self._kept(result.instances)) for result in results]

    def _kept(self, found: Instances) -> Instances:
        kept = nms(
            found.boxes,
            found.scores,
            found.labels,
            nms_threshold=self.nms_threshold,
            merge_threshold=self.merge_threshold,
        )
        return found if len(kept) == len(found) else found.take(kept)

    def describe(self) -> Mapping[str, Any]:
        """The thresholds."""
        return asdict(self)

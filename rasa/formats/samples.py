"""What every dataset format writes and reads: labelled images one by one, and what could not be held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rasa.errors import InputError
from rasa.types import Result

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One labelled image, as a writer takes it and a reader gives it.

    Attributes:
        id: Stable id of the image: sha256 of its bytes, in hexadecimal; "" where a format has none.
        file_name: Name of the image file in the dataset, such as ``"3f2a91c0.jpg"``: unique, safe on every file
            system, without folders.
        result: What was found; labels are class names already, dropped classes are gone.
        split: Part of the dataset that the image belongs to.
        read_bytes: Reads the image file as it was found; None where a reader has no images.

    Raises:
        InputError: If the split is none of the three, or the file name has a folder in it.
    """

    id: str
    file_name: str
    result: Result
    split: Split = "train"
    read_bytes: Callable[[], bytes] | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if not self.file_name or "/" in self.file_name or "\\" in self.file_name or self.file_name in {".", ".."}:
            raise InputError(f"file_name must be a plain name without folders, got {self.file_name!r}")


@dataclass(slots=True)
class WriteReport:
    """What a writer wrote, and what its format could not hold.

    Attributes:
        images: Number of images written.
        objects: Number of objects written.
        lost: What was not written and how often, such as ``{"holes of masks": 3}``; empty if nothing was.
        worst_iou: Lowest intersection over union between a mask and what the format made of it, in [0, 1], and the
            image and label of it; None where masks are exact or not written.
    """

    images: int = 0
    objects: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    worst_iou: tuple[float, str, str] | None = None

    def lose(self, what: str, count: int = 1) -> None:
        """Note that ``count`` of something could not be held."""
        if count:
            self.lost[what] += count

    def note_iou(self, iou: float, *, image: str, label: str) -> None:
        """Note how well a mask was kept."""
        if self.worst_iou is None or iou < self.worst_iou[0]:
            self.worst_iou = (iou, image, label)

    def to_dict(self) -> Mapping[str, object]:
        """Plain JSON values."""
        return {"images": self.images, "objects": self.objects, "lost": dict(self.lost), "worst_iou": self.worst_iou}

"""Ask the tagger about each box: does the cut-out alone show what the label says?

Source:
    The idea is that of the data cleaning of Recognize Anything (Zhang et al., arXiv:2306.03514, section 3.3), which
    tags the regions of a label's boxes and drops what disagrees; here it is done when a dataset is labelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasa.arrays import FloatArray, IntArray, read_only
from rasa.errors import InputError
from rasa.protocols import Described, Tagger
from rasa.stages._checks import answers_of
from rasa.types import Image, Instances, Tags


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """What the tagger says about the boxes of one image, as parallel arrays.

    Attributes:
        scores: float32 ``(N,)`` in [0, 1], of the label's tag in the cut-out; 0 where the tagger does not give it.
        ranks: int64 ``(N,)``, place of that tag among those of the cut-out, 1 for the first; 0 where it is not given.
        tops: N texts, the first tag of each cut-out; "" where there is none.
    """

    scores: FloatArray
    ranks: IntArray
    tops: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.tops)
        object.__setattr__(self, "scores", read_only("scores", self.scores, dtype=np.float32, shape=(count,)))
        object.__setattr__(self, "ranks", read_only("ranks", self.ranks, dtype=np.int64, shape=(count,)))

    def __len__(self) -> int:
        return len(self.tops)


@dataclass(frozen=True)
class RegionCheck:
    """Tags the cut-out of each box and looks for the label.

    Attributes:
        tagger: With a low threshold, so that weak agreement is seen too.
        surroundings: How much of the photo around a box is in its cut-out, as a share of the box's width and height
            on each side; at least 0.
        classes: Label or tag to class: a tag of the class of the label confirms it, as synonyms do. A text that is not
            in it is a class of its own.
        batch_size: Cut-outs that go to the tagger together.

    Raises:
        InputError: If a number is out of its range.
    """

    tagger: Tagger
    surroundings: float = 0.2
    classes: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.surroundings <= 10:
            raise InputError(f"surroundings must be in [0, 10] of the box, got {self.surroundings!r}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size!r}")

    def __call__(self, image: Image, found: Instances) -> Agreement:
        """The tagger's word on each box.

        Raises:
            ContractError: If the tagger does not give one answer for each cut-out.
        """
        crops = [cut_out(image, box, surroundings=self.surroundings) for box in found.boxes]
        answers: list[Tags] = []
        for start in range(0, len(crops), self.batch_size):
            batch = crops[start : start + self.batch_size]
            answers += answers_of(self.tagger, self.tagger.tag(batch), len(batch), Tags)
        pairs = [self._found(label, tags) for label, tags in zip(found.labels, answers, strict=True)]
        return Agreement(
            np.array([score for score, _ in pairs], np.float32),
            np.array([rank for _, rank in pairs], np.int64),
            tuple(tags.names[0] if len(tags) else "" for tags in answers),
        )

    def describe(self) -> Mapping[str, Any]:
        """Plain JSON values that decide the answers."""
        tagger = self.tagger.describe() if isinstance(self.tagger, Described) else {"model": type(self.tagger).__name__}
        classes = dict(sorted(self.classes.items()))
        return {"tagger": dict(tagger), "surroundings": self.surroundings, "classes": classes}

    def _found(self, label: str, tags: Tags) -> tuple[float, int]:
        wanted = self.classes.get(label, label)
        order = np.argsort(-tags.scores, kind="stable")
        for rank, position in enumerate(order, start=1):
            if self.classes.get(tags.names[position], tags.names[position]) == wanted:
                return float(tags.scores[position]), rank
        return 0.0, 0


def cut_out(image: Image, box: FloatArray, *, surroundings: float) -> Image:
    """The part of a photo in a box and around it, at least one pixel.

    Args:
        image: The photo.
        box: xyxy in pixels, float32 ``(4,)``.
        surroundings: Share of the box's width and height that is added on each side, where the photo has it.
    """
    height, width = image.size
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy = surroundings * (x2 - x1), surroundings * (y2 - y1)
    left, right = _span(x1 - dx, x2 + dx, width)
    top, bottom = _span(y1 - dy, y2 + dy, height)
    return Image(np.ascontiguousarray(image.pixels[top:bottom, left:right]), name=image.name)


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(max(math.floor(low), 0), length - 1)
    return start, max(min(math.ceil(high), length), start + 1)

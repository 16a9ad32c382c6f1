"""Better labels out of labels: filters, and one object where several tags found the same one. Models are not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from rasa.arrays import BoolArray, FloatArray, IntArray
from rasa.errors import InputError
from rasa.ops.boxes import box_areas, box_iou
from rasa.ops.masks import mask_areas, masks_to_boxes
from rasa.stages._checks import check_unit
from rasa.types import KINDS, Instances, Result, Tags

Change = Callable[[Result], Result]
"""A pure function of results, such as :class:`Keep` or :class:`Merge`."""


@dataclass(frozen=True)
class Keep:
    """Which tags and objects stay; all do unless said otherwise.

    >>> result = Result("a.jpg", (4, 4), tags=Tags(("cat", "dog"), np.array([0.9, 0.2], np.float32)))
    >>> Keep(min_tag_score=0.5)(result).tags.names
    ('cat',)

    Attributes:
        min_score: Lowest score of an object, in [0, 1].
        min_mask_score: Lowest score of its mask, in [0, 1]; objects without one stay.
        min_area: Fewest pixels of an object: of its mask, or of its box where there is no mask.
        min_tag_score: Lowest score of a tag, in [0, 1].
        kinds: Kinds of tags that stay (:data:`rasa.types.KINDS`), with their objects; a tag of no known kind stays.
            None keeps all.
        drop: Labels and tags that go.

    Raises:
        InputError: If a score or a kind is none.
    """

    min_score: float = 0.0
    min_mask_score: float = 0.0
    min_area: float = 0.0
    min_tag_score: float = 0.0
    kinds: tuple[str, ...] | None = None
    drop: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for name in ("min_score", "min_mask_score", "min_tag_score"):
            check_unit(name, getattr(self, name))
        if not self.min_area >= 0:
            raise InputError(f"min_area must be a number of pixels, got {self.min_area!r}")
        object.__setattr__(self, "drop", frozenset(self.drop))
        if self.kinds is not None:
            object.__setattr__(self, "kinds", _checked_kinds(self.kinds))

    def __call__(self, result: Result) -> Result:
        """The same result with what stays, in the order it had."""
        unwanted = self.drop | self._of_other_kinds(result.tags)
        found, tags = result.instances, result.tags
        wanted = np.array([label not in unwanted for label in found.labels], np.bool_)
        wanted &= (found.scores >= self.min_score) & (areas(found) >= self.min_area)
        if found.mask_scores is not None:
            wanted &= found.mask_scores >= self.min_mask_score
        named = np.array([name not in unwanted for name in tags.names], np.bool_) & (tags.scores >= self.min_tag_score)
        kept = result if wanted.all() else result.with_instances(found.take(wanted))
        return kept if named.all() else kept.with_tags(take_tags(tags, np.flatnonzero(named)))

    def describe(self) -> Mapping[str, Any]:
        """Plain JSON values that decide what stays."""
        values = {"step": "keep", **asdict(self), "drop": sorted(self.drop)}
        return {**values, "kinds": None if self.kinds is None else list(self.kinds)}

    def _of_other_kinds(self, tags: Tags) -> set[str]:
        if self.kinds is None or tags.kinds is None:
            return set()
        return {name for name, kind in zip(tags.names, tags.kinds, strict=True) if kind and kind not in self.kinds}


@dataclass(frozen=True)
class Merge:
    """One object in place of several that lie on each other: the one with the best score stays.

    Objects are visited from the best score down, ties in their order. One is merged into an object that stays if
    their intersection over union is above ``same_iou`` where the two have one class, or above ``other_iou`` where
    they have not. Masks are compared where there are masks, else boxes. The label that goes stays a tag of the image.

    Attributes:
        same_iou: For labels of one class, in [0, 1]; 1 merges none.
        other_iou: For labels of different classes, in [0, 1]; 1 merges none.
        classes: Label to class: labels of one class are synonyms, such as those that an ontology merges. A label that
            is not in it is a class of its own.

    Raises:
        InputError: If a threshold is outside [0, 1].
    """

    same_iou: float = 0.5
    other_iou: float = 0.85
    classes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_unit("same_iou", self.same_iou)
        check_unit("other_iou", self.other_iou)

    def __call__(self, result: Result) -> Result:
        """The same result with fewer objects, in the order they had."""
        kept = self._kept(result.instances)
        if len(kept) == len(result.instances):
            return result
        lost = [label for label in result.instances.labels if label not in result.tags.names]
        tags = with_tags(result.tags, {label: _best(result.instances, label) for label in dict.fromkeys(lost)})
        return result.with_instances(result.instances.take(kept)).with_tags(tags)

    def describe(self) -> Mapping[str, Any]:
        """Plain JSON values that decide what is merged."""
        values = {"same_iou": self.same_iou, "other_iou": self.other_iou}
        return {"step": "merge", **values, "classes": dict(sorted(self.classes.items()))}

    def _kept(self, found: Instances) -> IntArray:
        names = [self.classes.get(label, label) for label in found.labels]
        _, classes = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
        overlaps = Overlaps(found)
        waiting, kept = np.argsort(-found.scores, kind="stable"), []
        while len(waiting):
            best, rest = waiting[0], waiting[1:]
            kept.append(best)
            limits = np.where(classes[rest] == classes[best], self.same_iou, self.other_iou)
            waiting = rest[overlaps.between(int(best), rest) <= limits]
        return np.sort(np.array(kept, np.int64))


class Overlaps:
    """Intersection over union of objects: of masks where there are masks, else of boxes.

    Masks are compared pixel by pixel only where their extents meet, and only there.
    """

    def __init__(self, found: Instances) -> None:
        self._masks: BoolArray | None = found.masks
        self._boxes = found.boxes if found.masks is None else masks_to_boxes(found.masks)
        self._areas = None if found.masks is None else mask_areas(found.masks)

    def between(self, one: int, others: IntArray) -> FloatArray:
        """IoU of object ``one`` with each of ``others``, float32 in [0, 1]."""
        ious: FloatArray = box_iou(self._boxes[one][None], self._boxes[others])[0]
        if self._masks is None or self._areas is None:
            return ious
        x1, y1, x2, y2 = self._boxes[one].astype(int)
        own = self._masks[one, y1:y2, x1:x2]
        for place in np.flatnonzero(ious > 0):
            other = others[place]
            common = np.count_nonzero(own & self._masks[other, y1:y2, x1:x2])
            ious[place] = common / (self._areas[one] + self._areas[other] - common)
        return ious


def apply_changes(result: Result, changes: Iterable[Change]) -> Result:
    """``result`` after all ``changes``, in their order."""
    return reduce(lambda changed, change: change(changed), changes, result)


def areas(found: Instances) -> FloatArray:
    """Pixels of each object, float32 ``(N,)``: of its mask, or of its box where there is no mask."""
    pixels: FloatArray = box_areas(found.boxes) if found.masks is None else mask_areas(found.masks).astype(np.float32)
    return pixels


def take_tags(tags: Tags, positions: IntArray) -> Tags:
    """The tags at ``positions``, in that order."""
    return Tags(
        names=tuple(tags.names[i] for i in positions),
        scores=tags.scores[positions],
        ids=None if tags.ids is None else tags.ids[positions],
        kinds=None if tags.kinds is None else tuple(tags.kinds[i] for i in positions),
    )


def with_tags(tags: Tags, more: Mapping[str, float]) -> Tags:
    """``tags`` and after them ``more``, names to scores; ids are given up where ``more`` is not empty."""
    if not more:
        return tags
    scores = np.concatenate([tags.scores, np.array(list(more.values()), np.float32)])
    kinds = None if tags.kinds is None else (*tags.kinds, *("" for _ in more))
    return Tags((*tags.names, *more), scores, kinds=kinds)


def _best(found: Instances, label: str) -> float:
    return float(max(score for score, own in zip(found.scores, found.labels, strict=True) if own == label))


def _checked_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    given = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in given:
        if kind not in KINDS:
            raise InputError(f"kinds must be of {', '.join(KINDS)}, got {kind!r}")
    return given

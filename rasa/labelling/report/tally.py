"""What a report counts, image by image, in memory that grows with the number of tags alone."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.labelling.report.picks import Pick, Picker
from rasa.labelling.store import OK, LabelledRow
from rasa.ops.rle import rle_area

BINS = 20  # of a score
_EXAMPLES = 3
_SECONDS = np.geomspace(1e-5, 1e4, 181)  # steps of 12 %
SHARES = np.geomspace(1e-5, 1, 41)  # of the image that an object covers; eight steps a decade
MEGAPIXELS = np.array([0, 0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 16, 24, 48, np.inf])
COUNTS = np.array([0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, np.inf])
# COCO's areas of small, medium and large objects: below 32 and 96 pixels squared.
COCO_AREAS = np.array([0, 32**2, 96**2, np.inf])


@dataclass(slots=True)
class Histogram:
    """Numbers counted by interval.

    Attributes:
        edges: Ascending; interval i reaches from edge i up to, but without, edge i + 1. What lies outside counts
            for the outermost.
        total: Sum of the numbers.
    """

    edges: NDArray[np.float64]
    total: float = 0.0
    # Plain lists: most calls bring one number, for which NumPy takes twenty times as long.
    _ladder: list[float] = field(init=False)
    _counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._ladder = self.edges.tolist()
        self._counts = [0] * (len(self._ladder) - 1)

    def add(self, values: Iterable[float]) -> None:
        """Count ``values``."""
        last = len(self._counts) - 1
        for value in values:
            self._counts[min(max(bisect_right(self._ladder, value) - 1, 0), last)] += 1
            self.total += value

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many numbers each interval has; one interval less than edges."""
        return np.array(self._counts, np.int64)

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return sum(self._counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The number below which ``share`` of all lie, as if they were spread evenly in their interval; 0 if none."""
        if self.count == 0:
            return 0.0
        counts, rank = self.counts, share * self.count
        sums = np.cumsum(counts)
        place = min(int(np.searchsorted(sums, rank)), len(counts) - 1)
        low, high = float(self.edges[place]), float(self.edges[place + 1])
        inside = (rank - (sums[place] - counts[place])) / max(1, counts[place])
        return low if np.isinf(high) else low + (high - low) * float(inside)


def score_histogram() -> Histogram:
    """A histogram of scores."""
    return Histogram(np.linspace(0, 1, BINS + 1))


@dataclass(slots=True)
class TagTally:
    """One tag, or label, over the dataset.

    Attributes:
        picker: Of its objects; of its images where it has no objects.
        kind: As :data:`rasa.types.KINDS`, or "".
        images: Images with the tag or an object of it.
        objects: Objects of it.
        tag_scores: Of the images.
        scores: Of the objects.
        shares: Of the image that its objects cover.
    """

    picker: Picker
    image_picker: Picker
    kind: str = ""
    images: int = 0
    objects: int = 0
    tag_scores: Histogram = field(default_factory=score_histogram)
    scores: Histogram = field(default_factory=score_histogram)
    shares: Histogram = field(default_factory=lambda: Histogram(SHARES))

    @property
    def shown_scores(self) -> Histogram:
        """Of the objects, or of the images where the tag has none."""
        return self.scores if self.objects else self.tag_scores


@dataclass(slots=True)
class Tally:
    """Everything that a report says about the images of a dataset; feed it with :meth:`add`.

    Attributes:
        each: Samples in each group of a contact sheet.
        seed: Decides the random samples.
    """

    each: int
    seed: int
    images: int = 0
    bytes: int = 0
    empty: int = 0
    objects: int = 0
    masks: int = 0
    tags: dict[str, TagTally] = field(default_factory=dict)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_names: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    tag_scores: Histogram = field(default_factory=score_histogram)
    scores: Histogram = field(default_factory=score_histogram)
    mask_scores: Histogram = field(default_factory=score_histogram)
    shares: Histogram = field(default_factory=lambda: Histogram(SHARES))
    coco_areas: Histogram = field(default_factory=lambda: Histogram(COCO_AREAS))
    megapixels: Histogram = field(default_factory=lambda: Histogram(MEGAPIXELS))
    objects_per_image: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    tags_per_image: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    seconds: dict[str, Histogram] = field(default_factory=dict)
    gallery: Picker = field(init=False)

    def __post_init__(self) -> None:
        self.gallery = Picker(2, self.seed)

    @property
    def failed(self) -> int:
        """Images without a result."""
        return self.failures.total()

    def add(self, position: int, row: LabelledRow) -> None:
        """Count the image at ``position`` in the dataset."""
        self.images += 1
        self.bytes += row.bytes
        if row.status != OK:
            self._add_failure(row)
            return
        self.megapixels.add([row.height * row.width / 1e6])
        self.tags_per_image.add([len(row.tags)])
        self.objects_per_image.add([len(row.instances)])
        self.empty += not row.tags and not row.instances
        self._add_tags(position, row)
        self._add_objects(position, row)
        for name in names_of(row):
            self.tags[name].images += 1

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Count the time that an image took in a stage."""
        if stage not in self.seconds:
            self.seconds[stage] = Histogram(_SECONDS)
        self.seconds[stage].add([seconds])

    def ranked(self) -> Iterator[tuple[str, TagTally]]:
        """Tags, those with most objects first, then those on most images."""
        return iter(sorted(self.tags.items(), key=lambda item: (-item[1].objects, -item[1].images, item[0])))

    def _tag(self, name: str) -> TagTally:
        if name not in self.tags:
            self.tags[name] = TagTally(Picker(self.each, self.seed), Picker(self.each, self.seed))
        return self.tags[name]

    def _add_failure(self, row: LabelledRow) -> None:
        kind = (row.error_stage or "", row.error_kind or "")
        self.failures[kind] += 1
        examples = self.failed_names.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append((row.path, row.error_message or ""))

    def _add_tags(self, position: int, row: LabelledRow) -> None:
        self.tag_scores.add([entry["score"] for entry in row.tags])
        for entry in row.tags:
            tag, score = self._tag(entry["name"]), float(entry["score"])
            tag.kind = tag.kind or entry["kind"] or ""
            tag.tag_scores.add([score])
            tag.image_picker.add(Pick(score, position, -1), row.id)

    def _add_objects(self, position: int, row: LabelledRow) -> None:
        for i, found in enumerate(row.instances):
            tag, score, pixels = self._tag(found["label"]), float(found["score"]), object_area(found)
            share = pixels / max(1, row.height * row.width)
            for histogram in (self.scores, tag.scores):
                histogram.add([score])
            for histogram in (self.shares, tag.shares):
                histogram.add([share])
            self.coco_areas.add([pixels])
            tag.objects += 1
            tag.picker.add(Pick(score, position, i), f"{row.id}:{i}")
            self.masks += found["mask"] is not None
        self.mask_scores.add([found["mask_score"] for found in row.instances if found["mask_score"] is not None])
        self.objects += len(row.instances)
        if row.instances:
            mean = sum(float(found["score"]) for found in row.instances) / len(row.instances)
            self.gallery.add(Pick(mean, position, -1), row.id)


def names_of(row: LabelledRow) -> set[str]:
    """Tags of an image and labels of its objects."""
    return {entry["name"] for entry in row.tags} | {found["label"] for found in row.instances}


def object_area(found: Mapping[str, Any]) -> float:
    """Pixels of the mask of an instance, or of its box where it has none."""
    if found["mask"] is not None:
        return float(rle_area(found["mask"]))
    x1, y1, x2, y2 = found["box"]
    return float((x2 - x1) * (y2 - y1))

"""All that a page says, gathered; the sections only put it into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasa.formats.samples import SPLITS
from rasa.labelling.report.picks import GROUPS, Pick
from rasa.labelling.report.sheets import Sheets
from rasa.labelling.report.tally import Tally

MATRIX_TAGS = 18
MAX_SHEETS = 24
_MAX_THUMBS = 480  # so that what is drawn, before the page is trimmed, stays below some 20 MB


@dataclass(frozen=True, slots=True)
class About:
    """What a dataset says of itself.

    Attributes:
        name: Of its folder.
        fingerprint: Of everything that decided the labels.
        provenance: Of its run, plain JSON values.
        finished: Whether every image of its plan has a row.
        duplicates: Groups of paths with the same bytes, the first of which was labelled.
    """

    name: str
    fingerprint: str
    provenance: Mapping[str, Any]
    finished: bool
    duplicates: Sequence[Sequence[str]]


@dataclass(slots=True)
class Pairs:
    """How often tags come together, among a few.

    Attributes:
        names: N tags.
        counts: int64 ``(N, N)``, images that have both; the diagonal those that have one.
    """

    names: Sequence[str]
    counts: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)

    def add(self, names: set[str]) -> None:
        """Count one image."""
        places = [place for place, name in enumerate(self.names) if name in names]
        self.counts[np.ix_(places, places)] += 1

    @property
    def shares(self) -> list[list[float]]:
        """Of the images with the tag of the row, those that have the tag of the column."""
        shares: list[list[float]] = (self.counts / np.maximum(1, np.diag(self.counts))[:, None]).tolist()
        return shares


@dataclass(slots=True)
class Parts:
    """What training, validation and test would hold if the dataset were exported as it is.

    Attributes:
        names: N tags.
        images: Images by part.
        objects: int64 ``(N, 3)``, objects by tag and part; images where a tag has no objects.
    """

    names: Sequence[str]
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    objects: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        self.objects = np.zeros((len(self.names), len(SPLITS)), np.int64)

    def add(self, split: str, labels: Sequence[str]) -> None:
        """Count one image."""
        self.images[split] += 1
        place = SPLITS.index(split)
        for i, name in enumerate(self.names):
            self.objects[i, place] += labels.count(name)


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        about: The dataset.
        tally: What was counted.
        pairs: Tags that come together.
        parts: The split.
        sheets: Samples.
        shown: Tags whose samples have room on the page.
    """

    about: About
    tally: Tally
    pairs: Pairs
    parts: Parts
    sheets: Sheets
    shown: Sequence[str]


def choose(tally: Tally) -> dict[str, dict[str, list[Pick]]]:
    """Samples to draw: by tag, those with most objects first, and under "" the photos of the gallery."""
    most = max(1, min(MAX_SHEETS, _MAX_THUMBS // max(1, len(GROUPS) * tally.each)))
    picks = {"": {name: tally.gallery.groups()[name] for name in GROUPS}}
    if tally.each == 0:
        return picks
    for name, tag in list(tally.ranked())[:most]:
        picks[name] = (tag.picker if tag.objects else tag.image_picker).groups()
    return picks

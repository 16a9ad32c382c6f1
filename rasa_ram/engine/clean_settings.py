"""How wrong tags are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rasa._suggest import did_you_mean
from rasa.errors import InputError

_OF_DECISIONS = (
    "confirm_threshold", "outlier_share", "clusters", "pairs_per_cluster", "max_clusters", "core_share",
    "min_pairs", "fit_regions", "missing", "seed",
)  # fmt: skip
_OF_SPEED = ("batch_size", "readers")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanSettings:
    """What the paper states is the outlier share of 10 %, the number of categories (534, not which), and K-Means++.

    Attributes:
        names: The vocabulary of the records: ``names[i]`` is the tag with id i.
        categories: The tags that the detector is asked for; None asks for all. Other tags are left alone.
        box_threshold: In [0, 1]; regions that the detector scores lower are not used. Its own threshold comes first.
        min_side: Shorter side of a region in pixels, at least 1; smaller ones are not used.
        max_regions: Most regions of one tag in one image, those of best score, at least 1.
        confirm_threshold: In [0, 1]; a tag whose best region has no greater score of the tagger loses the image. None
            takes the tagger's own thresholds.
        outlier_share: In [0, 1); of the images of a tag, those that lie farthest from the centre of their cluster.
        clusters: K of K-Means++; None takes one for each ``pairs_per_cluster`` images, from 1 to ``max_clusters``.
        pairs_per_cluster: See there.
        max_clusters: See there.
        core_share: In (0, 1]; the largest clusters that together hold this share of the regions are centres. The
            others may be nothing but wrong regions that look alike: they are measured to the nearest centre. 1 takes
            all clusters.
        min_pairs: Fewest images of a tag with regions for outliers to be looked for.
        fit_regions: Most regions that the centres are fitted to, drawn at random; all are measured.
        missing: Whether a tag of which the detector finds nothing is kept or dropped.
        seed: Of clustering.
        batch_size: Images at once; it may differ when a run is continued.
        readers: Threads that read images; likewise.

    Raises:
        InputError: If a number is out of its range, there is no name, or a category is no name.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...] | None = None
    box_threshold: float = 0.0
    min_side: float = 8.0
    max_regions: int = 4
    confirm_threshold: float | None = None
    outlier_share: float = 0.1
    clusters: int | None = None
    pairs_per_cluster: int = 100
    max_clusters: int = 16
    core_share: float = 0.8
    min_pairs: int = 20
    fit_regions: int = 50_000
    missing: Literal["keep", "drop"] = "keep"
    seed: int = 0
    batch_size: int = 8
    readers: int = 4

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("names must be the vocabulary of the records, got none")
        for name in self.categories or ():
            if name not in self.names:
                raise InputError(f'category "{name}" is no tag of the vocabulary{did_you_mean(name, self.names)}')
        if self.categories is not None and not self.categories:
            raise InputError("categories must hold at least one tag; None asks for all")
        self._check_numbers()

    @property
    def asked(self) -> frozenset[int]:
        """Ids of the categories."""
        if self.categories is None:
            return frozenset(range(len(self.names)))
        wanted = set(self.categories)
        return frozenset(tag for tag, name in enumerate(self.names) if name in wanted)

    def of_regions(self) -> Mapping[str, Any]:
        """What decides which regions are found, as JSON values."""
        return self._values(lambda name: name not in (*_OF_DECISIONS, *_OF_SPEED))

    def of_decisions(self) -> Mapping[str, Any]:
        """What decides which tags are dropped, given the regions."""
        return self._values(lambda name: name in _OF_DECISIONS)

    def _values(self, wanted: Any) -> Mapping[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if wanted(field.name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def _check_numbers(self) -> None:
        for field in ("box_threshold", "confirm_threshold"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{field} must be in [0, 1], got {value}")
        if not 0 <= self.outlier_share < 1:
            raise InputError(f"outlier_share must be in [0, 1), got {self.outlier_share}")
        if not 0 < self.core_share <= 1:
            raise InputError(f"core_share must be in (0, 1], got {self.core_share}")
        counts = (
            "max_regions",
            "pairs_per_cluster",
            "max_clusters",
            "fit_regions",
            "min_pairs",
            "min_side",
            *_OF_SPEED,
        )
        for field in (*counts, *(() if self.clusters is None else ("clusters",))):
            if not getattr(self, field) >= 1:
                raise InputError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if self.missing not in ("keep", "drop"):
            raise InputError(f'missing must be "keep" or "drop", got {self.missing!r}')

"""Second pass of cleaning: which images lose a tag, decided on all regions of that tag."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rasa._files import write_atomically
from rasa.arrays import BoolArray, FloatArray, IntArray
from rasa.errors import DependencyError, FormatError
from rasa_ram.engine.clean_regions import read_columns
from rasa_ram.engine.clean_settings import CleanSettings

try:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise DependencyError('cleaning needs the package "scikit-learn"; install the extra "engine"') from error

_TRIES = 4  # of K-Means++, from different first centres; the tightest is taken
_AT_ONCE = 8192  # regions that are measured together


@dataclass(frozen=True, slots=True)
class TagPiece:
    """All regions of one tag, which lie in several files.

    Attributes:
        tag: Its id.
        spans: ``(shard, file, rows)`` of each file that has some, by shard.
    """

    tag: int
    spans: tuple[tuple[int, Path, slice], ...]

    @property
    def key(self) -> str:
        """Such as ``"tag-000017"``."""
        return f"tag-{self.tag:06d}"

    def __len__(self) -> int:
        return sum(rows.stop - rows.start for _, _, rows in self.spans)

    def table(self) -> tuple[IntArray, FloatArray]:
        """Of each region the image, int64 ``(R,)`` as shard * 2^32 + record, and its score, float32 ``(R,)``."""
        images, scores = [], []
        for shard, path, rows in self.spans:
            records, confirmed = read_columns(path, ["records", "scores"], rows)
            images.append((np.int64(shard) << 32) + records.astype(np.int64))
            scores.append(confirmed)
        return np.concatenate(images), np.concatenate(scores)

    def vectors(self) -> Iterator[FloatArray]:
        """float32 ``(n, C)`` of all regions in order, some at a time."""
        for _, path, rows in self.spans:
            for start in range(rows.start, rows.stop, _AT_ONCE):
                part = slice(start, min(start + _AT_ONCE, rows.stop))
                yield read_columns(path, ["vectors"], part)[0].astype(np.float32)

    def sample(self, count: int, seed: int) -> FloatArray:
        """float32 ``(min(count, R), C)``: regions drawn at random, in order."""
        total = len(self)
        if total <= count:
            return np.concatenate([*self.vectors()])
        chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
        parts, start = [], 0
        for vectors in self.vectors():
            here = chosen[(chosen >= start) & (chosen < start + len(vectors))]
            parts.append(vectors[here - start])
            start += len(vectors)
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What becomes of a tag.

    Attributes:
        tag: Its id.
        images: int64 ``(D,)``, those that lose it, as shard * 2^32 + record, ascending.
        outlier: bool ``(D,)``, whether for lying far from its centre.
        unconfirmed: bool ``(D,)``, whether for the tagger's score.
        distances: float32 ``(D,)``, to the centre; NaN where nothing was clustered.
        scores: float32 ``(D,)``, the tagger's best on the image's regions; NaN where it does not know the tag.
        pairs: Images that have the tag with a region.
        clusters: That were fitted; 0 if none.
    """

    tag: int
    images: IntArray
    outlier: BoolArray
    unconfirmed: BoolArray
    distances: FloatArray
    scores: FloatArray
    pairs: int
    clusters: int


def decide(piece: TagPiece, settings: CleanSettings, *, threshold: float) -> Decision:
    """Find the images that lose a tag.

    An image counts by its best region: the one nearest to a centre, and the one that the tagger scores highest.
    floor(``outlier_share`` * images) of them are outliers, the farthest; of equally far ones the first.

    Args:
        piece: The regions of the tag.
        settings: See :class:`CleanSettings`.
        threshold: Score that the tag must exceed on a region.
    """
    regions, confirmed = piece.table()
    images, starts = np.unique(regions, return_index=True)
    scores = np.fmax.reduceat(confirmed, starts)
    distances, clusters = np.full(len(images), np.nan, np.float32), 0
    outlier = np.zeros(len(images), np.bool_)
    if len(images) >= settings.min_pairs and settings.outlier_share > 0:
        centres = fit_centres(piece, settings, pairs=len(images))
        clusters = len(centres)
        distances = np.minimum.reduceat(_distances(piece, centres), starts)
        outlier[farthest(distances, settings.outlier_share)] = True
    unconfirmed = scores <= threshold  # False for NaN: a tagger that does not know a tag cannot deny it
    lost = np.flatnonzero(outlier | unconfirmed)
    return Decision(
        piece.tag, images[lost], outlier[lost], unconfirmed[lost], distances[lost], scores[lost], len(images), clusters
    )


def cluster_count(pairs: int, settings: CleanSettings) -> int:
    """K of K-Means++ for a tag of so many images, at least 1.

    >>> settings = CleanSettings(names=("cat",))
    >>> [cluster_count(pairs, settings) for pairs in (20, 199, 200, 5000)]
    [1, 1, 2, 16]
    """
    if settings.clusters is not None:
        return min(settings.clusters, pairs)
    return min(max(1, pairs // settings.pairs_per_cluster), settings.max_clusters)


def fit_centres(piece: TagPiece, settings: CleanSettings, *, pairs: int) -> FloatArray:
    """Centres of the clusters that K-Means++ finds, those that are core; float32 ``(K, C)``."""
    seed = int(np.random.SeedSequence([settings.seed, piece.tag]).generate_state(1)[0])
    sample = piece.sample(settings.fit_regions, seed)
    model = KMeans(min(cluster_count(pairs, settings), len(sample)), n_init=_TRIES, random_state=seed)
    # One thread: sums of several come in any order, and equal work must give equal bytes.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct regions than clusters
        model.fit(sample)
    kept: FloatArray = model.cluster_centers_[core_clusters(np.bincount(model.labels_), settings.core_share)]
    return kept


def core_clusters(sizes: IntArray, share: float) -> IntArray:
    """Positions of the largest clusters that together hold at least ``share`` of all regions; of equal ones the first.

    >>> core_clusters(np.array([15, 45, 40]), 0.8).tolist()
    [1, 2]
    """
    order = np.argsort(-sizes, kind="stable")
    held = np.cumsum(sizes[order])
    return np.sort(order[: int(np.searchsorted(held, share * held[-1] - 1e-9)) + 1])


def farthest(distances: FloatArray, share: float) -> IntArray:
    """Positions of the largest floor(share * N) numbers; of equal ones the first.

    >>> farthest(np.array([1, 3, 2, 3, 0], np.float32), 0.4).tolist()
    [1, 3]
    """
    count = math.floor(round(share * len(distances), 6))  # 0.29 * 100 is a little less than 29
    return np.argsort(-distances, kind="stable")[:count]


def write_decision(path: Path, decision: Decision) -> None:
    """Keep a decision; the same one gives the same bytes.

    Raises:
        OutputError: If it cannot be written.
    """
    arrays = {
        "images": decision.images, "outlier": decision.outlier, "unconfirmed": decision.unconfirmed,
        "distances": decision.distances, "scores": decision.scores,
    }  # fmt: skip
    facts = json.dumps({"tag": decision.tag, "pairs": decision.pairs, "clusters": decision.clusters})
    with write_atomically(path, sync=True) as file:
        file.write(save(arrays, {"decision": facts}))


def read_decision(path: Path) -> Decision:
    """What :func:`write_decision` wrote.

    Raises:
        FormatError: If it is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            return Decision(**json.loads(file.metadata()["decision"]), **arrays)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise FormatError(f"{path}: no readable decision: {error}; delete it and clean again") from error


def _distances(piece: TagPiece, centres: FloatArray) -> NDArray[np.float32]:
    parts: list[Any] = []
    for vectors in piece.vectors():
        each = [np.linalg.norm(vectors - centre, axis=1) for centre in centres]
        parts.append(np.min(each, axis=0))
    return np.concatenate(parts)


def pieces_of(spans: Sequence[tuple[int, Path, int, slice]]) -> list[TagPiece]:
    """Collect ``(shard, file, tag, rows)`` by tag, in the order of ids."""
    by_tag: dict[int, list[tuple[int, Path, slice]]] = {}
    for shard, path, tag, rows in spans:
        by_tag.setdefault(tag, []).append((shard, path, rows))
    return [TagPiece(tag, tuple(by_tag[tag])) for tag in sorted(by_tag)]

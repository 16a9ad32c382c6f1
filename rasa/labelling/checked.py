"""The region check of a whole dataset: what the tagger says is stored, and a run without what it denies is derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rasa.errors import ImageError, InputError
from rasa.io.images import to_image
from rasa.labelling.dataset import Dataset, LabelledImage
from rasa.labelling.fingerprint import fingerprint_of
from rasa.labelling.region_check import RegionCheck
from rasa.labelling.tables import read_rows, write_rows
from rasa.stages._checks import check_unit
from rasa.types import Result

CHECK_SCHEMA = pa.schema([
    ("id", pa.string()),
    ("error", pa.string()),  # why the image could not be read again; null if it could
    ("objects", pa.list_(pa.struct([
        ("label", pa.string()),
        ("score", pa.float32()),  # of the label's tag in the cut-out; 0 where the tagger does not give it
        ("rank", pa.int32()),  # of that tag among those of the cut-out, from 1; 0 where it is not given
        ("top", pa.string()),  # the first tag of the cut-out; "" where there is none
    ]))),
])  # fmt: skip


@dataclass(frozen=True)
class CheckedDataset:
    """What came of :func:`check_dataset`.

    Attributes:
        dataset: The derived run.
        folder: Where the agreement is: one Parquet file a shard, one row an image; see :data:`CHECK_SCHEMA`.
        objects: Number of objects that were checked.
        named: Those whose label the tagger gives at all.
        first: Those where it is the first tag.
        dropped: Those that were dropped.
        unread: Images that could not be read again; their objects stay.
    """

    dataset: Dataset
    folder: Path
    objects: int = 0
    named: int = 0
    first: int = 0
    dropped: int = 0
    unread: int = 0


def check_dataset(
    dataset: Dataset,
    check: RegionCheck,
    *,
    min_agreement: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> CheckedDataset:
    """Check all boxes of a dataset, store what the tagger says, and derive a run.

    The agreement goes to ``DATASET/checks/KEY/shard-000000.parquet``, where KEY stands for the run and the check: what
    is checked is not checked again, also after an interruption. The derived run has the labels of ``dataset``, less
    those with too little agreement.

    Args:
        dataset: A run of a dataset.
        check: How.
        min_agreement: Objects with a lower score in their cut-out are dropped, in [0, 1]; None keeps all.
        progress: Called after each image.

    Raises:
        InputError: If ``min_agreement`` is out of its range, or the run grew meanwhile.
        FormatError: If a file of the dataset is damaged.
        OutputError: If something cannot be written.
    """
    if min_agreement is not None:
        check_unit("min_agreement", min_agreement)
    what = {"check": check.describe()}
    folder = dataset.folder / "checks" / fingerprint_of({}, extra={**what, "parent": dataset.fingerprint})
    paths = []
    for shard in dataset.shards():
        paths.append(folder / f"{shard.key}.parquet")
        images = (image for image in dataset.shard_rows(shard) if image.ok)
        if not paths[-1].exists():
            write_rows(paths[-1], [_checked(image, check, progress) for image in images], CHECK_SCHEMA)
    stored = _rows(paths)
    change = {**what, "min_agreement": min_agreement}
    derived = dataset.derive(change, lambda images: _confirmed(images, stored, min_agreement))
    return CheckedDataset(derived, folder, **_counts(_rows(paths), min_agreement))


def _checked(image: LabelledImage, check: RegionCheck, progress: Callable[[], None]) -> Mapping[str, Any]:
    try:
        found, error = check(to_image(image.read_bytes(), name=image.path), image.result.instances), None
    except ImageError as problem:
        found, error = None, str(problem)
    progress()
    if found is None:
        return {"id": image.id, "error": error, "objects": []}
    columns = zip(image.result.instances.labels, found.scores.tolist(), found.ranks.tolist(), found.tops, strict=True)
    objects = [{"label": label, "score": score, "rank": rank, "top": top} for label, score, rank, top in columns]
    return {"id": image.id, "error": None, "objects": objects}


def _rows(paths: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    return (row for path in paths for row in read_rows(path))


def _confirmed(
    images: Iterable[LabelledImage], stored: Iterator[Mapping[str, Any]], min_agreement: float | None
) -> Iterator[Result]:
    for image in images:
        # Both are in the order of the plan; shards that were derived before are passed over.
        row = next((row for row in stored if row["id"] == image.id), None)
        if row is None:
            raise InputError(f"{image.path!r} was labelled while the dataset was checked; check it again")
        yield image.result if row["error"] is not None else _kept(image.result, row, min_agreement)


def _kept(result: Result, row: Mapping[str, Any], min_agreement: float | None) -> Result:
    if min_agreement is None:
        return result
    scores = np.array([found["score"] for found in row["objects"]], np.float32)
    kept = scores >= np.float32(min_agreement)
    return result if kept.all() else result.with_instances(result.instances.take(kept))


def _counts(rows: Iterable[Mapping[str, Any]], min_agreement: float | None) -> dict[str, int]:
    least = np.float32(-1 if min_agreement is None else min_agreement)
    counts = dict.fromkeys(("objects", "named", "first", "dropped", "unread"), 0)
    for row in rows:
        counts["unread"] += row["error"] is not None
        for found in row["objects"]:
            counts["objects"] += 1
            counts["named"] += found["rank"] > 0
            counts["first"] += found["rank"] == 1
            counts["dropped"] += bool(np.float32(found["score"]) < least)
    return counts

"""The labels of a dataset: one row an image, one Parquet file a shard and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rasa.errors import FormatError, InputError
from rasa.io.find import StrPath
from rasa.io.images import MAX_PIXELS, printable
from rasa.labelling.planned import PlannedImage, Shard
from rasa.labelling.tables import LABEL_SCHEMA, TIMING_SCHEMA, read_rows, read_table, write_rows
from rasa.ops.rle import mask_to_rle, rle_to_mask
from rasa.types import Failure, Instances, Result, Tags

OK, FAILED = "ok", "failed"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRow:
    """One image with its labels, as it is stored: masks as run lengths, so that thousands fit into memory.

    The attributes are the columns of the labels, as plain values; see :data:`rasa.labelling.tables.LABEL_SCHEMA`.

    Attributes:
        tags: ``{"name", "score", "kind", "id"}`` each; kind and id are None where they are not known.
        instances: ``{"box": [x1, y1, x2, y2], "label", "score", "mask_score", "mask": {"size", "counts"}}`` each,
            boxes in pixels and masks as COCO RLE; mask and mask_score are None where there is none.
        has_masks: Whether masks were made, also where there is no instance.
        timings: Seconds by stage; stored apart from the labels.
    """

    id: str
    path: str
    file_name: str
    bytes: int
    height: int
    width: int
    status: str
    error_stage: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    tags: Sequence[Mapping[str, Any]] = ()
    instances: Sequence[Mapping[str, Any]] = ()
    has_masks: bool = False
    timings: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, image: PlannedImage, result: Result) -> LabelledRow:
        """The row of one image; masks are encoded now, so ``result`` can be let go."""
        failure = result.failure
        return cls(
            image.id, image.path, image.file_name, image.bytes, *result.size, OK if failure is None else FAILED,
            error_stage=None if failure is None else printable(failure.stage),
            error_kind=None if failure is None else printable(failure.kind),
            error_message=None if failure is None else printable(failure.message),
            tags=_tag_rows(result.tags),
            instances=_instance_rows(result.instances),
            has_masks=result.instances.masks is not None,
            timings={printable(stage): float(seconds) for stage, seconds in result.timings.items()},
        )  # fmt: skip

    @classmethod
    def failed(cls, image: PlannedImage, failure: Failure) -> LabelledRow:
        """The row of an image that could not be processed."""
        return cls.of(image, Result(image.path, (0, 0), failure=failure))

    def result(self, provenance: Mapping[str, Any] | None = None) -> Result:
        """The row as a result, masks decoded; its name is the path. Timings are as the row has them.

        Raises:
            FormatError: If the row holds what no result can.
        """
        try:
            return Result(
                name=self.path,
                size=(self.height, self.width),
                tags=_tags_from(self.tags),
                instances=_instances_from(self.instances, (self.height, self.width), has_masks=self.has_masks),
                timings=self.timings,
                provenance=provenance or {},
                failure=None if self.status == OK else self._failure(),
            )
        except (InputError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise FormatError(f"labels of {self.path!r} ({self.id}): {error}") from error

    def _failure(self) -> Failure:
        return Failure(self.error_stage or "", self.error_kind or "", self.error_message or "")


def labels_file(dataset: StrPath, fingerprint: str, shard: Shard) -> Path:
    """Where the labels of a shard are."""
    return Path(dataset) / "labels" / fingerprint / f"{shard.key}.parquet"


def timings_file(dataset: StrPath, fingerprint: str, shard: Shard) -> Path:
    """Where the timings of a shard are: one row an image and stage."""
    return Path(dataset) / "timings" / fingerprint / f"{shard.key}.parquet"


def is_done(dataset: StrPath, fingerprint: str, shard: Shard) -> bool:
    """Whether a shard is labelled: its file appears when all of it is on the disk, and not before."""
    return labels_file(dataset, fingerprint, shard).exists()


def failed_rows(dataset: StrPath, fingerprint: str, shard: Shard) -> list[int]:
    """Positions of the images of a shard that is done that failed, but for those that could not even be planned.

    Raises:
        FormatError: If the file is missing or damaged.
    """
    statuses = read_table(labels_file(dataset, fingerprint, shard), ["status"])["status"].to_pylist()
    failed = [position for position, status in enumerate(statuses) if status == FAILED]
    images = shard.images if failed else ()
    return [position for position in failed if images[position].error is None]


def write_shard(dataset: StrPath, fingerprint: str, shard: Shard, rows: Sequence[LabelledRow]) -> Path:
    """Store the labels of a whole shard; the same labels give the same bytes.

    Args:
        dataset: The folder.
        fingerprint: Of the run.
        shard: Of the plan.
        rows: One per image of the shard, in its order.

    Raises:
        InputError: If the rows are not those of the shard.
        OutputError: If it cannot be written, such as on a full disk; then the shard is not done.
    """
    planned = [image.id for image in shard.images]
    if [row.id for row in rows] != planned:
        raise InputError(f"{shard.key} has {len(planned)} images, got {len(rows)} rows of others or in another order")
    timings = [
        {"id": row.id, "stage": stage, "seconds": seconds} for row in rows for stage, seconds in row.timings.items()
    ]
    # The labels come last: they say that the shard is done.
    write_rows(timings_file(dataset, fingerprint, shard), timings, TIMING_SCHEMA)
    path = labels_file(dataset, fingerprint, shard)
    write_rows(path, [_columns(row) for row in rows], LABEL_SCHEMA)
    return path


def read_shard(dataset: StrPath, fingerprint: str, shard: Shard) -> Iterator[LabelledRow]:
    """The rows of a shard that is done, in order, without timings.

    Raises:
        FormatError: If the file is missing or damaged.
    """
    table = read_table(labels_file(dataset, fingerprint, shard), LABEL_SCHEMA.names)
    for batch in table.to_batches(max_chunksize=32):  # lists of Python take ten times the memory of the table
        for row in batch.to_pylist():
            yield LabelledRow(**row)


def read_shard_with_timings(dataset: StrPath, fingerprint: str, shard: Shard) -> list[LabelledRow]:
    """All rows of a shard that is done, in order.

    Raises:
        FormatError: If a file is missing or damaged.
    """
    timings: dict[str, dict[str, float]] = {}
    for row in read_timings(dataset, fingerprint, shard):
        timings.setdefault(row["id"], {})[row["stage"]] = row["seconds"]
    rows = read_shard(dataset, fingerprint, shard)
    return [replace(row, timings=timings.get(row.id, {})) for row in rows]


def read_timings(dataset: StrPath, fingerprint: str, shard: Shard) -> list[dict[str, Any]]:
    """``{"id", "stage", "seconds"}`` for each image and stage of a shard that is done.

    Raises:
        FormatError: If the file is missing or damaged.
    """
    return read_rows(timings_file(dataset, fingerprint, shard))


def _columns(row: LabelledRow) -> dict[str, Any]:
    return {item.name: getattr(row, item.name) for item in fields(row) if item.name != "timings"}


def _tag_rows(tags: Tags) -> list[dict[str, Any]]:
    kinds = tags.kinds or (None,) * len(tags)
    ids = (None,) * len(tags) if tags.ids is None else tags.ids.tolist()
    columns = zip(tags.names, tags.scores.tolist(), kinds, ids, strict=True)
    return [
        {"name": printable(name), "score": score, "kind": kind, "id": number} for name, score, kind, number in columns
    ]


def _instance_rows(found: Instances) -> list[dict[str, Any]]:
    count = len(found)
    scores = (None,) * count if found.mask_scores is None else found.mask_scores.tolist()
    masks = (None,) * count if found.masks is None else [mask_to_rle(mask) for mask in found.masks]
    columns = zip(found.boxes.tolist(), found.labels, found.scores.tolist(), scores, masks, strict=True)
    return [
        {"box": box, "label": printable(label), "score": score, "mask_score": mask_score, "mask": mask}
        for box, label, score, mask_score, mask in columns
    ]


def _tags_from(rows: Sequence[Mapping[str, Any]]) -> Tags:
    ids, kinds = [row["id"] for row in rows], tuple(row["kind"] for row in rows)
    return Tags(
        tuple(row["name"] for row in rows),
        np.array([row["score"] for row in rows], np.float32),
        None if not ids or None in ids else np.array(ids, np.int64),
        None if not kinds or None in kinds else kinds,
    )


def _instances_from(rows: Sequence[Mapping[str, Any]], size: tuple[int, int], *, has_masks: bool) -> Instances:
    scores = [row["mask_score"] for row in rows]
    masks = None
    if size[0] * size[1] > MAX_PIXELS:
        raise FormatError(f"an image of {size[1]}x{size[0]} pixels, the limit is {MAX_PIXELS}")
    if has_masks:
        masks = np.zeros((len(rows), *size), np.bool_)
        for i, row in enumerate(rows):
            if list(row["mask"]["size"]) != list(size):
                raise FormatError(f"a mask of size {row['mask']['size']} in an image of size {list(size)}")
            masks[i] = rle_to_mask(row["mask"])
    return Instances(
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float32),
        tuple(row["label"] for row in rows),
        masks,
        None if not scores or None in scores else np.array(scores, np.float32),
    )

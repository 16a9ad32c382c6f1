"""Hugging Face `datasets`: Parquet files with the images in them, written without that package.

``load_dataset(folder)`` finds the parts by the names of the files, ``data/train-00000-of-00003.parquet``, and the
features in the metadata of their schema. A row has ``image``, ``image_id``, ``width``, ``height``, ``objects`` and
``tags``. ``objects`` are parallel lists: ``bbox`` as x, y, width and height in pixels, ``category`` as an id of the
classes, ``area`` in pixels (of the mask, else of the box), ``score``, ``mask_score``, and ``rle``, the counts of a
COCO run-length mask of the size of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of, write_class_names
from rasa.formats._folder import image_bytes, new_folder, samples_to_write
from rasa.formats._objects import check_mask_bytes, checked_size
from rasa.formats._parquet import GroupedWriter, class_label, feature, list_of, own_classes, read_rows, schema_of
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.ops.boxes import box_areas
from rasa.ops.masks import mask_areas
from rasa.ops.rle import mask_to_rle, rle_to_mask
from rasa.types import Instances, Result, Tags

MAX_FILE_BYTES = 500 * 10**6
"""Size of a file after which the next one begins, as Hugging Face's own `push_to_hub` has it."""

_SCHEMA = "rasa.datasets/1"
# Names by which `datasets` knows the parts.
_FILE_SPLITS: Mapping[Split, str] = {"train": "train", "val": "validation", "test": "test"}
_GROUP_BYTES, _GROUP_ROWS = 32 * 2**20, 256
_OBJECTS = {
    "bbox": pa.list_(pa.list_(pa.float64(), 4)),
    "category": pa.list_(pa.int64()),
    "area": pa.list_(pa.float64()),
    "score": pa.list_(pa.float32()),
    "mask_score": pa.list_(pa.float32()),
    "rle": pa.list_(pa.string()),
}
_TAGS = {"name": pa.list_(pa.string()), "score": pa.list_(pa.float32()), "kind": pa.list_(pa.string())}
_COLUMNS = {
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "image_id": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "objects": pa.struct(list(_OBJECTS.items())),
    "tags": pa.struct(list(_TAGS.items())),
}


def write_hf_datasets(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], max_file_bytes: int = MAX_FILE_BYTES
) -> WriteReport:
    """Write ``folder/data/*.parquet`` for ``datasets.load_dataset(folder)``, images included.

    Args:
        folder: Absent or empty.
        samples: May be a stream; an image is in memory until its row group is full, 32 MiB.
        classes: All class names; ids are positions.
        max_file_bytes: A file that has so many bytes, before compression, is followed by another.

    Raises:
        InputError: If a label is not among ``classes``, or ``max_file_bytes`` is not positive.
        OutputError: If the folder is not empty or cannot be written.
    """
    if max_file_bytes < 1:
        raise InputError(f"max_file_bytes must be at least 1, got {max_file_bytes}")
    report, known = WriteReport(), class_ids(classes)
    schema = schema_of(_COLUMNS, _features(classes), {"schema": _SCHEMA, "classes": list(classes)})
    with new_folder(folder) as part, ExitStack() as stack:
        write_class_names(part, classes)
        (part / "data").mkdir()
        files = {split: _Files(part / "data", split, schema, max_file_bytes) for split in SPLITS}
        for writer in files.values():
            stack.callback(writer.close)
        for sample in samples_to_write(samples, report):
            report.objects += len(sample.result.instances)
            files[sample.split].add(_row(sample, known, report))
        stack.close()
        for writer in files.values():
            writer.name_finally()
    return report


def read_hf_datasets(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_hf_datasets` wrote, part by part, with few images in memory at a time.

    Raises:
        FormatError: If a file is damaged or of another kind; the message names file and row.
        InputError: If a file cannot be read, or there is none.
    """
    data, found = Path(folder) / "data", 0
    for split in SPLITS:
        for path in sorted(data.glob(f"{_FILE_SPLITS[split]}-*.parquet")):
            found += 1
            yield from _read_file(path, split)
    if not found:
        raise InputError(f"{data} has no files such as train-00000-of-00001.parquet; is this the right folder?")


class _Files:
    """The files of one part of a dataset, one after the other."""

    def __init__(self, folder: Path, split: Split, schema: pa.Schema, max_bytes: int) -> None:
        self._folder, self._split, self._schema, self._max_bytes = folder, split, schema, max_bytes
        self._open: GroupedWriter | None = None
        self._paths: list[Path] = []

    def add(self, row: Mapping[str, Any]) -> None:
        if self._open is None:
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}.part")
            options: dict[str, Any] = {"most_rows": _GROUP_ROWS, "most_bytes": _GROUP_BYTES}
            self._open = GroupedWriter(self._paths[-1], self._schema, verbatim=("image.bytes",), **options)
        objects = row["objects"]
        size = len(row["image"]["bytes"] or b"") + 100 * len(objects["score"])
        self._open.add(row, size=size + sum(map(len, objects["rle"] or ())))
        if self._open.written >= self._max_bytes:
            self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    def name_finally(self) -> None:
        """Now that their number is known."""
        for number, path in enumerate(self._paths):
            name = f"{_FILE_SPLITS[self._split]}-{number:05d}-of-{len(self._paths):05d}.parquet"
            path.rename(path.with_name(name))


def _features(classes: Sequence[str]) -> Mapping[str, Any]:
    number, small, text = feature("float64"), feature("float32"), feature("string")
    objects = {
        "bbox": list_of(list_of(number, length=4)),
        "category": list_of(class_label(classes)),
        "area": list_of(number),
        "score": list_of(small),
        "mask_score": list_of(small),
        "rle": list_of(text),
    }
    sizes = {"width": feature("int32"), "height": feature("int32")}
    tags = {"name": list_of(text), "score": list_of(small), "kind": list_of(text)}
    return {"image": {"_type": "Image"}, "image_id": text, **sizes, "objects": objects, "tags": tags}


def _row(sample: Sample, known: Mapping[str, int], report: WriteReport) -> Mapping[str, Any]:
    height, width = sample.result.size
    tags = sample.result.tags
    image = {"bytes": image_bytes(sample, report=report), "path": sample.file_name}
    return {
        "image": image,
        "image_id": sample.id,
        "width": width,
        "height": height,
        "objects": _objects(sample, known),
        "tags": {"name": tags.names, "score": tags.scores, "kind": tags.kinds},
    }


def _objects(sample: Sample, known: Mapping[str, int]) -> Mapping[str, Any]:
    found = sample.result.instances
    # In float64, so that x + width is exactly the float32 that it was.
    boxes = found.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return {
        "bbox": boxes.tolist(),
        "category": [id_of(label, known, sample) for label in found.labels],
        "area": (box_areas(found.boxes) if found.masks is None else mask_areas(found.masks)).tolist(),
        "score": found.scores,
        "mask_score": found.mask_scores,
        "rle": None if found.masks is None else [mask_to_rle(mask)["counts"] for mask in found.masks],
    }


def _read_file(path: Path, split: Split) -> Iterator[Sample]:
    classes = own_classes(path, schema=_SCHEMA)
    for number, row in read_rows(path, list(_COLUMNS), batch_rows=4):
        try:
            yield _sample(row, classes, split)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"{path}, row {number}: {error}") from error


def _sample(row: Mapping[str, Any], classes: Sequence[str], split: Split) -> Sample:
    size = checked_size(row["height"], row["width"], where=row["image"]["path"])
    tags, data = row["tags"], row["image"]["bytes"]
    kinds = None if tags["kind"] is None else tuple(tags["kind"])
    named = Tags(tuple(tags["name"]), np.array(tags["score"], np.float32), kinds=kinds)
    result = Result(row["image"]["path"], size, tags=named, instances=_instances(row["objects"], size, classes))
    read_bytes = None if data is None else lambda: bytes(data)
    return Sample(row["image_id"], row["image"]["path"], result, split, read_bytes)


def _instances(objects: Mapping[str, Any], size: tuple[int, int], classes: Sequence[str]) -> Instances:
    boxes = np.array(objects["bbox"], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    if not all(0 <= category < len(classes) for category in objects["category"]):
        raise FormatError(f"categories must be below {len(classes)}, got {objects['category'][:20]}")
    masks, rles, mask_scores = None, objects["rle"], objects["mask_score"]
    if rles is not None:
        check_mask_bytes(len(rles), size)
        rows = [rle_to_mask({"size": size, "counts": counts}) for counts in rles]
        masks = np.stack(rows) if rows else np.zeros((0, *size), np.bool_)
    return Instances(
        boxes=boxes.astype(np.float32),
        scores=np.array(objects["score"], np.float32),
        labels=tuple(classes[category] for category in objects["category"]),
        masks=masks,
        mask_scores=None if mask_scores is None else np.array(mask_scores, np.float32),
    )

"""Tags of whole images as ``tags.parquet``: one row an image, with a number for every class.

``labels`` holds T zeros and ones, ``scores`` T numbers in [0, 1], 0 where the tag is not given; T is the number of
classes, whose names are in the metadata of the file and in ``classes.json``. There are no image files and no objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rasa.errors import FormatError
from rasa.formats._class_ids import class_ids, id_of, write_class_names
from rasa.formats._folder import new_folder, samples_to_write
from rasa.formats._objects import lose_tags
from rasa.formats._parquet import GroupedWriter, feature, list_of, own_classes, read_rows, schema_of
from rasa.formats.samples import Sample, WriteReport
from rasa.formats.tag_table import lose_all_but_tags
from rasa.types import Result, Tags

_FILE = "tags.parquet"
_SCHEMA = "rasa.tags/1"
_GROUP_BYTES = 8 * 2**20  # of labels and scores in one row group
_COLUMNS = {
    "id": pa.string(),
    "file_name": pa.string(),
    "split": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "labels": pa.list_(pa.uint8()),
    "scores": pa.list_(pa.float32()),
}


def write_tags_parquet(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write ``folder/tags.parquet``: one row an image, with zeros and ones, and scores, for all ``classes``.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: T tags, in the order of the columns ``labels`` and ``scores``.

    Raises:
        InputError: If a tag is not among ``classes``.
        OutputError: If the folder is not empty or cannot be written.
    """
    report, known = WriteReport(), class_ids(classes)
    schema = schema_of(_COLUMNS, _features(), {"schema": _SCHEMA, "classes": list(classes)})
    row_bytes = 5 * len(classes) + 200
    with new_folder(folder) as part:
        write_class_names(part, classes)
        with closing(GroupedWriter(part / _FILE, schema, most_rows=4096, most_bytes=_GROUP_BYTES)) as table:
            for sample in samples_to_write(samples, report):
                lose_all_but_tags(sample, report)
                lose_tags(sample.result.tags, report, keeps=("names", "scores"))
                table.add(_row(sample, known), size=row_bytes)
    return report


def read_tags_parquet(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_tags_parquet` wrote, image by image; tags come best score first.

    Raises:
        FormatError: If the file is damaged or no such table; the message names the row.
        InputError: If it cannot be read.
    """
    path = Path(folder) / _FILE
    classes = own_classes(path, schema=_SCHEMA)
    for number, row in read_rows(path, list(_COLUMNS), batch_rows=64):
        try:
            yield _sample(row, classes)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}, row {number}: {error}") from error


def _features() -> Mapping[str, Any]:
    texts = {name: feature("string") for name in ("id", "file_name", "split")}
    sizes = {name: feature("int32") for name in ("height", "width")}
    return {**texts, **sizes, "labels": list_of(feature("uint8")), "scores": list_of(feature("float32"))}


def _row(sample: Sample, known: Mapping[str, int]) -> Mapping[str, Any]:
    labels, scores = np.zeros(len(known), np.uint8), np.zeros(len(known), np.float32)
    tags = sample.result.tags
    places = [id_of(name, known, sample) for name in tags.names]
    labels[places], scores[places] = 1, tags.scores
    height, width = sample.result.size
    image = {"id": sample.id, "file_name": sample.file_name, "split": sample.split, "height": height, "width": width}
    return {**image, "labels": labels, "scores": scores}


def _sample(row: Mapping[str, Any], classes: Sequence[str]) -> Sample:
    labels, scores = np.array(row["labels"], np.uint8), np.array(row["scores"], np.float32)
    if labels.shape != (len(classes),) or scores.shape != labels.shape:
        raise FormatError(f"expected {len(classes)} labels and scores, one per class, got {len(labels)}, {len(scores)}")
    given = np.flatnonzero(labels)
    given = given[np.argsort(-scores[given], kind="stable")]
    tags = Tags(tuple(classes[i] for i in given.tolist()), scores[given])
    result = Result(row["file_name"], (int(row["height"]), int(row["width"])), tags=tags)
    return Sample(row["id"], row["file_name"], result, row["split"])

"""Tags of whole images as a table: ``tags.csv``, one row for each tag of each image.

The columns are :data:`COLUMNS`; an image without tags has one row with an empty tag. The order of the classes is in
``classes.json``. There are no image files and no objects.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of, write_class_names
from rasa.formats._folder import new_folder, samples_to_write
from rasa.formats.samples import Sample, WriteReport
from rasa.types import Result, Tags

COLUMNS = ("id", "file_name", "split", "height", "width", "tag", "score", "kind")
_FILE = "tags.csv"


def write_tags_csv(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write ``folder/tags.csv``: one row for each tag of each image, with its score and kind.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: All tags; written to ``classes.json``.

    Raises:
        InputError: If a tag is not among ``classes``.
        OutputError: If the folder is not empty or cannot be written.
    """
    report, known = WriteReport(), class_ids(classes)
    with new_folder(folder) as part:
        write_class_names(part, classes)
        with (part / _FILE).open("x", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for sample in samples_to_write(samples, report):
                lose_all_but_tags(sample, report)
                table.writerows(_rows(sample, known))
    return report


def read_tags_csv(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_tags_csv` wrote, image by image, in bounded memory.

    Raises:
        FormatError: If the file is no such table; the message names the line.
        InputError: If it cannot be read.
    """
    path = Path(folder) / _FILE
    for (name, split, height, width, given_id), numbered in groupby(_checked_rows(path), key=_image_of):
        rows = list(numbered)
        try:
            result = Result(name, (_length(height), _length(width)), tags=_tags_of([cells for _, cells in rows]))
            yield Sample(given_id, name, result, split)
        except ValueError as error:
            raise FormatError(f"{path}, line {rows[0][0]}: {error}") from error


def lose_all_but_tags(sample: Sample, report: WriteReport) -> None:
    """Note that a table of tags has no place for the objects and the image file of ``sample``."""
    report.lose("objects", len(sample.result.instances))
    report.lose("image files", sample.read_bytes is not None)


def _rows(sample: Sample, known: Mapping[str, int]) -> Iterator[tuple[Any, ...]]:
    height, width = sample.result.size
    image = (sample.id, sample.file_name, sample.split, height, width)
    tags = sample.result.tags
    if not len(tags):
        yield (*image, "", "", "")
    for name, score, kind in zip(tags.names, tags.scores, tags.kinds or ("",) * len(tags), strict=True):
        id_of(name, known, sample)
        # The shortest decimal that reads back as the same float32.
        yield (*image, name, str(score), kind)


def _checked_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            for number, cells in enumerate(reader):
                if len(cells) != len(COLUMNS) or (number == 0 and tuple(cells) != COLUMNS):
                    expected = f"the {len(COLUMNS)} columns {', '.join(COLUMNS)}"
                    raise FormatError(f"{path}, line {reader.line_num}: expected {expected}, got {len(cells)} cells")
                if number:
                    yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _image_of(numbered: tuple[int, list[str]]) -> tuple[str, Any, str, str, str]:
    given_id, name, split, height, width = numbered[1][:5]
    return name, split, height, width, given_id


def _length(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise FormatError(f"height and width must be whole numbers of pixels, got {text[:40]!r}")
    return int(text)


def _tags_of(rows: Sequence[Sequence[str]]) -> Tags:
    if len(rows) == 1 and not any(rows[0][5:]):
        return Tags()
    kinds = tuple(row[7] for row in rows)
    scores = np.array([float(row[6]) for row in rows], np.float32)
    return Tags(tuple(row[5] for row in rows), scores, kinds=kinds if any(kinds) else None)

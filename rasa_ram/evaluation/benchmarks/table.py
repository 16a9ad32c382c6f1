"""Any benchmark as a CSV file: a row for each tag of an image, or a column for each class."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark, TruthBuilder
from rasa_ram.evaluation.benchmarks.lines import read_names

# The first of these columns that a table has says which image a row is about, as in `rasa tune`.
IMAGE_COLUMNS = ("id", "path", "file_name", "image")


def read_table(annotations: Path, taglist: Path | None = None, *, name: str, notes: tuple[str, ...] = ()) -> Benchmark:
    """Read a benchmark from a CSV file with a header.

    With a column ``tag``, each row is a tag of an image, and an empty tag says that the image has none. Without it,
    every other column is a class and holds 0 or 1.

    Args:
        annotations: The CSV file; the image's column is the first of :data:`IMAGE_COLUMNS` that is there.
        taglist: The classes, one per line; else those of the file, in the order of their first row or column.
        name: What to call the benchmark.
        notes: Of the benchmark.

    Raises:
        FormatError: If a row is malformed; the message names the line.
        InputError: If a file cannot be read.
    """
    listed = None if taglist is None else read_names(taglist)
    with_rows = "tag" in _header(annotations)[1]
    classes = listed or (_tags(annotations) if with_rows else _classes(annotations))
    columns = {label: column for column, label in enumerate(classes)}
    builder = TruthBuilder(annotations, len(columns))
    for where, image, tags in _rows(annotations, with_rows=with_rows):
        row = builder.row(image, where) if with_rows else builder.add_image(image, where)
        for tag in tags:
            if tag not in columns:
                raise FormatError(f"{where}: {tag[:80]!r} is none of the {len(columns)} classes of {taglist}")
            builder.add(row, columns[tag])
    images, truth = builder.build()
    return Benchmark(name, images, tuple(columns), truth, notes=notes)


def _rows(path: Path, *, with_rows: bool) -> Iterator[tuple[str, str, Sequence[str]]]:
    key, header = _header(path)
    for where, row in _cells(path):
        if len(row) != len(header):
            raise FormatError(f"{where}: expected {len(header)} cells, got {len(row)}")
        cells = dict(zip(header, row, strict=True))
        if with_rows:
            yield where, cells[key], [tag] if (tag := cells["tag"].strip()) else []
            continue
        image = cells.pop(key)
        for column, cell in cells.items():
            if cell.strip() not in {"0", "1"}:
                raise FormatError(f"{where}: column {column!r} must hold 0 or 1, got {cell[:80]!r}")
        yield where, image, [column for column, cell in cells.items() if cell.strip() == "1"]


def _header(path: Path) -> tuple[str, tuple[str, ...]]:
    """The image's column and all columns."""
    _, header = next(_cells(path, header=True), ("", ()))
    key = next((name for name in IMAGE_COLUMNS if name in header), None)
    if key is None or len(header) < 2:
        expected = f"a column {', '.join(IMAGE_COLUMNS)} for the image and at least one more"
        raise FormatError(f"{path}, line 1: expected {expected}, got {', '.join(header)[:80] or 'none'}")
    if len(set(header)) != len(header):
        raise FormatError(f"{path}, line 1: two columns have the same name")
    return key, tuple(header)


def _tags(path: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for _, _, tags in _rows(path, with_rows=True) for tag in tags))


def _classes(path: Path) -> tuple[str, ...]:
    key, header = _header(path)
    return tuple(name for name in header if name != key)


def _cells(path: Path, *, header: bool = False) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for number, row in enumerate(reader):
                if row and (header or number):
                    yield f"{path}, line {reader.line_num}", row
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error

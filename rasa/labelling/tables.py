"""The tables of a dataset as Parquet: their columns, and how a part is written and read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rasa.errors import DependencyError, FormatError
from rasa.labelling._files import write_atomically

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise DependencyError('labelled datasets need the package "pyarrow"; install the extra "label"') from error

_PLACE = [
    ("kind", pa.string()),  # of the locator: file, tar, zip, video, url, object
    ("at", pa.binary()),  # bytes of the path, which need not be text
    ("member", pa.binary()),
    ("position", pa.int64()),
    ("size", pa.int64()),
    ("place", pa.int64()),  # Locator.key
    ("stat_size", pa.int64()),  # of the file or archive when it was read
    ("mtime_ns", pa.int64()),  # or what stands for the ETag of an object
]

PLAN_SCHEMA = pa.schema([
    ("id", pa.string()),
    ("path", pa.string()),
    ("file_name", pa.string()),
    ("bytes", pa.int64()),
    ("error_kind", pa.string()),  # null for an image that could be read
    ("error_message", pa.string()),
    *_PLACE,
])  # fmt: skip

# Places whose image has a row in the plan already: further copies of it, and files that changed.
SIGHTING_SCHEMA = pa.schema([("id", pa.string()), ("path", pa.string()), ("replaces", pa.string()), *_PLACE])

TAG = pa.struct([("name", pa.string()), ("score", pa.float32()), ("kind", pa.string()), ("id", pa.int64())])
MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
INSTANCE = pa.struct([
    ("box", pa.list_(pa.float32())),
    ("label", pa.string()),
    ("score", pa.float32()),
    ("mask_score", pa.float32()),
    ("mask", MASK),
])  # fmt: skip

LABEL_SCHEMA = pa.schema([
    ("id", pa.string()),
    ("path", pa.string()),
    ("file_name", pa.string()),
    ("bytes", pa.int64()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("status", pa.string()),  # "ok" or "failed"
    ("error_stage", pa.string()),
    ("error_kind", pa.string()),
    ("error_message", pa.string()),
    ("tags", pa.list_(TAG)),
    ("instances", pa.list_(INSTANCE)),
    ("has_masks", pa.bool_()),  # whether a segmenter ran, also where there is no instance
])  # fmt: skip

TIMING_SCHEMA = pa.schema([("id", pa.string()), ("stage", pa.string()), ("seconds", pa.float64())])


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write a Parquet file; the same rows give the same bytes with the same version of pyarrow.

    Raises:
        OutputError: If it cannot be written; then what was there before is untouched.
    """
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with write_atomically(path) as file:
        pq.write_table(table, file, compression="zstd", compression_level=3)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a file that :func:`write_rows` wrote.

    Raises:
        FormatError: If it is missing or no such file.
    """
    rows: list[dict[str, Any]] = read_table(path, columns).to_pylist()
    return rows


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """As :func:`read_rows`, as an Arrow table.

    Raises:
        FormatError: If it is missing, damaged, or lacks a column.
    """
    try:
        # ParquetFile and not read_table, which would add columns for folders called a=b above the file.
        with pq.ParquetFile(path) as file:
            missing = set(columns or ()) - set(file.schema_arrow.names)
            if missing:
                raise FormatError(f"{path}: no column {min(missing)!r}; the file is of another version of rasa")
            return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: no readable Parquet file: {error}; delete it and label again") from error


def row_count(path: Path) -> int:
    """Number of rows, from the end of the file alone.

    Raises:
        FormatError: If it is missing or damaged.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: no readable Parquet file: {error}; delete it and label again") from error


def parts_in(folder: Path, stem: str) -> Iterator[tuple[int, Path]]:
    """Number and path of the parts ``stem-000000.parquet`` of a folder, by number; none if there is no folder."""
    pattern = re.compile(re.escape(stem) + r"-([0-9]{6,})\.parquet")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    numbered = [(int(match[1]), folder / match[0]) for match in map(pattern.fullmatch, names) if match]
    yield from sorted(numbered)

"""Lists of images: CSV, JSON Lines and Parquet with a column ``path`` or ``url``, read row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rasa.errors import FormatError

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
_COLUMNS = ("path", "url")
_MAX_LINE_BYTES = 2**20


def read_manifest(path: str) -> Iterator[str]:
    """The path or address of each row; ``""`` for a row that has neither.

    Raises:
        FormatError: If the file is no such list; it names the line.
    """
    suffix = Path(path).suffix.lower()
    rows = {".csv": _csv, ".parquet": _parquet}.get(suffix, _json_lines)
    for number, row in enumerate(rows(path), start=1):
        value = next((row[name] for name in _COLUMNS if row.get(name)), "")
        if not isinstance(value, str):
            raise FormatError(f"{path}, row {number}: path and url must be texts, got {value!r}")
        yield value


def _csv(path: str) -> Iterator[Mapping[str, Any]]:
    # Paths need not be UTF-8; what a spreadsheet puts before the first column is no part of its name.
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        try:
            _check_columns(path, rows.fieldnames or ())
            yield from rows
        except csv.Error as error:
            raise FormatError(f"{path}, line {rows.line_num}: no valid CSV: {error}") from error


def _json_lines(path: str) -> Iterator[Mapping[str, Any]]:
    with Path(path).open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise FormatError(f"{path}, line {number}: longer than {_MAX_LINE_BYTES} bytes")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{path}, line {number}: no valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise FormatError(f'{path}, line {number}: expected an object such as {{"path": "a.jpg"}}')
            yield row


def _parquet(path: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415  (only for this kind)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            for batch in file.iter_batches(4096, columns=[name for name in _COLUMNS if name in names]):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise FormatError(f"{path}: no readable Parquet file: {error}") from error


def _check_columns(path: str, names: Iterable[str]) -> None:
    if not set(_COLUMNS) & set(names):
        raise FormatError(f"{path}: a list of images needs a column path or url, got {', '.join(names) or 'none'}")

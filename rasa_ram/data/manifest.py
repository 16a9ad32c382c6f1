"""Manifests: files of records, read and written by the ending of their name.

============  =================================================================================================
``.json``     the published list: ``image_path``, ``caption``, ``union_label_id``, ``parse_label_id``
``.jsonl``    the same rows, one a line
``.parquet``  the same as columns
============  =================================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rasa.errors import DependencyError, InputError
from rasa_ram.data import published_json
from rasa_ram.data.manifest_cache import Reader, open_table
from rasa_ram.data.manifest_faults import Fault, OnBad, ReadReport
from rasa_ram.data.manifest_rows import MAX_CAPTION_BYTES, RowCheck
from rasa_ram.data.manifest_table import RecordTable
from rasa_ram.data.records import Record

__all__ = ["SUFFIXES", "Fault", "ReadReport", "RecordTable", "open_records", "read_records", "write_records"]

SUFFIXES = (".json", ".jsonl", ".parquet")


def read_records(
    path: str | os.PathLike[str],
    *,
    on_bad: OnBad = "stop",
    vocabulary_size: int | None = None,
    max_caption_bytes: int = MAX_CAPTION_BYTES,
    report: ReadReport | None = None,
) -> Iterator[Record]:
    """Read the records of a manifest one by one, in bounded memory.

    Args:
        path: ``.json``, ``.jsonl`` or ``.parquet``.
        on_bad: ``"stop"`` at a record that breaks the format, or ``"skip"`` and count it. Of a record with other
            captions or tags, ``"skip"`` leaves out only the bad captions, each with its row of ids.
        vocabulary_size: T; ids must be below it. None checks them not.
        max_caption_bytes: Longest caption, in bytes of UTF-8.
        report: Counts what was read and what was skipped; one may serve several files.

    Raises:
        FormatError: At a bad record, unless they are skipped; the message names file, record and remedy.
        InputError: If the file cannot be read, its ending is another, or a setting is out of range.
    """
    path = Path(path)
    check = RowCheck(
        source=str(path), on_bad=on_bad, report=ReadReport() if report is None else report,
        vocabulary_size=vocabulary_size, max_caption_bytes=max_caption_bytes,
    )  # fmt: skip
    return _reader(path)(path, check)


def write_records(records: Iterable[Record], path: str | os.PathLike[str]) -> int:
    """Write a manifest, one record in memory at a time; the file appears whole or not at all.

    Returns:
        Number of records.

    Raises:
        InputError: If the ending is none of :data:`SUFFIXES`.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    suffix = _known_suffix(path)
    writers = {".json": published_json.write_published, ".jsonl": published_json.write_json_lines}
    write: Callable[[Iterable[Record], Path], int] = writers.get(suffix) or _parquet().write_parquet
    return write(records, path)


def open_records(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    repeats: Iterable[int] | None = None,
    on_bad: OnBad = "stop",
    vocabulary_size: int | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> RecordTable:
    """Open manifests for random access, as one table.

    At the first use each manifest is read once, checked, and kept in the cache in a form that is mapped into memory:
    a table takes almost none of its own, opens at once, and is cheap to send to worker processes, which share it.

    Args:
        paths: One manifest, or several, which follow each other.
        repeats: How often each manifest stands in the table, at least once; once each unless given.
        on_bad: ``"stop"`` at a record that breaks the format, or ``"skip"`` and count it; see ``RecordTable.skipped``.
        vocabulary_size: T; ids must be below it. None checks them not.
        cache: Folder; ``manifests`` in :func:`rasa.weights.cache_folder` unless given.

    Raises:
        FormatError: At a bad record, unless they are skipped.
        InputError: If a file cannot be read, there is none, or ``repeats`` do not match.
        OutputError: If the cache cannot be written.
    """
    one = isinstance(paths, str | os.PathLike)
    files = [Path(paths)] if one else [Path(path) for path in paths]  # type: ignore[arg-type,union-attr]
    times = [1] * len(files) if repeats is None else list(repeats)
    if not files or len(times) != len(files) or min(times) < 1:
        raise InputError(f"repeats must be a number of at least 1 for each of {len(files)} manifests, got {times}")
    check = RowCheck(source="", on_bad=on_bad, vocabulary_size=vocabulary_size)
    folder = None if cache is None else Path(cache)
    return RecordTable(
        [(open_table(file, _reader(file), check, folder), n) for file, n in zip(files, times, strict=True)]
    )


def _reader(path: Path) -> Reader:
    readers = {".json": published_json.read_published, ".jsonl": published_json.read_json_lines}
    suffix = _known_suffix(path)
    return readers.get(suffix) or _parquet().read_parquet


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} must end in one of {', '.join(SUFFIXES)} for its format to be known")
    return suffix


def _parquet() -> Any:
    try:
        return import_module("rasa_ram.data.manifest_parquet")
    except ImportError as error:
        raise DependencyError('Parquet manifests need the package "pyarrow"; install the extra "train"') from error

"""The cache of manifests: each read once, checked, and laid out for access by number.

A folder of the cache holds one manifest: ``rows.bin`` has the records, one JSON list after the other; ``row_ends.bin``
where each ends; ``tags.bin`` and ``tag_ends.bin`` the known tag ids of all records. ``index.json`` has the counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from rasa._files import write_atomically
from rasa.errors import InputError, OutputError
from rasa.weights import cache_folder
from rasa_ram.data.manifest_faults import ReadReport
from rasa_ram.data.manifest_rows import RowCheck
from rasa_ram.data.manifest_table import StoredRecords
from rasa_ram.data.records import Record

SCHEMA = "rasa-ram.records/2"

_FILES = ("rows.bin", "row_ends.bin", "tags.bin", "tag_ends.bin")
Reader = Callable[[Path, RowCheck], Iterator[Record]]


def open_table(path: Path, read: Reader, check: RowCheck, cache: Path | None) -> StoredRecords:
    """The stored form of a manifest; made now if the cache has none of the file as it is.

    Raises:
        FormatError: At a bad record, unless ``check`` skips them.
        InputError: If the manifest cannot be read.
        OutputError: If the cache cannot be written.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    known_by = {
        "schema": SCHEMA, "path": str(path.absolute()), "bytes": status.st_size, "changed_ns": status.st_mtime_ns,
        "on_bad": check.on_bad, "vocabulary_size": check.vocabulary_size, "max_caption_bytes": check.max_caption_bytes,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:16]
    folder = (cache or cache_folder() / "manifests") / f"{path.stem[:60]}-{digest}"
    if not _is_whole(folder):
        fresh = replace(check, source=str(path), report=ReadReport())
        _store(folder, read(path, fresh), fresh.report, known_by)
    return StoredRecords(folder)


def _is_whole(folder: Path) -> bool:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return bool(index["sizes"] == {name: (folder / name).stat().st_size for name in _FILES})
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _store(folder: Path, records: Iterator[Record], report: ReadReport, known_by: Mapping[str, Any]) -> None:
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    try:
        part.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            count = _write_rows([stack.enter_context((part / name).open("wb")) for name in _FILES], records)
        sizes = {name: (part / name).stat().st_size for name in _FILES}
        index = {**known_by, "records": count, "faults": dict(report.counts), "sizes": sizes}
        with write_atomically(part / "index.json", text=True) as file:
            json.dump(index, file, indent=1)
        _put(part, folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; choose a cache with room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if _is_whole(folder):
            return  # another process was faster with the same
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


def _write_rows(files: Sequence[IO[bytes]], records: Iterator[Record]) -> int:
    rows, row_ends, tags, tag_ends = files
    count = row_end = tag_end = 0
    for record in records:
        row = [record.image_path, record.captions, record.parsed_ids, record.tag_ids]
        data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
        known = record.known_ids
        count, row_end, tag_end = count + 1, row_end + len(data), tag_end + len(known)
        rows.write(data)
        row_ends.write(row_end.to_bytes(8, "little"))
        tags.write(np.array(known, "<i4").tobytes())
        tag_ends.write(tag_end.to_bytes(8, "little"))
    return count

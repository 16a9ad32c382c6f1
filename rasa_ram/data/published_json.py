"""The published annotation JSON, and JSON lines of the same rows: read and written as streams."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.errors import InputError
from rasa_ram.data.manifest_faults import RowError
from rasa_ram.data.manifest_rows import RowCheck, row_of
from rasa_ram.data.published_json_stream import MAX_ITEM_CHARACTERS, BrokenJsonError, JsonStream, byte_length
from rasa_ram.data.records import Record


def read_published(path: Path, check: RowCheck) -> Iterator[Record]:
    """The good records of a JSON list, in bounded memory.

    Where the JSON itself is broken and bad records are skipped, the broken one counts as bad and reading goes on at
    the next object; what lies between is lost.

    Raises:
        FormatError: At a bad record, unless they are skipped; broken JSON is named with its byte.
        InputError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _records(JsonStream(file), check)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _records(stream: JsonStream, check: RowCheck) -> Iterator[Record]:
    items: Iterator[Any] = _bare_list(stream)
    number = 0
    while True:
        try:
            for row in items:
                record = check.record(row, number)
                number += 1
                if record is not None:
                    yield record
        except BrokenJsonError as error:
            why = RowError("broken-file", f"{error}; {number} records were read before")
            check.fail(why, number, error)
            number += 1
            items = stream.after_broken()
        else:
            return


def _bare_list(stream: JsonStream) -> Iterator[Any]:
    for key, item in stream.items():
        if key:
            raise BrokenJsonError(
                f"expected a list of records, got an object with {key!r}; COCO's files have a reader of their own", 0
            )
        yield item


def read_json_lines(path: Path, check: RowCheck) -> Iterator[Record]:
    """The good records of a file with one row a line.

    Raises:
        FormatError: At a bad record, unless they are skipped.
        InputError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            offset = number = 0
            while line := file.readline(MAX_ITEM_CHARACTERS):
                end = offset + len(line)
                if offset == 0:
                    line = line.removeprefix(BOM_UTF8)
                if line.strip():
                    record = _line_record(line, end - len(line), number, check)
                    number += 1
                    if record is not None:
                        yield record
                offset = end
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _line_record(line: bytes, offset: int, number: int, check: RowCheck) -> Record | None:
    text = line.decode("utf-8", "surrogateescape")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = offset + byte_length(text[: getattr(error, "pos", 0)])
        why = getattr(error, "msg", error)  # the position in the line is left out
        check.fail(RowError("broken-file", f"broken JSON at byte {at}: {why}"), number, error)
        return None
    return check.record(row, number)


def write_published(records: Iterable[Record], path: Path) -> int:
    """Write a JSON list, one record a line; returns how many. The file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    count = 0
    with write_atomically(path, text=True, make_folder=True) as file:
        for record in records:
            file.write(("[\n" if count == 0 else ",\n") + line_of(record))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    return count


def write_json_lines(records: Iterable[Record], path: Path) -> int:
    """Write one row a line; returns how many. The file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    count = 0
    with write_atomically(path, text=True, make_folder=True) as file:
        for record in records:
            file.write(line_of(record) + "\n")
            count += 1
    return count


def line_of(record: Record) -> str:
    """A record as one line of JSON with the published keys."""
    return json.dumps(row_of(record), ensure_ascii=False, separators=(",", ":"))

"""Results as JSON Lines: one result per line, masks as COCO RLE."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasa.errors import FormatError, InputError, OutputError
from rasa.types import Result

MAX_LINE_BYTES = 256 * 2**20
"""Longest line that is read: the guard against a file without line ends."""


def write_results(path: str | os.PathLike[str], results: Iterable[Result]) -> int:
    """Write results as they come; the file appears under its name only once it is whole.

    If ``results`` fails midway, what it gave before is kept in the file and the error goes on.

    Args:
        path: File to write, replaced if it is there.
        results: May be a stream.

    Returns:
        Number of results written.

    Raises:
        OutputError: If the file cannot be written; then a file that was there before is untouched.
    """
    target, count = Path(path), 0
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            try:
                for result in results:
                    file.write(result.to_json() + "\n")
                    count += 1
            finally:
                file.flush()
                if count:
                    part.replace(target)
        if not count:
            part.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}; choose a writable folder with room") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def read_results(path: str | os.PathLike[str]) -> Iterator[Result]:
    """Read results one by one, in bounded memory.

    Raises:
        FormatError: If a line is no result; it names the file and the line.
        InputError: If the file cannot be read.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed below; only opening may fail here)
    except OSError as error:
        raise InputError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.strip():
                continue
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(f"{os.fspath(path)}, line {number}: longer than {MAX_LINE_BYTES} bytes")
            try:
                yield Result.from_json(line)
            except FormatError as error:
                raise FormatError(f"{os.fspath(path)}, line {number}: {error}") from error

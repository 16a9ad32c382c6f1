"""Results as JSON Lines: one result per line, masks as COCO RLE."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasa._files import write_atomically
from rasa.errors import FormatError, InputError
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
    count, failures = 0, list[BaseException]()
    with write_atomically(path, text=True) as file:
        for line in _lines_before_a_failure(results, failures):
            file.write(line)
            count += 1
        if failures and not count:
            raise failures[0]
    if failures:
        raise failures[0]
    return count


def _lines_before_a_failure(results: Iterable[Result], failures: list[BaseException]) -> Iterator[str]:
    try:
        for result in results:
            yield result.to_json() + "\n"
    except BaseException as error:  # noqa: BLE001  (raised again where the file is whole, an interrupt too)
        failures.append(error)


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

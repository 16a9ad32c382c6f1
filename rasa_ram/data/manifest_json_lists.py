"""Lists in the JSON files of others, as streams of items with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rasa.errors import InputError
from rasa_ram.data.manifest_faults import RowError
from rasa_ram.data.manifest_rows import RowCheck
from rasa_ram.data.published_json_stream import BrokenJsonError, JsonStream


def read_lists(path: Path, check: RowCheck) -> Iterator[tuple[str, int, Any]]:
    """Key of the list (empty if the file is one), number in it, and item, for all lists of a file.

    Where the JSON is broken and bad entries are skipped, the place is counted and the rest of the file is not read.

    Raises:
        FormatError: Where the JSON is broken, unless that is skipped.
        InputError: If the file cannot be read.
    """
    last, number = "", -1
    try:
        with path.open("rb") as file:
            for key, item in JsonStream(file).items():
                last, number = key, number + 1 if key == last else 0
                yield key, number, item
    except BrokenJsonError as error:
        why = f"{error}; {number + 1} entries of {last!r} were read before" if last else f"{error}"
        check.fail(RowError("broken-file", why), number + 1, error)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error

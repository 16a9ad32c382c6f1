"""Class ids are positions in the list of classes; formats without a place for the list have it in a file beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rasa.errors import FormatError, InputError
from rasa.formats.samples import Sample

_FILE = "classes.json"
_MAX_BYTES = 64 * 2**20


def class_ids(classes: Sequence[str]) -> dict[str, int]:
    """Position of each class.

    Raises:
        InputError: If a name stands twice or is no text.
    """
    ids = {name: position for position, name in enumerate(classes)}
    if isinstance(classes, str) or len(ids) != len(classes) or not all(isinstance(name, str) and name for name in ids):
        raise InputError(f"classes must be distinct names, got {list(classes)[:20]!r}")
    return ids


def id_of(name: str, ids: Mapping[str, int], sample: Sample) -> int:
    """Id of the class ``name``, which ``sample`` has.

    Raises:
        InputError: If it is not among the classes.
    """
    if name not in ids:
        raise InputError(f"{sample.result.name!r} has {name!r}, which is not among the {len(ids)} classes; add it")
    return ids[name]


def write_class_names(folder: Path, classes: Sequence[str]) -> None:
    """Write ``classes.json``: a list of names."""
    text = json.dumps(list(classes), ensure_ascii=False, indent=0) + "\n"
    (folder / _FILE).write_text(text, encoding="utf-8", newline="\n")


def read_class_names(folder: Path) -> tuple[str, ...]:
    """Read ``classes.json``.

    Raises:
        FormatError: If it is no list of distinct names.
        InputError: If it cannot be read.
    """
    path = Path(folder) / _FILE
    try:
        with path.open("rb") as file:
            names = json.loads(file.read(_MAX_BYTES))
        return tuple(class_ids(names if isinstance(names, list) else []))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is no list of classes: {error}") from error

"""``images.jsonl``: what a folder of maps cannot say about its images, one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, InputError
from rasa.formats._coco_objects import broken_as_format_error, tags_of
from rasa.formats._coco_writer import tags_entry
from rasa.formats._folder import image_reader, inside, plain_name
from rasa.formats._objects import ReadObject, checked_size, instances_of
from rasa.formats.samples import Sample
from rasa.types import Result

FILE = "images.jsonl"
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read: the guard against a file without line ends."""


def index_line(sample: Sample, map_name: str, **more: Any) -> bytes:
    """The line of one image: where it is, its split, size and tags, and what else is given."""
    height, width = sample.result.size
    entry = {"file_name": sample.file_name, "map": map_name, "split": sample.split, "height": height, "width": width}
    entry |= {"sha256": sample.id, "tags": tags_entry(sample.result.tags)} | more
    return json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def index_entries(folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of the index, each with its place for errors.

    Raises:
        FormatError: If a line is no object, or too long.
        InputError: If there is no such file.
    """
    path = folder / FILE
    try:
        file = path.open("rb")  # closed below; only opening may fail here
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(f"{where}: longer than {MAX_LINE_BYTES} bytes")
            with broken_as_format_error(where):
                entry = json.loads(line)
            if not isinstance(entry, dict):
                raise FormatError(f"{where}: no JSON object")
            yield entry, where


def entry_size(entry: dict[str, Any], where: str) -> tuple[int, int]:
    """``(height, width)`` of the image.

    Raises:
        FormatError: If it is none.
    """
    return checked_size(entry.get("height"), entry.get("width"), where=where)


def sample_of(folder: Path, entry: dict[str, Any], objects: list[ReadObject], *, where: str) -> Sample:
    """The image of a line with its objects.

    Raises:
        FormatError: If a field is missing or malformed.
    """
    size = entry_size(entry, where)
    with broken_as_format_error(where):
        name, identity = entry["file_name"], entry.get("sha256", "")
        path = inside(folder / "images", name, where=where)
        result = Result(name, size, tags_of(entry.get("tags", [])), instances_of(objects, size))
        return Sample(str(identity), plain_name(name), result, entry["split"], image_reader(path))

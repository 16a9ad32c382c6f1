"""Where COCO files and their images lie in a folder, and what an annotation file holds, checked."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, InputError
from rasa.formats._folder import inside
from rasa.formats.samples import SPLITS, Split
from rasa.io.images import to_image

MAX_JSON_BYTES = 2**32
"""Largest annotation file that is read, in bytes; read as objects it takes some six times as much memory."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One entry of ``images``.

    Attributes:
        id: As annotations name it.
        file_name: Path of the file, relative to the folder of the images.
        size: Height and width as stated, not yet checked; None if they are not there.
        sha256: Of the file, "" if it is not stated.
        tags: Our own entry, not yet checked.
    """

    id: Hashable
    file_name: str
    size: tuple[object, object] | None
    sha256: str
    tags: object


@dataclass(frozen=True, slots=True)
class Document:
    """One annotation file.

    Attributes:
        images: In the order of the file.
        annotations: Entries by the id of their image.
        categories: Names by id.
    """

    images: Sequence[ListedImage]
    annotations: dict[Hashable, list[Mapping[str, Any]]]
    categories: Mapping[Hashable, str]


def coco_files(folder: Path, *, prefix: str = "instances") -> list[tuple[Path, Split]]:
    """The annotation files of a data set, each with its split.

    Args:
        folder: Of the data set; or one annotation file, whose split is told by its name or that of its folder.
        prefix: Of the files under ``annotations/`` that are preferred.

    Raises:
        InputError: If there is none.
    """
    if folder.is_file():
        return [(folder, _split_of(folder))]
    for pattern in (f"annotations/{prefix}_*.json", "annotations/*.json", "*/_annotations.coco.json", "*.json"):
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            order = sorted(found, key=lambda path: SPLITS.index(_split_of(path)))
            return [(path, _split_of(path)) for path in order]
    raise InputError(f"{folder} has no COCO file such as annotations/{prefix}_train.json; pass the folder or the file")


def image_path(annotations: Path, file_name: str) -> Path:
    """Where the image that a file names lies; where it would, if it does not.

    Raises:
        FormatError: If the name leads out of the data set.
    """
    folder = annotations.parent
    root = folder.parent if folder.name == "annotations" else folder
    inner = annotations.stem.rpartition("_")[2]  # such as train2017
    folders = [root / "images", root, root / inner, root / "images" / inner]
    paths = [inside(place, file_name, where=annotations.name) for place in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def stated_size(image: Path, where: str) -> tuple[int, int]:
    """``(height, width)`` of an image whose entry states none.

    Raises:
        FormatError: If it is not there.
        ImageError: If it cannot be read.
    """
    if not image.is_file():
        raise FormatError(f"{where}: no height and width, and no file {image}")
    return to_image(image).size


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FormatError: If it is no JSON, or too large.
        InputError: If it cannot be read.
    """
    try:
        large = path.stat().st_size > MAX_JSON_BYTES
        data = None if large else json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no valid JSON: {error}") from error
    if large:
        raise FormatError(f"{path} has more than {MAX_JSON_BYTES} bytes; split it")
    return data


def read_document(path: Path) -> Document:
    """Read an annotation file, and check how its parts name one another.

    Raises:
        FormatError: If a list or a key is missing, an id stands twice, or one that is named is not there.
        InputError: If the file cannot be read.
    """
    data = read_json(path)
    categories = {
        _key(entry, "id", path=path, what="category"): category_name(entry, path)
        for entry in entries(data, "categories", path)
    }
    images = [_listed(entry, path) for entry in entries(data, "images", path)]
    annotations: dict[Hashable, list[Mapping[str, Any]]] = {image.id: [] for image in images}
    if len(annotations) != len(images):
        raise FormatError(f"{path}: an id of images stands twice")
    for entry in entries(data, "annotations", path):
        image = _key(entry, "image_id", path=path, what="annotation")
        if image not in annotations:
            raise FormatError(f"{path}, annotation {entry.get('id')!r}: there is no image {image!r}")
        annotations[image].append(entry)
    return Document(images, annotations, categories)


def entries(data: object, name: str, path: Path) -> list[dict[str, Any]]:
    """The list of objects called ``name``.

    Raises:
        FormatError: If there is none.
    """
    found = data.get(name) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise FormatError(f"{path}: {name!r} is no list of objects, as COCO has it")
    return found


def category_name(entry: Mapping[str, Any], path: Path) -> str:
    """Name of a category.

    Raises:
        FormatError: If it is no text.
    """
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise FormatError(f"{path}, category {entry.get('id')!r}: the name is {name!r}, expected a text")
    return name


def _listed(entry: Mapping[str, Any], path: Path) -> ListedImage:
    name, digest = entry.get("file_name"), entry.get("sha256", "")
    key = _key(entry, "id", path=path, what="image")
    if not isinstance(name, str) or not name or not isinstance(digest, str):
        raise FormatError(f"{path}, image {key!r}: file_name is {name!r}, expected the name of a file")
    size = (entry["height"], entry["width"]) if {"height", "width"} <= entry.keys() else None
    return ListedImage(key, name, size, digest, entry.get("tags", []))


def _key(entry: Mapping[str, Any], name: str, *, path: Path, what: str) -> Hashable:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormatError(f"{path}: {what} with {name} {value!r}, expected a number or text")
    return value


def _split_of(path: Path) -> Split:
    # The folder's name counts where the file's says nothing: train/_annotations.coco.json.
    for text in (path.stem.lower(), path.parent.name.lower()):
        for split in SPLITS:
            if split in text:
                return split
    return "train"

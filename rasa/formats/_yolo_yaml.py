"""``data.yaml`` of a YOLO dataset: where the images of each split are, and what the class ids mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rasa.errors import DependencyError, FormatError
from rasa.formats._folder import read_bounded
from rasa.formats.samples import SPLITS

MAX_YAML_BYTES = 16 * 2**20
"""Largest file that is read; 100,000 class names take about 4 MB."""


def write_data_yaml(folder: Path, classes: Sequence[str]) -> None:
    """Write ``folder/data.yaml``; without ``path``, so that the folder can be moved."""
    has_val = (folder / "images" / "val").is_dir()
    lines = ["train: images/train"]
    # Ultralytics refuses a dataset without this key.
    lines.append("val: images/val" if has_val else "val: images/train  # there is no val split")
    if (folder / "images" / "test").is_dir():
        lines.append("test: images/test")
    lines.append(f"nc: {len(classes)}")
    lines.append("names:" if classes else "names: {}")
    lines += [f"  {number}: {_quoted(name)}" for number, name in enumerate(classes)]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def read_data_yaml(path: Path) -> tuple[dict[str, list[str]], dict[int, str]]:
    """Folders of images by split, relative to the dataset, and class names by id.

    Raises:
        FormatError: If it is no such file.
        DependencyError: If PyYAML is not installed.
        ImageError: If it cannot be read or is too large.
    """
    try:
        import yaml  # noqa: PLC0415  (only reading needs it)
    except ImportError as error:
        raise DependencyError('reading YOLO datasets needs "PyYAML"; install the extra "label"') from error
    try:
        # Aliases share what they name, so that a file cannot grow by them.
        data = yaml.safe_load(read_bounded(path, limit=MAX_YAML_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no YAML: {error}") from error
    if not isinstance(data, Mapping):
        raise FormatError(f"{path}: expected train, val and names, got {type(data).__name__}")
    return _splits(data, path), _names(data.get("names"), path)


def _splits(data: Mapping[Any, Any], path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        given = data.get(split) or []
        folders = [given] if isinstance(given, str) else given
        if not isinstance(folders, list) or not all(isinstance(name, str) for name in folders):
            raise FormatError(f"{path}: {split} must be a folder of images, or several")
        # Exports of Roboflow begin with ../ and mean the folder of data.yaml.
        found[split] = [name.removeprefix("../").removeprefix("./").rstrip("/") for name in folders]
    return found


def _names(given: Any, path: Path) -> dict[int, str]:
    given = [] if given is None else given
    pairs = list(given.items() if isinstance(given, Mapping) else enumerate(given if isinstance(given, list) else "?"))
    # Unquoted names such as no and 12 are no text in YAML; text of nested lists could be without bound.
    names = {number: str(name) for number, name in pairs if isinstance(number, int) and isinstance(name, str | int)}
    if len(names) != len(pairs) or not isinstance(given, Mapping | list) or not all(map(str.strip, names.values())):
        raise FormatError(f"{path}: names must be a list of class names, or class names by their id")
    return names


def _quoted(name: str) -> str:
    """A double-quoted scalar: printable text as it is, the rest escaped (YAML 1.2, section 5.7)."""
    return '"' + "".join(_escape(character) for character in name) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

"""COCO-80 and COCO-133: the images and categories of an instances or panoptic JSON file, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson

from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark, TruthBuilder
from rasa_ram.evaluation.benchmarks.class_words import words_of


def read_coco(annotations: Path, *, name: str, notes: tuple[str, ...] = ()) -> Benchmark:
    """Read a benchmark from ``instances_val2017.json``, ``panoptic_val2017.json`` or a file like them.

    An image shows a category if any annotation of it, crowds included, has that category. Classes stand in the order
    of the category ids.

    Args:
        annotations: The JSON file; read as a stream, three times.
        name: What to call the benchmark.
        notes: Of the benchmark.

    Raises:
        FormatError: If the file is no such JSON, or names an image or category that it has not.
        InputError: If the file cannot be read.
    """
    categories = sorted((_integer(c, "id", p), _text(c, "name", p)) for p, c in _items(annotations, "categories"))
    columns = {number: column for column, (number, _) in enumerate(categories)}
    if len(columns) != len(categories):
        raise FormatError(f"{annotations}: two categories have the same id")
    builder, rows = TruthBuilder(annotations, len(columns)), {}
    for place, image in _items(annotations, "images"):
        number = _integer(image, "id", place)
        if number in rows:
            raise FormatError(f"{place}: two images have the id {number}")
        rows[number] = builder.add_image(_text(image, "file_name", place), place)
    for place, annotation in _items(annotations, "annotations"):
        row = _known(rows, _integer(annotation, "image_id", place), "image", place)
        for category in _categories(annotation, place):
            builder.add(row, _known(columns, category, "category", place))
    images, truth = builder.build()
    classes = tuple(name for _, name in categories)
    return Benchmark(name, images, classes, truth, words=words_of("coco", classes), notes=notes)


def _categories(annotation: Mapping[str, Any], place: str) -> Iterator[int]:
    segments = annotation.get("segments_info")
    if segments is None:
        yield _integer(annotation, "category_id", place)
        return
    if not isinstance(segments, list):
        raise FormatError(f"{place}: segments_info must be a list")
    for segment in segments:
        yield _integer(segment, "category_id", place)


def _items(path: Path, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and value of each item of the list under ``key``."""
    number = -1
    try:
        with path.open("rb") as file:
            for number, item in enumerate(ijson.items(file, f"{key}.item")):
                yield f"{path}, {key}[{number}]", item
    except ijson.JSONError as error:
        raise FormatError(f"{path} is no JSON, after {key}[{number}]: {str(error)[:200]}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no JSON in UTF-8, after {key}[{number}]") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if number < 0 and key != "annotations":
        raise FormatError(f'{path} has no "{key}"; give an instances or panoptic file of COCO')


def _integer(item: Any, key: str, place: str) -> int:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f'{place}: "{key}" must be a whole number, got {str(value)[:80]!r}')
    return value


def _text(item: Any, key: str, place: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise FormatError(f'{place}: "{key}" must be a text, got {str(value)[:80]!r}')
    return value.strip()


def _known(table: Mapping[int, int], number: int, what: str, place: str) -> int:
    if number not in table:
        raise FormatError(f"{place}: {what} {number} is not in the file's list")
    return table[number]

"""Scores and truth of a small labelled set as tables, for :mod:`rasa.ops.thresholds` to choose from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rasa.arrays import BoolArray, FloatArray
from rasa.errors import FormatError, InputError
from rasa.types import Tags

# The first of these columns that a table has says which image a row is about.
_IMAGE_COLUMNS = ("id", "path", "file_name")


def read_tag_rows(path: Path) -> Iterator[tuple[str, str, float]]:
    """Rows of a CSV file: image, tag, score.

    The header names the image's column, ``id``, ``path`` or ``file_name`` (the first of these that is there), ``tag``,
    and maybe ``score``, which is 1 where it is absent. An empty tag says that the image has none. Other columns
    are not looked at, so that a file of the format ``tags-csv`` fits.

    Raises:
        FormatError: If a column is missing or a row malformed; the message names the line.
        InputError: If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or ()
            key = next((name for name in _IMAGE_COLUMNS if name in names), None)
            if key is None or "tag" not in names:
                expected = f'"tag" and one of {", ".join(_IMAGE_COLUMNS)}'
                raise FormatError(f"{path}, line 1: expected the columns {expected}, got {', '.join(names) or 'none'}")
            for row in reader:
                yield _parsed(row, key, f"{path}, line {reader.line_num}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def read_truth(path: Path) -> dict[str, frozenset[str]]:
    """Image to the tags that it has, from a CSV file as :func:`read_tag_rows` reads it; a score of 0 is no tag.

    Raises:
        FormatError, InputError: As :func:`read_tag_rows`; also if there is no image.
    """
    found: dict[str, set[str]] = {}
    for image, tag, score in read_tag_rows(path):
        found.setdefault(image, set()).update({tag} if tag and score > 0 else ())
    if not found:
        raise FormatError(f"{path} has no images; give one row for each tag of each image")
    return {image: frozenset(tags) for image, tags in found.items()}


def read_scores(path: Path) -> Iterator[tuple[tuple[str, ...], Tags]]:
    """Image and its tags with scores, from a CSV file as :func:`read_tag_rows` reads it.

    Raises:
        FormatError, InputError: As :func:`read_tag_rows`; also if a tag stands twice or a score is outside [0, 1].
    """
    found: dict[str, dict[str, float]] = {}
    for image, tag, score in read_tag_rows(path):
        tags = found.setdefault(image, {})
        if tag in tags:
            raise FormatError(f"{path}: {image!r} has the tag {tag!r} twice")
        if tag:
            tags[tag] = score
    for image, tags in found.items():
        try:
            yield (image,), Tags(tuple(tags), np.array(list(tags.values()), np.float32))
        except InputError as error:
            raise FormatError(f"{path}: {image!r}: {error}") from error


def score_table(
    images: Iterable[tuple[Sequence[str], Tags]], truth: Mapping[str, frozenset[str]], tags: Sequence[str]
) -> tuple[FloatArray, BoolArray]:
    """Scores and truth of the labelled images, as :func:`tune_thresholds` takes them.

    Args:
        images: The names that ``truth`` may call each image by, such as its id and its path, and its tags.
        truth: Image to its tags; tags that are not among ``tags`` are left out.
        tags: T distinct tags.

    Returns:
        float32 ``(N, T)`` and bool ``(N, T)``; N is the number of images of ``truth``.

    Raises:
        InputError: If an image of ``truth`` is not among ``images``, or a name of it fits two.
    """
    rows = {image: row for row, image in enumerate(truth)}
    columns = {tag: column for column, tag in enumerate(tags)}
    scores, there = np.zeros((len(rows), len(columns)), np.float32), np.zeros((len(rows), len(columns)), np.bool_)
    for image, names in truth.items():
        there[rows[image], [columns[name] for name in names if name in columns]] = True
    seen: set[str] = set()
    for keys, found in images:
        for image in set(keys) & truth.keys():
            if image in seen:
                raise InputError(f"{image!r} is the name of two images; name the images by id or path")
            seen.add(image)
            places = [i for i, name in enumerate(found.names) if name in columns]
            scores[rows[image], [columns[found.names[i]] for i in places]] = found.scores[places]
    if missing := [image for image in truth if image not in seen]:
        raise InputError(f"{len(missing)} of {len(truth)} labelled images have no scores, such as {missing[0]!r}")
    return scores, there


def _parsed(row: Mapping[str | None, str | None], key: str, where: str) -> tuple[str, str, float]:
    image, tag, text = row[key], row["tag"], row.get("score")
    if not image or tag is None:
        raise FormatError(f"{where}: expected a value for {key!r} and 'tag'")
    try:
        score = float(text) if text else 1.0
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise FormatError(f"{where}: a score must be a number in [0, 1], got {(text or '')[:40]!r}")
    return image, tag.strip(), score

"""Entries of ``annotations`` and ``tags`` in COCO files of untrusted origin."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from rasa.arrays import BoolArray
from rasa.errors import FormatError, RasaError
from rasa.formats._objects import Box, ReadObject
from rasa.ops.polygons import fill_rings
from rasa.ops.rle import rle_to_mask
from rasa.types import Tags


@contextmanager
def broken_as_format_error(where: str) -> Iterator[None]:
    """Turn whatever broken data leads to into a FormatError that names the place."""
    try:
        yield
    except (RasaError, TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        what = str(error) if isinstance(error, RasaError) else f"{type(error).__name__}: {error}"
        raise FormatError(f"{where}: {what}") from error


def object_of(
    entry: Mapping[str, Any], categories: Mapping[Hashable, str], size: tuple[int, int], *, where: str
) -> ReadObject:
    """One annotation.

    Args:
        entry: Of ``annotations``.
        categories: Names by id.
        size: ``(height, width)`` of the image.
        where: File and annotation, for errors.

    Raises:
        FormatError: If its category is not there or a number is none. Masks are checked when they are painted.
    """
    category = entry.get("category_id")
    if not isinstance(category, int | str) or category not in categories:
        raise FormatError(f"{where}: there is no category {category!r}")
    with broken_as_format_error(where):
        mask_score = entry.get("mask_score")
        return ReadObject(
            label=categories[category],
            box=_box(entry.get("bbox")),
            paint=_painter(entry.get("segmentation"), size, where),
            score=float(entry.get("score", 1.0)),
            mask_score=None if mask_score is None else float(mask_score),
        )


def tags_of(entry: object) -> Tags:
    """Tags of an image, as :mod:`rasa.formats.coco` writes them.

    Raises:
        FormatError, KeyError, TypeError, ValueError: If they are none.
    """
    if not isinstance(entry, list) or not all(isinstance(tag, dict) for tag in entry):
        raise FormatError("tags are no list of objects with name and score")
    kinds = tuple(tag.get("kind", "") for tag in entry)
    scores = np.array([tag.get("score", 1.0) for tag in entry], np.float32)
    return Tags(tuple(tag["name"] for tag in entry), scores, None, kinds if any(kinds) else None)


def _box(bbox: object) -> Box | None:
    if bbox is None or bbox == []:
        return None
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise FormatError(f"bbox is {bbox!r}, expected [x, y, width, height] in pixels")
    x, y, width, height = (float(number) for number in bbox)
    if not (np.isfinite([x, y, width, height]).all() and min(width, height) >= 0):
        raise FormatError(f"bbox is {bbox!r}, expected finite numbers, and a width and height of at least 0")
    return x, y, x + width, y + height


def _painter(segmentation: object, size: tuple[int, int], where: str) -> Any:
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if stated != list(size):
            raise FormatError(f"the mask has size {stated!r}, the image {list(size)}")
        return partial(_paint_rle, segmentation, where)
    if not isinstance(segmentation, list):
        raise FormatError(f"segmentation is {type(segmentation).__name__}, expected run lengths or polygons")
    return partial(_paint_polygons, segmentation, where)


def _paint_rle(rle: Mapping[str, Any], where: str, mask: BoolArray) -> None:
    with broken_as_format_error(where):
        mask[:] = rle_to_mask(rle)


def _paint_polygons(polygons: list[Any], where: str, mask: BoolArray) -> None:
    with broken_as_format_error(where):
        for polygon in polygons:
            numbers = np.asarray(polygon, np.float64)
            if numbers.ndim != 1 or len(numbers) % 2:
                raise FormatError(f"a polygon has shape {numbers.shape}, expected [x, y, x, y, ...]")
            mask |= fill_rings([numbers.reshape(-1, 2)], (mask.shape[0], mask.shape[1]))

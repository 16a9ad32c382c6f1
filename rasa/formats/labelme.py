"""LabelMe: one JSON file beside each image, with masks as PNG or as polygons, and tags as flags of the image.

The files lie in ``SPLIT``, which LabelMe opens as a folder. Scores are further keys of a shape, which LabelMe keeps
when somebody edits it (``score`` is the name that X-AnyLabeling gives it). A shape is one of mask, polygon or
rectangle, so that an object with a mask has no box of its own.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image

from rasa.arrays import BoolArray
from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._folder import (
    image_reader,
    inside,
    new_folder,
    plain_name,
    read_bounded,
    samples_to_write,
    save_image,
)
from rasa.formats._objects import Box, ReadObject, checked_size, instances_of, lose_boxes_of_masks, lose_tags
from rasa.formats._rings import join_rings, paint_rings
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.io._decode import MAX_PIXELS, decode_image
from rasa.ops.masks import masks_to_boxes
from rasa.ops.polygons import mask_to_polygons
from rasa.types import Instances, Result, Tags

MAX_JSON_BYTES = 2**30
"""Largest file that is read."""

# The first version that draws shapes of the type mask is 5.3.
_VERSION = "5.3.1"


def write_labelme(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], masks: Literal["mask", "polygon"] = "mask"
) -> WriteReport:
    """Write ``SPLIT/NAME.json`` and the image beside it.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Labels of objects.
        masks: ``"mask"`` keeps every pixel, in one shape an object. ``"polygon"`` gives a shape for each part, which
            ``group_id`` holds together; holes are joined to the outline by bridges without width.

    Returns:
        What was lost: kinds of tags, boxes beside masks, and masks without a pixel, whose objects are rectangles.

    Raises:
        InputError: If a label is not among ``classes``, or two images differ in suffix only.
        OutputError: If the folder is not empty or cannot be written.

    Source:
        LabelMe 5.3, ``labelme/label_file.py``.
    """
    if masks not in {"mask", "polygon"}:
        raise InputError(f'masks must be "mask" or "polygon", got {masks!r}')
    report, known = WriteReport(), class_ids(classes)
    with new_folder(folder) as part:
        for sample in samples_to_write(samples, report):
            for label in sample.result.instances.labels:
                id_of(label, known, sample)
            lose_tags(sample.result.tags, report, keeps=("names", "scores"))
            lose_boxes_of_masks(sample.result.instances, report)
            save_image(part, sample, report=report, under=sample.split)
            path = part / sample.split / f"{Path(sample.file_name).stem}.json"
            path.parent.mkdir(exist_ok=True)
            text = json.dumps(_document(sample, masks, report), ensure_ascii=False, indent=1, allow_nan=False)
            try:
                with path.open("x", encoding="utf-8", newline="\n") as file:
                    file.write(text + "\n")
            except FileExistsError as error:
                raise InputError(f"two images share the file {path.name}; {sample.file_name!r} is one") from error
    return report


def read_labelme(folder: Path) -> Iterator[Sample]:
    """Read the JSON files of ``folder`` and its subfolders of splits, by name.

    Polygons and masks with the same label and ``group_id`` are parts of one object. Shapes of other types than mask,
    polygon and rectangle are refused.

    Raises:
        FormatError: If a file is malformed or cannot be read; the message names it.
    """
    folder = Path(folder)
    places: list[tuple[Path, Split]] = [(folder, "train"), *((folder / split, split) for split in SPLITS)]
    for place, split in places:
        for path in sorted(place.glob("*.json")):
            try:
                yield _sample(path, json.loads(read_bounded(path, limit=MAX_JSON_BYTES)), split)
            except FormatError as error:
                raise FormatError(f"{path}: {error}") from error
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                raise FormatError(f"{path} is no file of LabelMe: {type(error).__name__}: {error}") from error


def _document(sample: Sample, masks: str, report: WriteReport) -> dict[str, Any]:
    result = sample.result
    shapes = [shape for i in range(len(result.instances)) for shape in _shapes(result.instances, i, masks)]
    report.objects += len(result.instances)
    return {
        "version": _VERSION,
        "flags": dict.fromkeys(result.tags.names, True),
        "shapes": shapes,
        "imagePath": sample.file_name,
        "imageData": None,
        "imageHeight": result.size[0],
        "imageWidth": result.size[1],
        "tag_scores": dict(zip(result.tags.names, map(float, result.tags.scores), strict=True)),
    }


def _shapes(found: Instances, i: int, masks: str) -> Iterator[dict[str, Any]]:
    common: dict[str, Any] = {"label": found.labels[i], "group_id": None, "description": "", "flags": {}}
    scores = {"score": float(found.scores[i])}
    if found.mask_scores is not None:
        scores["mask_score"] = float(found.mask_scores[i])
    if found.masks is None or not found.masks[i].any():
        corners = found.boxes[i].astype(float).reshape(2, 2).tolist()
        yield {**common, "points": corners, "shape_type": "rectangle", "mask": None, **scores}
        return
    if masks == "mask":
        x1, y1, x2, y2 = (int(side) for side in masks_to_boxes(found.masks[i : i + 1])[0])
        # The corners are the first and the last pixel.
        place = [[x1, y1], [x2 - 1, y2 - 1]]
        png = _to_png(found.masks[i, y1:y2, x1:x2])
        yield {**common, "points": place, "shape_type": "mask", "mask": png, **scores}
        return
    parts = mask_to_polygons(found.masks[i])
    group = i if len(parts) > 1 else None
    for part in parts:
        ring = join_rings([part.outer, *part.holes])
        shape = {**common, "points": ring.tolist(), "shape_type": "polygon", "mask": None, **scores}
        yield {**shape, "group_id": group}


def _to_png(crop: BoolArray) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(crop).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _sample(path: Path, data: Mapping[str, Any], split: Split) -> Sample:
    size = checked_size(data["imageHeight"], data["imageWidth"], where="imageHeight and imageWidth")
    scores = data.get("tag_scores") or {}
    names = tuple(name for name, holds in (data.get("flags") or {}).items() if holds)
    tags = Tags(names, np.array([float(scores.get(name, 1)) for name in names], np.float32))
    found = instances_of(list(_objects(data["shapes"], size)), size)
    image = inside(path.parent, data["imagePath"], where="imagePath")
    name = plain_name(data["imagePath"])
    return Sample("", name, Result(name, size, tags, found), split, image_reader(image))


def _objects(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[ReadObject]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        kind, group = shape.get("shape_type") or "polygon", shape.get("group_id")
        if kind not in {"mask", "polygon", "rectangle"}:
            raise FormatError(f"shape {number} is a {str(kind)[:40]!r}; expected mask, polygon or rectangle")
        joined = group is not None and kind != "rectangle"
        groups.setdefault((kind, group if joined else f"#{number}", shape["label"]), []).append(shape)
    for (kind, _, label), members in groups.items():
        score, mask_score = float(members[0].get("score") or 0), members[0].get("mask_score")
        if members[0].get("score") is None:
            score = 1.0
        box, paint = None, None
        if kind == "rectangle":
            box = _box(members[0]["points"])
        elif kind == "polygon":
            paint = partial(_paint_polygons, [_points(shape["points"]) for shape in members])
        else:
            paint = partial(_paint_masks, members, size)
        yield ReadObject(label, box, paint, score, None if mask_score is None else float(mask_score))


def _points(given: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in given]


def _box(given: Any) -> Box:
    # Somebody may have drawn it from any corner.
    (ax, ay), (bx, by) = _points(given)
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _paint_polygons(parts: Sequence[Sequence[tuple[float, float]]], mask: BoolArray) -> None:
    for part in parts:
        paint_rings([part], mask)


def _paint_masks(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int], mask: BoolArray) -> None:
    for shape in shapes:
        crop = _from_png(shape["mask"])
        (left, top), _ = _points(shape["points"])
        x, y = round(left), round(top)
        if min(x, y) < 0 or y + crop.shape[0] > size[0] or x + crop.shape[1] > size[1]:
            raise FormatError(f"a mask of {crop.shape} pixels at {x, y} is not inside the image of {size}")
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] |= crop


def _from_png(text: Any) -> BoolArray:
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error) as error:
        raise FormatError(f"a mask is no base64 of a PNG: {error}") from error
    image = decode_image(io.BytesIO(data), name="mask of a shape", max_pixels=MAX_PIXELS)
    if image.mode not in {"1", "L", "P", "I"}:
        raise FormatError(f"a mask has the mode {image.mode}, expected one channel")
    crop: BoolArray = np.asarray(image) != 0
    return crop

"""CVAT for images 1.1: one ``annotations.xml`` with boxes, run-length masks and tags of all images.

Scores are attributes of their shapes, and the table of labels declares them. CVAT has one shape for an object, so that
an object with a mask has no box of its own. The image files lie in ``images/SPLIT``; ``subset`` names the split.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO
from xml.etree.ElementTree import Element  # the tree only, see _xml.py

import numpy as np

from rasa.arrays import BoolArray, IntArray
from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._folder import image_reader, inside, new_folder, plain_name, samples_to_write, save_image
from rasa.formats._objects import ReadObject, checked_size, instances_of, lose_boxes_of_masks
from rasa.formats._rings import paint_rings
from rasa.formats._xml import attributes, children_of_root, escaped
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.ops.masks import masks_to_boxes
from rasa.types import Instances, Result, Tags

_FILE = "annotations.xml"
_ATTRIBUTES = ("score", "mask_score", "kind")


def write_cvat(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write ``folder/annotations.xml`` and the image files.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Labels of objects; the tags that come are added to the table of labels.

    Returns:
        What was lost: boxes beside masks, and masks without a pixel, whose objects are written as boxes.

    Raises:
        InputError: If a label is not among ``classes``, or XML cannot hold a name.
        OutputError: If the folder is not empty or cannot be written.

    Source:
        CVAT 2.5 and later, "CVAT for images 1.1", https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/
    """
    report, known = WriteReport(), class_ids(classes)
    labels, splits = dict.fromkeys(known), set[str]()
    with new_folder(folder) as part:
        body_path = part / f"{_FILE}.body"
        with body_path.open("x", encoding="utf-8", newline="\n") as body:
            for number, sample in enumerate(samples_to_write(samples, report)):
                for label in sample.result.instances.labels:
                    id_of(label, known, sample)
                labels.update(dict.fromkeys(sample.result.tags.names))
                splits.add(sample.split)
                save_image(part, sample, report=report, under=f"images/{sample.split}")
                _write_image(body, sample, number, report=report)
        # The table of labels comes first, and is known last.
        with (part / _FILE).open("x", encoding="utf-8", newline="\n") as file, body_path.open(encoding="utf-8") as body:
            _write_head(file, labels, [split for split in SPLITS if split in splits])
            shutil.copyfileobj(body, file)
            file.write("</annotations>\n")
        body_path.unlink()
    return report


def read_cvat(folder: Path) -> Iterator[Sample]:
    """Read ``folder/annotations.xml``, image by image: boxes, polygons, masks and tags.

    Polygons with the same ``group_id`` (0 is none) and label are parts of one object.

    Raises:
        FormatError: If the file is no such XML, or a value in it is wrong; the message names the image.
        InputError: If it cannot be read.
    """
    folder = Path(folder)
    path = folder / _FILE
    for element in children_of_root(path, root="annotations"):
        if element.tag == "image":
            where = f"{path}, image {str(element.get('name'))[:80]!r}"
            try:
                yield _sample(folder, element, where)
            except FormatError:
                raise
            except (InputError, ValueError, OverflowError) as error:
                raise FormatError(f"{where}: {error}") from error


def crop_to_runs(crop: BoolArray) -> list[int]:
    """Run lengths of a mask row by row, beginning with the background (possibly 0)."""
    flat = crop.ravel()
    ends = np.concatenate((np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    runs = np.diff(np.concatenate(([0], ends)))
    return ([0] if flat[0] else []) + list(runs.tolist())


def _write_head(file: TextIO, labels: Iterable[str], splits: Iterable[str]) -> None:
    # As CVAT exports a project; a task has one subset only.
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><project><labels>\n'
    )
    declared = "".join(
        f"<attribute><name>{name}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in _ATTRIBUTES
    )
    for label in labels:
        name = f"<name>{escaped(label)}</name><type>any</type>"
        file.write(f"<label>{name}<attributes>{declared}</attributes></label>\n")
    tasks = "".join(f"<task><name>{split}</name><subset>{split}</subset></task>" for split in splits)
    file.write(f"</labels><tasks>{tasks}</tasks></project></meta>\n")


def _write_image(file: TextIO, sample: Sample, number: int, *, report: WriteReport) -> None:
    result = sample.result
    height, width = result.size
    lose_boxes_of_masks(result.instances, report)
    values = {"id": number, "name": sample.file_name, "subset": sample.split, "width": width, "height": height}
    file.write(f"<image{attributes(values)}>\n")
    tags = result.tags
    for name, score, kind in zip(tags.names, tags.scores, tags.kinds or ("",) * len(tags), strict=True):
        _write_shape(file, "tag", {"label": name, "source": "auto"}, extra={"score": score, "kind": kind})
    for i in range(len(result.instances)):
        _write_object(file, result.instances, i)
        report.objects += 1
    file.write("</image>\n")


def _write_object(file: TextIO, found: Instances, i: int) -> None:
    values: dict[str, object] = {"label": found.labels[i], "source": "auto", "occluded": 0}
    extra: dict[str, object] = {"score": found.scores[i]}
    if found.mask_scores is not None:
        extra["mask_score"] = found.mask_scores[i]
    if found.masks is None or not found.masks[i].any():
        sides = zip(("xtl", "ytl", "xbr", "ybr"), found.boxes[i], strict=True)
        _write_shape(file, "box", {**values, **dict(sides), "z_order": 0}, extra=extra)
        return
    x1, y1, x2, y2 = (int(side) for side in masks_to_boxes(found.masks[i : i + 1])[0])
    runs = ", ".join(map(str, crop_to_runs(found.masks[i, y1:y2, x1:x2])))
    place = {"rle": runs, "left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1, "z_order": 0}
    _write_shape(file, "mask", {**values, **place}, extra=extra)


def _write_shape(file: TextIO, tag: str, values: Mapping[str, object], *, extra: Mapping[str, object]) -> None:
    # A float32 prints as the shortest decimal that reads back as the same float32.
    inner = "".join(
        f"<attribute{attributes({'name': name})}>{escaped(str(value))}</attribute>"
        for name, value in extra.items()
        if value != ""
    )
    file.write(f"<{tag}{attributes(values)}>{inner}</{tag}>\n")


def _sample(folder: Path, element: Element, where: str) -> Sample:
    stated = element.get("name", "")
    size = checked_size(element.get("height"), element.get("width"), where=where)
    split = element.get("subset") or "train"
    known: Split = next((name for name in SPLITS if name == split), "train")
    objects = list(_objects(element, size))
    result = Result(plain_name(stated), size, _tags(element), instances_of(objects, size))
    image = inside(folder, f"images/{split}/{stated}", where=where)
    if not image.is_file():
        image = inside(folder, f"images/{stated}", where=where)
    return Sample("", plain_name(stated), result, known, image_reader(image))


def _tags(element: Element) -> Tags:
    found = {shape.get("label", ""): _extra(shape) for shape in element.findall("tag")}
    scores = np.array([float(extra.get("score", 1)) for extra in found.values()], np.float32)
    kinds = tuple(extra.get("kind", "") for extra in found.values())
    return Tags(tuple(found), scores, kinds=kinds if any(kinds) else None)


def _objects(element: Element, size: tuple[int, int]) -> Iterator[ReadObject]:
    groups: dict[tuple[str, str], list[Element]] = {}
    for number, shape in enumerate(element):
        if shape.tag in {"box", "mask", "polygon"}:
            group = shape.get("group_id", "0")
            joined = shape.tag == "polygon" and group != "0"
            groups.setdefault((group if joined else f"#{number}", shape.get("label", "")), []).append(shape)
    for (_, label), shapes in groups.items():
        extra = _extra(shapes[0])
        mask_score = float(extra["mask_score"]) if "mask_score" in extra else None
        box, paint = None, None
        if shapes[0].tag == "box":
            sides = [float(shapes[0].get(side, "nan")) for side in ("xtl", "ytl", "xbr", "ybr")]
            box = (sides[0], sides[1], sides[2], sides[3])
        elif shapes[0].tag == "mask":
            paint = partial(_paint_runs, *_runs(shapes[0], size))
        else:
            paint = partial(paint_rings, [_points(shape) for shape in shapes])
        yield ReadObject(label, box, paint, float(extra.get("score", 1)), mask_score)


def _extra(shape: Element) -> dict[str, str]:
    return {element.get("name", ""): element.text or "" for element in shape.findall("attribute")}


def _points(shape: Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    return [(float(x), float(y)) for x, y in pairs]


def _runs(shape: Element, size: tuple[int, int]) -> tuple[IntArray, tuple[int, int, int, int]]:
    left, top, width, height = (int(shape.get(name, "-1")) for name in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or top + height > size[0] or left + width > size[1]:
        raise FormatError(f"a mask at {left, top} of {width} x {height} pixels is not inside the image")
    runs = np.array([int(run) for run in shape.get("rle", "").split(",")], np.int64)
    if (runs < 0).any() or (runs > width * height).any() or int(runs.sum()) != width * height:
        raise FormatError(f"run lengths do not fill a mask of {width} x {height} pixels")
    return runs, (left, top, width, height)


def _paint_runs(runs: IntArray, place: tuple[int, int, int, int], mask: BoolArray) -> None:
    left, top, width, height = place
    crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = crop

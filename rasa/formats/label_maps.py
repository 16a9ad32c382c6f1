"""Label maps: a PNG for each image whose pixels are the number of a class, or of an object.

``images/`` holds the images, ``maps/`` the PNGs: 8 bits with the colours of the classes as palette up to 255 values,
else 16 bits; 0 is background. ``legend.json`` lists the classes with their colours, ``images.jsonl`` the images with
split and tags, and for maps of objects with label, box and scores of each. Masks are kept to the pixel unless they
overlap; then the smaller one lies in front.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rasa.arrays import BoolArray, IntArray
from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._coco_files import category_name, entries, read_json
from rasa.formats._coco_objects import broken_as_format_error
from rasa.formats._coco_writer import scores_of
from rasa.formats._flat import flatten
from rasa.formats._folder import inside, new_folder, samples_to_write, save_image
from rasa.formats._index import FILE, entry_size, index_entries, index_line, sample_of
from rasa.formats._objects import ReadObject, lose_boxes_of_masks, lose_scores
from rasa.formats._png import map_picture, png_name, read_png, write_png
from rasa.formats.samples import Sample, WriteReport
from rasa.ops.colors import Color, distinct_colors, shade, tag_color
from rasa.ops.label_maps import LabelMap

_MODES = {"P", "L", "I;16"}


def write_semantic_maps(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write maps whose pixels are classes: the position in ``classes`` counted from 1.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: At most 65535.

    Returns:
        What was written and lost: objects that became one area with others of their class, pixels behind other
        classes, scores, boxes; and the area that lost most.

    Raises:
        InputError: If a label is no class, there are too many, or two images differ in suffix only.
        OutputError: If the folder is not empty or cannot be written.
    """
    ids, report = class_ids(classes), WriteReport()
    if len(ids) > 65535:
        raise InputError(f"a label map holds at most 65535 classes, got {len(ids)}")
    colors = _class_colors(classes)
    with new_folder(Path(folder)) as part, (part / FILE).open("wb") as index:
        _write_legend(part, classes, colors)
        for sample in samples_to_write(samples, report):
            name = png_name(sample.file_name)
            write_png(part / "maps" / name, map_picture(_semantic(sample, ids, report), colors))
            index.write(index_line(sample, name))
            save_image(part, sample, report=report)
    return report


def write_instance_maps(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write maps whose pixels are objects: the position in the line of the image in ``images.jsonl``, from 1.

    Args:
        folder: Absent or empty.
        samples: May be a stream; at most 65535 objects in an image.
        classes: Those of the legend.

    Returns:
        What was written and lost: pixels behind other objects, and the object that lost most.

    Raises:
        InputError: If a label is no class, there are too many objects, or two images differ in suffix only.
        OutputError: If the folder is not empty or cannot be written.
    """
    ids, report = class_ids(classes), WriteReport()
    with new_folder(Path(folder)) as part, (part / FILE).open("wb") as index:
        _write_legend(part, classes, [tag_color(name) for name in classes])
        for sample in samples_to_write(samples, report):
            found, name = sample.result.instances, png_name(sample.file_name)
            values, _ = flatten(sample, report)
            write_png(part / "maps" / name, map_picture(values, distinct_colors(found.labels)))
            index.write(index_line(sample, name, objects=_objects_entry(sample, ids)))
            save_image(part, sample, report=report)
            report.objects += len(found)
    return report


def read_semantic_maps(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_semantic_maps` wrote, one image after the other: an object for each class in a map.

    Raises:
        FormatError: If a file does not hold what the format promises.
        InputError: If a file is not there.
    """
    folder = Path(folder)
    names = _read_legend(folder)
    for entry, where in index_entries(folder):
        values = _read_map(folder, entry, where)
        present = [int(value) for value in np.unique(values) if value]
        if present and present[-1] > len(names):
            raise FormatError(f"{where}: the map has value {present[-1]}, the legend {len(names)} classes")
        objects = [ReadObject(names[value - 1], paint=partial(_paint, values, value)) for value in present]
        yield sample_of(folder, entry, objects, where=where)


def read_instance_maps(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_instance_maps` wrote, one image after the other.

    Raises:
        FormatError: If a file does not hold what the format promises.
        InputError: If a file is not there.
    """
    folder = Path(folder)
    names = set(_read_legend(folder))
    for entry, where in index_entries(folder):
        values, found = _read_map(folder, entry, where), entry.get("objects")
        if not isinstance(found, list) or int(values.max()) > len(found):
            raise FormatError(f"{where}: the map has value {values.max()}, more than the line has objects")
        with broken_as_format_error(where):
            objects = [_object_of(item, values, i + 1, names=names) for i, item in enumerate(found)]
        yield sample_of(folder, entry, objects, where=where)


def _semantic(sample: Sample, ids: Mapping[str, int], report: WriteReport) -> LabelMap:
    found = sample.result.instances
    groups: IntArray = np.array([id_of(label, ids, sample) for label in found.labels], np.int64)
    values, visible = flatten(sample, report, groups=groups)
    lose_scores(sample.result, report)
    lose_boxes_of_masks(found, report)
    shown = groups[: len(visible)][visible > 0]
    report.objects += len(shown)
    report.lose("objects merged with others of their class", len(shown) - len(np.unique(shown)))
    table: LabelMap = np.zeros(len(visible) + 1, np.uint8 if len(ids) <= 255 else np.uint16)
    table[1:] = groups[: len(visible)] + 1
    flat: LabelMap = table[values]
    return flat


def _objects_entry(sample: Sample, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    found = sample.result.instances
    entry = []
    for i, label in enumerate(found.labels):
        id_of(label, ids, sample)
        box = found.boxes[i].astype(np.float64).tolist()
        entry.append({"label": label, "box": box, "mask": found.masks is not None} | scores_of(sample, i))
    return entry


def _object_of(item: Mapping[str, Any], values: LabelMap, value: int, *, names: set[str]) -> ReadObject:
    label, (x1, y1, x2, y2), mask_score = item["label"], item["box"], item.get("mask_score")
    if label not in names:
        raise FormatError(f"object {value} is {label!r}, which the legend lacks")
    return ReadObject(
        label=label,
        box=(float(x1), float(y1), float(x2), float(y2)),
        paint=partial(_paint, values, value) if item.get("mask", True) else None,
        score=float(item["score"]),
        mask_score=None if mask_score is None else float(mask_score),
    )


def _class_colors(classes: Sequence[str]) -> list[Color]:
    # There are fewer colours of tags than classes in most data sets; shades tell apart those that share one.
    seen: dict[Color, int] = {}
    colors = []
    for name in classes:
        base = tag_color(name)
        colors.append(shade(base, seen.get(base, 0)))
        seen[base] = seen.get(base, 0) + 1
    return colors


def _write_legend(folder: Path, classes: Sequence[str], colors: Sequence[Color]) -> None:
    rows = [{"id": i + 1, "name": name, "color": colors[i]} for i, name in enumerate(classes)]
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "legend.json").write_text(f'{{"classes":[\n{text}\n]}}\n', encoding="utf-8", newline="\n")


def _read_legend(folder: Path) -> list[str]:
    path = folder / "legend.json"
    found = entries(read_json(path), "classes", path)
    if [entry.get("id") for entry in found] != list(range(1, len(found) + 1)):
        raise FormatError(f"{path}: the ids of the classes are not 1 to {len(found)} in order")
    return [category_name(entry, path) for entry in found]


def _read_map(folder: Path, entry: Mapping[str, Any], where: str) -> LabelMap:
    path = inside(folder / "maps", entry.get("map", ""), where=where)
    return np.asarray(read_png(path, entry_size(dict(entry), where), modes=_MODES))


def _paint(values: LabelMap, value: int, mask: BoolArray) -> None:
    np.equal(values, value, out=mask)

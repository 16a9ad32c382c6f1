"""COCO panoptic: a PNG for each image whose colours are segment ids, and a JSON file per split.

Every pixel belongs to one segment at most, so that where masks overlap the smaller one lies in front. A segment has a
``score`` and a ``mask_score`` beyond the format, an image its ``tags`` and ``sha256``, as in :mod:`rasa.formats.coco`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rasa.arrays import BoolArray, ByteArray, IntArray
from rasa.errors import FormatError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._coco_files import coco_files, entries, image_path, read_document, stated_size
from rasa.formats._coco_objects import broken_as_format_error, object_of, tags_of
from rasa.formats._coco_writer import CocoFiles, scores_of
from rasa.formats._flat import flatten
from rasa.formats._folder import image_reader, inside, new_folder, plain_name, samples_to_write, save_image
from rasa.formats._objects import ReadObject, checked_size, instances_of, lose_boxes_of_masks
from rasa.formats._png import png_name, read_png, write_png
from rasa.formats.samples import Sample, WriteReport
from rasa.ops.colors import distinct_colors, tag_color
from rasa.ops.masks import masks_to_boxes
from rasa.types import Result


def write_panoptic(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write COCO panoptic: ``annotations/panoptic_SPLIT.json``, PNGs in ``annotations/panoptic_SPLIT/``, ``images/``.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Names of the categories, whose ids count from 1 in this order; all are things.

    Returns:
        What was written and lost: pixels and objects behind others, objects without a mask, and the object that lost
        most.

    Raises:
        InputError: If a label is no class, or two images differ in suffix only.
        OutputError: If the folder is not empty or cannot be written.
    """
    ids, report = class_ids(classes), WriteReport()
    with new_folder(Path(folder)) as part, ExitStack() as closing:
        files = CocoFiles(part, "panoptic", closing)
        for sample in samples_to_write(samples, report):
            files.add_image(sample, report.images)
            colors, segments = _segments(sample, ids, report)
            name = png_name(sample.file_name)
            write_png(part / "annotations" / f"panoptic_{sample.split}" / name, PIL.Image.fromarray(colors))
            annotation = {"image_id": report.images, "file_name": name, "segments_info": segments}
            files.add_annotation(sample.split, annotation)
            save_image(part, sample, report=report)
        categories = ({"id": number + 1, "name": name, "supercategory": ""} for name, number in ids.items())
        files.finish([entry | {"isthing": 1, "color": tag_color(str(entry["name"]))} for entry in categories])
    return report


def _segments(sample: Sample, ids: Mapping[str, int], report: WriteReport) -> tuple[ByteArray, list[dict[str, Any]]]:
    """The PNG, uint8 ``(H, W, 3)``, and the entries of what is to be seen in it."""
    found = sample.result.instances
    lose_boxes_of_masks(found, report)
    values, visible = flatten(sample, report)
    seen = np.flatnonzero(visible).tolist()
    segment_ids = _segment_ids([found.labels[i] for i in seen])
    table = np.zeros((len(visible) + 1, 3), np.uint8)
    segments = []
    for i, segment_id in zip(seen, segment_ids, strict=True):
        report.objects += 1
        table[i + 1] = segment_id & 255, segment_id >> 8 & 255, segment_id >> 16
        x1, y1, x2, y2 = masks_to_boxes((values == i + 1)[None])[0].astype(int).tolist()
        entry: dict[str, Any] = {"id": segment_id, "category_id": id_of(found.labels[i], ids, sample) + 1, "iscrowd": 0}
        entry |= {"area": int(visible[i]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        segments.append(entry | scores_of(sample, i))
    return table[values], segments


def _segment_ids(labels: Sequence[str]) -> list[int]:
    """Distinct ids whose colours are those of the tags, or next to them."""
    taken = {0: 0}
    for red, green, blue in distinct_colors(labels):
        number = red + 256 * green + 65536 * blue
        while number in taken:
            number = (number + 1) % 2**24
        taken[number] = 0
    return list(taken)[1:]


def read_panoptic(folder: Path) -> Iterator[Sample]:
    """Read COCO panoptic, one image after the other; a split's JSON file lies in memory.

    Args:
        folder: With ``annotations/panoptic_*.json``, each beside the folder of its PNGs; or one such file.

    Raises:
        FormatError: If a file does not hold what the format promises: also if a PNG has an id that ``segments_info``
            lacks, or the other way round.
        InputError: If there is no such file or it cannot be read.
    """
    for path, split in coco_files(Path(folder), prefix="panoptic"):
        document = read_document(path)
        for image in document.images:
            file = image_path(path, image.file_name)
            where = f"{path.name}, image {image.id!r}"
            size = checked_size(*(image.size or stated_size(file, where)), where=where)
            objects: list[ReadObject] = []
            for annotation in document.annotations.pop(image.id, ()):
                objects += _objects_of(annotation, path, size, categories=document.categories)
            with broken_as_format_error(where):
                result = Result(image.file_name, size, tags_of(image.tags), instances_of(objects, size))
            yield Sample(image.sha256, plain_name(image.file_name), result, split, image_reader(file))


def _objects_of(
    annotation: Mapping[str, Any], path: Path, size: tuple[int, int], *, categories: Mapping[Hashable, str]
) -> list[ReadObject]:
    png = inside(path.parent / path.stem, annotation.get("file_name", ""), where=path.name)
    values = _read_ids(png, size)
    objects, stated = [], set()
    for entry in entries(annotation, "segments_info", png):
        number = entry.get("id")
        where = f"{path.name}, {png.name}, segment {number!r}"
        if not isinstance(number, int) or number in stated:
            raise FormatError(f"{where}: expected a number that no other segment has")
        stated.add(number)
        plain = {key: value for key, value in entry.items() if key != "segmentation"}
        read = object_of(plain, categories, size, where=where)
        objects.append(ReadObject(read.label, read.box, partial(_paint, values, number), read.score, read.mask_score))
    shown = set(np.unique(values).tolist()) - {0}
    if shown != stated:
        raise FormatError(f"{path.name}: {png.name} and its segments_info differ in id {min(shown ^ stated)}")
    return objects


def _read_ids(png: Path, size: tuple[int, int]) -> IntArray:
    image = read_png(png, size, modes={"RGB", "RGBA"})
    channels = np.asarray(image)[..., :3].astype(np.int64)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def _paint(values: IntArray, number: int, mask: BoolArray) -> None:
    np.equal(values, number, out=mask)

"""COCO instances: one JSON file per split under ``annotations/``, and the image files under ``images/``.

Masks are run lengths, which are exact, or polygons along the edges of the pixels, which lose holes alone.
Beyond the format, an annotation has a ``score`` and a ``mask_score``, and an image its ``tags`` and ``sha256``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rasa.arrays import BoolArray
from rasa.errors import InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._coco_files import coco_files, image_path, read_document, stated_size
from rasa.formats._coco_objects import broken_as_format_error, object_of, tags_of
from rasa.formats._coco_writer import CocoFiles, scores_of
from rasa.formats._folder import image_reader, new_folder, plain_name, samples_to_write, save_image
from rasa.formats._objects import checked_size, instances_of
from rasa.formats.samples import Sample, WriteReport
from rasa.ops.polygons import mask_to_polygons, outlines_iou
from rasa.ops.rle import mask_to_rle, rle_area
from rasa.types import Result

MaskForm = Literal["rle", "polygons"]


def write_coco(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], masks: MaskForm = "rle"
) -> WriteReport:
    """Write COCO instances, in memory that does not grow with the number of images.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Names of the categories, whose ids count from 1 in this order.
        masks: ``"rle"``, without loss; or ``"polygons"``, which more tools read, without holes.

    Returns:
        What was written and lost, and of polygons the object that lost most.

    Raises:
        InputError: If a label is no class, or two images have one file name.
        OutputError: If the folder is not empty or cannot be written.
    """
    if masks not in get_args(MaskForm):
        raise InputError(f"masks must be one of {', '.join(get_args(MaskForm))}, got {masks!r}")
    ids, report = class_ids(classes), WriteReport()
    with new_folder(Path(folder)) as part, ExitStack() as closing:
        files = CocoFiles(part, "instances", closing)
        for sample in samples_to_write(samples, report):
            files.add_image(sample, report.images)
            for i in range(len(sample.result.instances)):
                report.objects += 1
                entry = {"id": report.objects, "image_id": report.images}
                entry |= {"category_id": id_of(sample.result.instances.labels[i], ids, sample) + 1, "iscrowd": 0}
                files.add_annotation(sample.split, entry | _shape(sample, i, masks, report) | scores_of(sample, i))
            save_image(part, sample, report=report)
        files.finish([{"id": number + 1, "name": name, "supercategory": ""} for name, number in ids.items()])
    return report


def _shape(sample: Sample, i: int, masks: MaskForm, report: WriteReport) -> dict[str, Any]:
    found = sample.result.instances
    x1, y1, x2, y2 = found.boxes[i].astype(np.float64).tolist()
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    if found.masks is None:
        return {**box, "area": (x2 - x1) * (y2 - y1), "segmentation": []}
    rle = mask_to_rle(found.masks[i])
    form = rle if masks == "rle" else _polygons(sample, i, found.masks[i], report)
    return {**box, "area": rle_area(rle), "segmentation": form}


def _polygons(sample: Sample, i: int, mask: BoolArray, report: WriteReport) -> list[list[int]]:
    polygons = mask_to_polygons(mask)
    report.lose("masks without a pixel", not polygons)
    report.lose("holes of masks", sum(len(polygon.holes) for polygon in polygons))
    iou = outlines_iou(mask, polygons)
    report.note_iou(iou, image=sample.result.name, label=sample.result.instances.labels[i])
    return [polygon.outer.astype(np.int64).ravel().tolist() for polygon in polygons]


def read_coco(folder: Path) -> Iterator[Sample]:
    """Read COCO instances, one image after the other; a split's JSON file lies in memory.

    Others' files are read too: run lengths as text or numbers, polygons, categories with any ids, no sizes where the
    image files are there. What ``iscrowd`` marks is read as one object. Filled polygons are those pixels whose centre
    is inside.

    Args:
        folder: With ``annotations/instances_*.json`` or other JSON files there, or with ``*/_annotations.coco.json``;
            or one JSON file. Images are looked for in ``images/`` and the other usual places.

    Raises:
        FormatError: If a file does not hold what COCO promises; it names the file and the entry.
        InputError: If there is no such file or it cannot be read.
    """
    for path, split in coco_files(Path(folder)):
        document = read_document(path)
        for image in document.images:
            file = image_path(path, image.file_name)
            where = f"{path.name}, image {image.id!r}"
            size = checked_size(*(image.size or stated_size(file, where)), where=where)
            objects = [
                object_of(entry, document.categories, size, where=f"{path.name}, annotation {entry.get('id')!r}")
                for entry in document.annotations.pop(image.id, ())
            ]
            with broken_as_format_error(where):
                result = Result(image.file_name, size, tags_of(image.tags), instances_of(objects, size))
            yield Sample(image.sha256, plain_name(image.file_name), result, split, image_reader(file))

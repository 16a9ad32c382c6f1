"""Pascal VOC 2012: an XML file for each image, label maps of classes and of objects, and lists of the splits.

Coordinates count pixels from 1 and the last one is inside, so that xyxy ``(0, 0, 1, 1)`` is written as 1, 1, 1, 1.
The pixels of object i, counted from 1 in the order of the XML, have the value i in ``SegmentationObject``. Beyond the
254 values that a palette holds besides background and void, both maps are RGB, with the colours that VOC's rule gives.
No border of void (255) is drawn. Scores are ``attributes``, as CVAT and datumaro write them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element  # the tree only, see _xml.py

import numpy as np

from rasa.arrays import BoolArray, FloatArray, IntArray
from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._flat import flatten
from rasa.formats._folder import image_reader, inside, new_folder, plain_name, samples_to_write, save_image
from rasa.formats._objects import ReadObject, checked_size, instances_of, lose_tags
from rasa.formats._voc_maps import colour_of, read_map, write_map
from rasa.formats._xml import children_of_root, escaped
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.types import Instances, Result

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def write_voc(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], whole_pixels: bool = True
) -> WriteReport:
    """Write Annotations, JPEGImages, SegmentationClass, SegmentationObject, ImageSets and ``labelmap.txt``.

    Where masks overlap, the smaller object has the pixel; ``worst_iou`` of the report is of the object that lost most.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Value of a class in SegmentationClass is its position here plus 1.
        whole_pixels: Round boxes to pixels, as VOC does and most readers ask; False keeps fractions.

    Returns:
        What was lost: tags, pixels of masks that others hide, and fractions of pixels.

    Raises:
        InputError: If a label is not among ``classes``, XML cannot hold a name, or two images differ in suffix only.
        OutputError: If the folder is not empty or cannot be written.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit".
    """
    report, known = WriteReport(), class_ids(classes)
    with new_folder(folder) as part:
        for name in ("Annotations", "JPEGImages", "ImageSets/Main", "ImageSets/Segmentation"):
            (part / name).mkdir(parents=True)
        for kind in ("Main", "Segmentation"):
            for split in SPLITS:
                (part / "ImageSets" / kind / f"{split}.txt").touch()
        for sample in samples_to_write(samples, report):
            lose_tags(sample.result.tags, report)
            save_image(part, sample, report=report, under="JPEGImages")
            _write_sample(part, sample, known, report=report, whole_pixels=whole_pixels)
        _write_label_map(part, classes, report=report)
    return report


def read_voc(folder: Path) -> Iterator[Sample]:
    """Read the images of the lists in ``ImageSets/Main``, or all Annotations where there are none.

    Raises:
        FormatError: If a file is malformed; the message names it.
        InputError: If a file cannot be read.
    """
    folder = Path(folder)
    listed = False
    for split in SPLITS:
        for stem in _stems(folder / "ImageSets" / "Main" / f"{split}.txt"):
            listed = True
            yield _read_sample(folder, stem, split)
    if not listed:
        for path in sorted((folder / "Annotations").glob("*.xml")):
            yield _read_sample(folder, path.stem, "train")


def _write_sample(
    part: Path, sample: Sample, known: Mapping[str, int], *, report: WriteReport, whole_pixels: bool
) -> None:
    found, stem = sample.result.instances, Path(sample.file_name).stem
    if stem != stem.strip() or any(character in stem for character in "\r\n"):
        raise InputError(f"{sample.file_name!r} cannot stand in a list of images; give it a plainer file_name")
    ids = [id_of(label, known, sample) + 1 for label in found.labels]
    boxes = _pixels(found.boxes, sample.result.size, report) if whole_pixels else found.boxes
    try:
        with (part / "Annotations" / f"{stem}.xml").open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in _lines(sample, boxes))
    except FileExistsError as error:
        raise InputError(f"two images share the annotation {stem}.xml; {sample.file_name!r} is one") from error
    report.objects += len(found)
    kinds = ["Main"]
    if found.masks is not None:
        kinds.append("Segmentation")
        objects = flatten(sample, report)[0].astype(np.int64)
        write_map(part / "SegmentationObject" / f"{stem}.png", objects, count=len(found))
        values = np.array([0, *ids], np.int64)
        write_map(part / "SegmentationClass" / f"{stem}.png", values[objects], count=len(known))
    for kind in kinds:
        with (part / "ImageSets" / kind / f"{sample.split}.txt").open("a", encoding="utf-8", newline="\n") as file:
            file.write(stem + "\n")


def _pixels(boxes: FloatArray, size: tuple[int, int], report: WriteReport) -> FloatArray:
    limits = np.array(size[::-1], np.float32)
    # Half a pixel goes up on both sides; a box has at least one pixel, and lies in the image.
    low = np.clip(np.floor(boxes[:, :2] + 0.5), 0, limits - 1)
    high = np.clip(np.floor(boxes[:, 2:] + 0.5), low + 1, limits)
    whole: FloatArray = np.concatenate([low, high], axis=1).astype(np.float32)
    report.lose("boxes that are not whole pixels of the image", int((whole != boxes).any(axis=1).sum()))
    return whole


def _lines(sample: Sample, boxes: FloatArray) -> Iterator[str]:
    found, (height, width) = sample.result.instances, sample.result.size
    yield "<annotation>"
    yield f"<folder>JPEGImages</folder><filename>{escaped(sample.file_name)}</filename>"
    yield f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    yield f"<segmented>{int(found.masks is not None)}</segmented>"
    for i, (label, box) in enumerate(zip(found.labels, boxes, strict=True)):
        x1, y1, x2, y2 = (float(side) for side in box)
        sides = "".join(
            f"<{name}>{_number(value)}</{name}>" for name, value in zip(_SIDES, (x1 + 1, y1 + 1, x2, y2), strict=True)
        )
        yield f"<object><name>{escaped(label)}</name><pose>Unspecified</pose><truncated>0</truncated>"
        yield f"<difficult>0</difficult><bndbox>{sides}</bndbox>{_attributes(found, i)}</object>"
    yield "</annotation>"


def _attributes(found: Instances, i: int) -> str:
    values = {"score": found.scores[i]}
    if found.mask_scores is not None:
        values["mask_score"] = found.mask_scores[i]
    # A float32 prints as the shortest decimal that reads back as the same float32.
    inner = "".join(
        f"<attribute><name>{name}</name><value>{value}</value></attribute>" for name, value in values.items()
    )
    return f"<attributes>{inner}</attributes>"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _write_label_map(folder: Path, classes: Sequence[str], *, report: WriteReport) -> None:
    with (folder / "labelmap.txt").open("x", encoding="utf-8", newline="\n") as file:
        file.write("# label:color_rgb:parts:actions\nbackground:0,0,0::\n")
        for number, name in enumerate(classes, 1):
            # The file has no way to write these; the XML files have the names in full.
            plain = "_".join(name.replace(":", "_").splitlines())
            plain = f"_{plain[1:]}" if plain.startswith("#") else plain
            report.lose("characters of class names in labelmap.txt", int(plain != name))
            file.write(f"{plain}:{','.join(map(str, colour_of(number)))}::\n")


def _stems(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in iter(partial(file.readline, 2**16), b""):
            if stem := line.decode("utf-8", "replace").strip():
                yield stem


def _read_sample(folder: Path, stem: str, split: Split) -> Sample:
    path = inside(folder, f"Annotations/{stem}.xml", where=f"{folder / 'ImageSets'}, {split}")
    fields: dict[str, Element] = {}
    objects: list[Element] = []
    for element in children_of_root(path, root="annotation"):
        if element.tag == "object":
            objects.append(element)
        else:
            fields.setdefault(element.tag, element)
    shape = fields.get("size", Element("size"))
    size = checked_size(shape.findtext("height"), shape.findtext("width"), where=str(path))
    given = fields.get("filename", Element("filename")).text or f"{stem}.jpg"
    try:
        found = instances_of(list(_read_objects(objects, _object_pixels(folder, stem, size), path)), size)
    except FormatError:
        raise
    except (InputError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from error
    image = inside(folder, f"JPEGImages/{given}", where=str(path))
    name = plain_name(given)
    return Sample("", name, Result(name, size, instances=found), split, image_reader(image))


def _object_pixels(folder: Path, stem: str, size: tuple[int, int]) -> IntArray | None:
    path = inside(folder, f"SegmentationObject/{stem}.png", where=str(folder))
    if not path.is_file():
        return None
    numbers = read_map(path)
    if numbers.shape != size:
        raise FormatError(f"{path} has {numbers.shape} pixels, and its image {size} (height, width)")
    return numbers


def _read_objects(elements: Sequence[Element], numbers: IntArray | None, path: Path) -> Iterator[ReadObject]:
    for number, element in enumerate(elements, 1):
        box = [float(element.findtext(f"bndbox/{side}", "nan")) for side in _SIDES]
        if not np.isfinite(box).all():
            raise FormatError(f"{path}, object {number}: bndbox needs the numbers {', '.join(_SIDES)}")
        values = {
            found.findtext("name"): found.findtext("value", "") for found in element.iterfind("attributes/attribute")
        }
        mask_score = float(values["mask_score"]) if "mask_score" in values else None
        paint = None if numbers is None else partial(_paint_number, numbers, number)
        label = element.findtext("name", "")
        corners = (box[0] - 1, box[1] - 1, box[2], box[3])
        yield ReadObject(label, corners, paint, float(values.get("score", 1)), mask_score)


def _paint_number(numbers: IntArray, number: int, mask: BoolArray) -> None:
    np.equal(numbers, number, out=mask)

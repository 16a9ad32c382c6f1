"""YOLO detect and segment, as ultralytics reads them: ``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``.

Coordinates are shares of the image's sides, so the image files are part of the dataset: without them nobody can tell
pixels. A segment is one line: parts and holes of an object are joined to it by bridges without width, see
:func:`rasa.formats._rings.join_rings`, and the object stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._folder import image_reader, inside, new_folder, read_bounded, samples_to_write, save_image
from rasa.formats._objects import ReadObject, instances_of, lose_scores, lose_tags
from rasa.formats._rings import inset, join_rings, paint_rings
from rasa.formats._yolo_yaml import read_data_yaml, write_data_yaml
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.io.find import IMAGE_SUFFIXES
from rasa.io.images import image_size
from rasa.ops.boxes import clip_boxes
from rasa.ops.masks import masks_to_boxes
from rasa.ops.polygons import Ring, mask_to_polygons
from rasa.types import Instances, Result

MAX_LABEL_BYTES = 256 * 2**20
"""Largest label file that is read."""

_Lines = Callable[[Sample, Mapping[str, int], WriteReport], Iterator[str]]


def write_yolo_detect(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write boxes: one line ``class x y width height`` an object, centre and size as shares of the image.

    An image without objects has an empty label file, which makes it background.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Class ids are positions in it, from 0.

    Returns:
        What was lost: masks, scores and tags; boxes are cut to the image.

    Raises:
        InputError: If a label is not among ``classes``, or two image files differ in their suffix only.
        OutputError: If the folder is not empty or cannot be written.
    """
    return _write(folder, samples, classes, lines=_detect_lines)


def write_yolo_segment(folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
    """Write masks: one line ``class x1 y1 x2 y2 ...`` an object, corners as shares of the image.

    An object without masks is written as the rectangle of its box, because a label file must not mix the two kinds of
    lines. ``worst_iou`` of the report compares each mask with the line that was written for it.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Class ids are positions in it, from 0.

    Returns:
        What was lost: scores, tags, masks without a pixel and their objects, and boxes other than those of the masks.

    Raises:
        InputError: If a label is not among ``classes``, or two image files differ in their suffix only.
        OutputError: If the folder is not empty or cannot be written.
    """
    return _write(folder, samples, classes, lines=_segment_lines)


def read_yolo(folder: Path) -> Iterator[Sample]:
    """Read a dataset of either kind by its ``data.yaml``; nothing is split or joined.

    Lines of five numbers are boxes, longer ones segments, which are filled by the even-odd rule. All scores are 1.

    Raises:
        FormatError: If a file is malformed or an image is missing; the message names the file and the line.
        DependencyError: If PyYAML is not installed.
        InputError: If a file cannot be read.
    """
    folder = Path(folder)
    splits, names = read_data_yaml(folder / "data.yaml")
    done: set[str] = set()
    for split in SPLITS:
        for images in splits.get(split, ()):
            if images not in done:
                done.add(images)
                yield from _read_split(folder, images, split=split, names=names)


def _write(folder: Path, samples: Iterable[Sample], classes: Sequence[str], *, lines: _Lines) -> WriteReport:
    report, known = WriteReport(), class_ids(classes)
    with new_folder(folder) as part:
        for name in ("images/train", "labels/train"):
            (part / name).mkdir(parents=True)
        for sample in samples_to_write(samples, report):
            lose_tags(sample.result.tags, report)
            lose_scores(sample.result, report)
            save_image(part, sample, report=report, under=f"images/{sample.split}")
            path = part / "labels" / sample.split / f"{Path(sample.file_name).stem}.txt"
            path.parent.mkdir(exist_ok=True)
            try:
                with path.open("x", encoding="ascii", newline="\n") as file:
                    file.writelines(lines(sample, known, report))
            except FileExistsError as error:
                raise InputError(f"two images share the label file {path.name}; {sample.file_name!r} is one") from error
        write_data_yaml(part, classes)
    return report


def _detect_lines(sample: Sample, known: Mapping[str, int], report: WriteReport) -> Iterator[str]:
    found, (height, width) = sample.result.instances, sample.result.size
    report.lose("masks", 0 if found.masks is None else len(found))
    for label, (x1, y1, x2, y2) in zip(found.labels, _clipped(sample.result, report).tolist(), strict=True):
        report.objects += 1
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        yield _line(id_of(label, known, sample), shares)


def _segment_lines(sample: Sample, known: Mapping[str, int], report: WriteReport) -> Iterator[str]:
    found = sample.result.instances
    if found.masks is None:
        report.lose("boxes without a mask, written as rectangles", len(found))
    corners = _clipped(sample.result, report) if found.masks is None else masks_to_boxes(found.masks)
    for i, label in enumerate(found.labels):
        number = id_of(label, known, sample)
        if found.masks is not None and not found.masks[i].any():
            report.lose("objects whose mask has no pixel")
            continue
        report.objects += 1
        report.lose("boxes that are not the extent of their mask", int((corners[i] != found.boxes[i]).any()))
        ring = _rectangle(corners[i]) if found.masks is None else _outline(found, i)
        yield _line(number, (ring / sample.result.size[::-1]).ravel().tolist())
        if found.masks is not None:
            report.note_iou(_kept(ring, found, i), image=sample.file_name, label=label)


def _outline(found: Instances, i: int) -> Ring:
    if found.masks is None:
        return np.zeros((0, 2))
    parts = mask_to_polygons(found.masks[i])
    return join_rings([inset(ring) for part in parts for ring in (part.outer, *part.holes)])


def _kept(ring: Ring, found: Instances, i: int) -> float:
    if found.masks is None:
        return 1.0
    mask, again = found.masks[i], np.zeros(found.masks.shape[1:], np.bool_)
    paint_rings([ring], again)
    return float(np.count_nonzero(mask & again) / np.count_nonzero(mask | again))


def _rectangle(box: FloatArray) -> Ring:
    x1, y1, x2, y2 = box.tolist()
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _clipped(result: Result, report: WriteReport) -> FloatArray:
    boxes = clip_boxes(result.instances.boxes, result.size)
    report.lose("parts of boxes outside of the image", int((boxes != result.instances.boxes).any(axis=1).sum()))
    return boxes


def _line(number: int, shares: Iterable[float]) -> str:
    # Nine decimals are 0.00001 pixels in an image of 20,000.
    texts = (f"{share:.9f}".rstrip("0").rstrip(".") for share in shares)
    return f"{number} {' '.join(texts)}\n"


def _read_split(folder: Path, images: str, *, split: Split, names: Mapping[int, str]) -> Iterator[Sample]:
    parts = images.split("/")
    if "images" not in parts:
        raise FormatError(
            f"{folder / 'data.yaml'}: {images!r} has no folder called images, whose labels would be known"
        )
    # As ultralytics does: the last folder called images is called labels.
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    label_folder = inside(folder, "/".join(parts), where=str(folder / "data.yaml"))
    image_folder = inside(folder, images, where=str(folder / "data.yaml"))
    pictures = {path.stem: path for path in _files(image_folder) if path.suffix.lower() in IMAGE_SUFFIXES}
    labelled = {path.stem: path for path in _files(label_folder) if path.suffix == ".txt"}
    for stem in sorted(pictures | labelled):
        if stem not in pictures:
            raise FormatError(f"{labelled[stem]}: there is no image of that name, whose size the shares are of")
        yield _sample(pictures[stem], labelled.get(stem), split=split, names=names)


def _files(folder: Path) -> list[Path]:
    # A link could lead out of the dataset.
    return [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()] if folder.is_dir() else []


def _sample(picture: Path, labels: Path | None, *, split: Split, names: Mapping[int, str]) -> Sample:
    try:
        with picture.open("rb") as file:
            size = image_size(file, name=str(picture))
    except OSError as error:
        raise InputError(f"cannot read {picture}: {error.strerror}") from error
    objects: list[ReadObject] = []
    text = read_bounded(labels, limit=MAX_LABEL_BYTES).decode("utf-8-sig", "replace") if labels else ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{labels}, line {number}"
            objects.append(_object(line.split(), size, names=names, where=where))
    return Sample("", picture.name, Result(picture.name, size, instances=instances_of(objects, size)), split,
                  image_reader(picture))  # fmt: skip


def _object(words: Sequence[str], size: tuple[int, int], *, names: Mapping[int, str], where: str) -> ReadObject:
    try:
        number, values = int(words[0]), np.array(words[1:], np.float64)
    except ValueError as error:
        raise FormatError(f"{where}: expected a class id and numbers: {error}") from error
    if number not in names:
        raise FormatError(f"{where}: class {number} is not among the {len(names)} names of data.yaml")
    # As wide a margin as ultralytics allows.
    if not ((values >= -0.01) & (values <= 1.01)).all():
        raise FormatError(f"{where}: coordinates must be shares of the image, from 0 to 1")
    scale = np.array(size[::-1], np.float64)
    if len(values) == 4 and (values[2:] < 0).any():
        raise FormatError(f"{where}: width and height must not be negative")
    if len(values) == 4:
        centre, half = values[:2] * scale, values[2:] * scale / 2
        x1, y1, x2, y2 = (float(side) for side in (*(centre - half), *(centre + half)))
        return ReadObject(names[number], (x1, y1, x2, y2))
    if len(values) < 6 or len(values) % 2:
        raise FormatError(f"{where}: expected 4 numbers of a box or at least 3 corners, got {len(values)} numbers")
    return ReadObject(names[number], None, partial(paint_rings, [values.reshape(-1, 2) * scale]))

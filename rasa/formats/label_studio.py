"""Label Studio: tasks with pre-annotations, and the labeling configuration that fits them.

``tasks.json`` holds a task a line: masks as brush strokes, boxes as rectangles, tags as choices. ``config.xml`` is
what a project's labeling interface is set to. An object is one region, so that an object with a mask has no box of
its own. Image files lie in ``images/SPLIT``, to be served as local storage or from anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

import numpy as np

from rasa.arrays import BoolArray
from rasa.errors import FormatError
from rasa.formats._brush import brush_to_mask, mask_to_brush
from rasa.formats._class_ids import class_ids, id_of
from rasa.formats._folder import image_reader, inside, new_folder, plain_name, samples_to_write, save_image
from rasa.formats._json_items import json_items
from rasa.formats._objects import (
    Box,
    ReadObject,
    checked_size,
    instances_of,
    lose_boxes_of_masks,
    lose_mask_scores,
    lose_tags,
)
from rasa.formats._rings import paint_rings
from rasa.formats._xml import attributes
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.types import Result, Tags

_FILE = "tasks.json"
_LOCAL = "/data/local-files/?d="


def write_label_studio(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], image_url: str = _LOCAL
) -> WriteReport:
    """Write ``tasks.json``, ``config.xml`` and the image files.

    Args:
        folder: Absent or empty.
        samples: May be a stream.
        classes: Labels of objects; the tags that come are the choices.
        image_url: What stands before ``images/SPLIT/NAME`` in a task. As it is, for local storage whose root is this
            folder: LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.

    Returns:
        What was lost: kinds of tags, segmenter's scores, boxes beside masks, and masks without a pixel, whose objects
        are rectangles.

    Raises:
        InputError: If a label is not among ``classes``, or XML cannot hold a name.
        OutputError: If the folder is not empty or cannot be written.

    Source:
        https://labelstud.io/guide/predictions and https://labelstud.io/tags/brush
    """
    report, known = WriteReport(), class_ids(classes)
    tags: dict[str, None] = {}
    with new_folder(folder) as part:
        with (part / _FILE).open("x", encoding="utf-8", newline="\n") as file:
            file.write("[")
            for sample in samples_to_write(samples, report):
                for label in sample.result.instances.labels:
                    id_of(label, known, sample)
                tags.update(dict.fromkeys(sample.result.tags.names))
                lose_tags(sample.result.tags, report, keeps=("names", "scores"))
                lose_mask_scores(sample.result, report)
                lose_boxes_of_masks(sample.result.instances, report)
                save_image(part, sample, report=report, under=f"images/{sample.split}")
                _write_task(file, _task(sample, image_url), number=report.images)
                report.objects += len(sample.result.instances)
            file.write("\n]\n")
        _write_config(part, known, tags)
    return report


def read_label_studio(folder: Path) -> Iterator[Sample]:
    """Read ``tasks.json``, task by task in bounded memory: ours, and what Label Studio exports as JSON.

    The last annotation of a person counts, else the first prediction. Brushes, rectangles without rotation, polygons
    and choices are read.

    Raises:
        FormatError: If the file is malformed; the message names the task.
        InputError: If it cannot be read.
    """
    folder = Path(folder)
    path = folder / _FILE
    for number, task in enumerate(json_items(path), 1):
        where = f"{path}, task {number}"
        try:
            yield _sample(folder, task, where)
        except FormatError as error:
            raise FormatError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
        except (ValueError, TypeError, KeyError, LookupError, AttributeError, OverflowError) as error:
            raise FormatError(f"{where} is none of Label Studio: {type(error).__name__}: {error}") from error


def _write_task(file: TextIO, task: Mapping[str, Any], *, number: int) -> None:
    file.write("\n" if number == 1 else ",\n")
    file.write(json.dumps(task, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def _task(sample: Sample, image_url: str) -> dict[str, Any]:
    result = sample.result
    height, width = result.size
    tags = dict(zip(result.tags.names, map(float, result.tags.scores), strict=True))
    data = {
        "image": f"{image_url}{quote(f'images/{sample.split}/{sample.file_name}')}",
        "id": sample.id,
        "file_name": sample.file_name,
        "split": sample.split,
        "height": height,
        "width": width,
        "tag_scores": tags,
    }
    size = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
    regions = [{**_region(result, i), **size} for i in range(len(result.instances))]
    if tags:
        chosen = {"value": {"choices": list(tags)}, "type": "choices", "from_name": "tags", "to_name": "image"}
        regions.append({"id": "tags", **chosen})
    return {"data": data, "predictions": [{"model_version": "rasa", "result": regions}]}


def _region(result: Result, i: int) -> dict[str, Any]:
    found, (height, width) = result.instances, result.size
    region = {"id": f"object-{i}", "score": float(found.scores[i])}
    if found.masks is not None and found.masks[i].any():
        value = {"format": "rle", "rle": mask_to_brush(found.masks[i]), "brushlabels": [found.labels[i]]}
        return {**region, "type": "brushlabels", "from_name": "masks", "value": value}
    x1, y1, x2, y2 = found.boxes[i].astype(float).tolist()
    # In percent of the image.
    place = {"x": x1 / width * 100, "y": y1 / height * 100}
    extent = {"width": (x2 - x1) / width * 100, "height": (y2 - y1) / height * 100, "rotation": 0}
    value = {**place, **extent, "rectanglelabels": [found.labels[i]]}
    return {**region, "type": "rectanglelabels", "from_name": "boxes", "value": value}


def _write_config(folder: Path, classes: Iterable[str], tags: Iterable[str]) -> None:
    names = list(classes)
    lines = ["<View>", '<Image name="image" value="$image"/>']
    for tag, name in (("BrushLabels", "masks"), ("RectangleLabels", "boxes")):
        labels = "".join(f"<Label{attributes({'value': label})}/>" for label in names)
        lines.append(f'<{tag} name="{name}" toName="image">{labels}</{tag}>')
    if choices := "".join(f"<Choice{attributes({'value': name})}/>" for name in tags):
        lines.append(f'<Choices name="tags" toName="image" choice="multiple">{choices}</Choices>')
    text = "\n".join([*lines, "</View>"]) + "\n"
    (folder / "config.xml").write_text(text, encoding="utf-8", newline="\n")


def _sample(folder: Path, task: Mapping[str, Any], where: str) -> Sample:
    data = task["data"]
    address = unquote(str(data["image"]))
    stated = data.get("file_name") or address.rsplit("?d=", 1)[-1].rstrip("/").rsplit("/", 1)[-1]
    split: Split = next((known for known in SPLITS if known == data.get("split")), "train")
    regions = _regions(task)
    sized = {**next((region for region in regions if "original_height" in region), {})}
    height, width = data.get("height", sized.get("original_height")), data.get("width", sized.get("original_width"))
    size = checked_size(height, width, where=f"{where}: height and width in data or in a region")
    result = Result(plain_name(stated), size, _tags(regions, data), instances_of(list(_objects(regions, size)), size))
    image = inside(folder, f"images/{split}/{stated}", where=where)
    return Sample(str(data.get("id", "")), plain_name(stated), result, split, image_reader(image))


def _regions(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    done = [given for given in task.get("annotations") or [] if not given.get("was_cancelled")]
    source = done[-1:] or (task.get("predictions") or [])[:1]
    return [region for given in source for region in given["result"]]


def _tags(regions: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> Tags:
    scores = data.get("tag_scores") or {}
    chosen = [name for region in regions if region.get("type") == "choices" for name in region["value"]["choices"]]
    names = tuple(dict.fromkeys(chosen))
    return Tags(names, np.array([float(scores.get(name, 1)) for name in names], np.float32))


def _objects(regions: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[ReadObject]:
    for region in regions:
        kind = str(region.get("type"))
        if kind not in {"brushlabels", "rectanglelabels", "polygonlabels"}:
            continue
        value = region["value"]
        [label] = value[kind]
        score = region.get("score")
        box = _box(value, size) if kind == "rectanglelabels" else None
        paint = None
        if kind == "brushlabels":
            paint = partial(_paint_brush, value["rle"])
        elif kind == "polygonlabels":
            scale = np.array(size[::-1]) / 100
            paint = partial(paint_rings, [np.array(value["points"], np.float64).reshape(-1, 2) * scale])
        yield ReadObject(label, box, paint, 1.0 if score is None else float(score))


def _box(value: Mapping[str, Any], size: tuple[int, int]) -> Box:
    if value.get("rotation"):
        raise FormatError(f"a rectangle is rotated by {value['rotation']!r} degrees, which no box is")
    height, width = size
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    return x, y, x + float(value["width"]) * width / 100, y + float(value["height"]) * height / 100


def _paint_brush(brush: Sequence[int], mask: BoolArray) -> None:
    mask[:] = brush_to_mask(brush, (mask.shape[0], mask.shape[1]))

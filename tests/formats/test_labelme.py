"""LabelMe: masks, polygons and rectangles come back with their scores; what people draw is read too."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError
from rasa.formats.labelme import read_labelme, write_labelme
from rasa.ops.masks import masks_to_boxes
from tests.formats.samples import assert_same, classes_of, datasets, named_samples, without_masks

NAMED = named_samples()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def as_held(sample):
    """The same sample with what the format holds: no kinds of tags, the extents of masks for boxes."""
    result = sample.result
    result = result.with_tags(replace(result.tags, kinds=None))
    found = result.instances
    if found.masks is None:
        return replace(sample, result=result)
    filled = found.masks.any(axis=(1, 2))
    if not filled.any():
        return without_masks(replace(sample, result=result))
    boxes = np.where(filled[:, None], masks_to_boxes(found.masks), found.boxes)
    return replace(sample, result=result.with_instances(replace(found, boxes=boxes)))


def document(shapes, **fields):
    return {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 10, "imageWidth": 20, "flags": {}, **fields}


def write_by_hand(folder, data):
    (folder / "a.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def shape(kind, points, **fields):
    return {"label": "dog", "shape_type": kind, "points": points, "group_id": None, **fields}


def png(array):
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("masks", ["mask", "polygon"])
@pytest.mark.parametrize("name", NAMED)
def test_each_sample_comes_back(tmp_path, name, masks):
    sample = NAMED[name]
    report = write_labelme(tmp_path / "d", [sample], classes=classes_of([sample]), masks=masks)
    assert_same(read_labelme(tmp_path / "d"), [as_held(sample)])
    kinds = sum(map(bool, sample.result.tags.kinds or ()))
    empty = {"masks without a pixel": 1} if name == "empty mask" else {}
    assert dict(report.lost) == {**empty, **({"kinds of tags": kinds} if kinds else {})}


@QUICK
@given(dataset=datasets())
def test_any_masks_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    for masks in ("mask", "polygon"):
        folder = tmp_path_factory.mktemp("labelme") / "d"
        write_labelme(folder, written, classes=classes, masks=masks)
        assert_same(read_labelme(folder), [as_held(sample) for sample in written])


@QUICK
@given(dataset=datasets(masks=False))
def test_any_boxes_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("labelme") / "d"
    write_labelme(folder, written, classes=classes)
    assert_same(read_labelme(folder), [as_held(sample) for sample in written])


def test_a_group_keeps_parts_together(tmp_path):
    sample = NAMED["parts"]
    write_labelme(tmp_path / "d", [sample], classes=["dog"], masks="polygon")
    shapes = json.loads(next((tmp_path / "d/train").glob("*.json")).read_text())["shapes"]
    assert [s["shape_type"] for s in shapes] == ["polygon"] * 3
    assert {s["group_id"] for s in shapes} == {0}


def test_the_fields_are_those_of_labelme(tmp_path):
    write_labelme(tmp_path / "d", [NAMED["one pixel"]], classes=["dog"])
    data = json.loads(next((tmp_path / "d/train").glob("*.json")).read_text())
    assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} <= data.keys()
    assert {"label", "points", "group_id", "description", "shape_type", "flags", "mask"} <= data["shapes"][0].keys()
    # The pixel at column 9 and row 7; the corners are the first and the last pixel.
    assert data["shapes"][0]["points"] == [[9, 7], [9, 7]]


def test_what_people_draw_is_read(tmp_path):
    shapes = [
        shape("rectangle", [[15, 8], [2, 1]]),
        shape("polygon", [[0, 0], [4, 0], [4, 4], [0, 4]], group_id=7),
        shape("polygon", [[10, 0], [14, 0], [14, 4], [10, 4]], group_id=7),
        shape("polygon", [[2, 0], [6, 0], [6, 4], [2, 4]]),
        shape("mask", [[3.0, 2.0], [5.0, 3.0]], mask=png(np.ones((2, 3), np.uint8))),
    ]
    write_by_hand(tmp_path, document(shapes, flags={"sunny": True, "rainy": False}))
    [read] = read_labelme(tmp_path)
    found = read.result.instances
    assert found.boxes.tolist() == [[2, 1, 15, 8], [0, 0, 14, 4], [2, 0, 6, 4], [3, 2, 6, 4]]
    assert found.masks.sum(axis=(1, 2)).tolist() == [0, 32, 16, 6]
    assert found.scores.tolist() == [1, 1, 1, 1]
    assert read.result.tags.names == ("sunny",)


def test_the_files_are_the_same_bytes_each_time(tmp_path):
    written = list(NAMED.values())
    for name in ("one", "two"):
        write_labelme(tmp_path / name, written, classes=classes_of(written))
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) == 2 * len(written)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "a.json is no file of LabelMe: JSONDecodeError"),
        ("[]", "a.json is no file of LabelMe: TypeError"),
        ("[" * 100_000, "a.json is no file of LabelMe: RecursionError"),
        (document([], imagePath="../a.jpg"), "a.json: imagePath: '../a.jpg' is no path inside"),
        (document([], imageHeight=None), "a.json: imageHeight and imageWidth: the image is stated to have None x 20"),
        (document([], imageHeight=10**9), "a.json: imageHeight and imageWidth"),
        (document([shape("circle", [[1, 1], [2, 2]])]), "shape 0 is a 'circle'; expected mask, polygon or rectangle"),
        (document([shape("rectangle", [[1, 1]])]), "is no file of LabelMe: ValueError"),
        (document([shape("polygon", [[1, "x"]])]), "is no file of LabelMe: ValueError"),
        (document([shape("polygon", [[1, float("nan")]])]), "a polygon must be finite points"),
        (document([shape("mask", [[1, 1], [2, 2]], mask="???")]), "a mask is no base64"),
        (document([shape("mask", [[1, 1], [2, 2]], mask=None)]), "a mask is no base64"),
        (document([shape("mask", [[1, 1], [2, 2]], mask="aaaa")]), "a.json"),
        (document([shape("mask", [[19, 1], [20, 2]], mask=png(np.ones((2, 2), np.uint8)))]), "is not inside the image"),
        (document([shape("rectangle", [[1, 1], [2, 2]], score=3)]), "scores must be in"),
        (document([{"points": []}]), "is no file of LabelMe: KeyError"),
        (document([], flags=[1]), "is no file of LabelMe: AttributeError"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, data, message):
    with pytest.raises(FormatError, match=message):
        list(read_labelme(write_by_hand(tmp_path, data)))


def test_wrong_options_and_names_are_refused(tmp_path):
    one = NAMED["one pixel"]
    with pytest.raises(InputError, match='masks must be "mask" or "polygon", got \'rle\''):
        write_labelme(tmp_path / "d", [one], classes=["dog"], masks="rle")
    with pytest.raises(InputError, match="not among the 1 classes"):
        write_labelme(tmp_path / "d", [one], classes=["cat"])
    two = replace(one, file_name=f"{Path(one.file_name).stem}.jpg")
    with pytest.raises(InputError, match="share the file"):
        write_labelme(tmp_path / "d", [one, two], classes=["dog"])

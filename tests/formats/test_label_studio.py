"""Label Studio: brushes, rectangles and choices come back; its own converter decodes the same masks."""

import contextlib
import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rasa.errors import FormatError, InputError
from rasa.formats._brush import brush_to_mask, mask_to_brush
from rasa.formats._json_items import json_items
from rasa.formats.label_studio import read_label_studio, write_label_studio
from rasa.ops.masks import masks_to_boxes
from tests.formats.samples import assert_same, classes_of, datasets, named_samples, sample_of, without_masks

NAMED = named_samples()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Percent of an image of 64 pixels, in float64.
CLOSE = 1e-4


def as_held(sample):
    """The same sample with what the format holds: no kinds, no segmenter's scores, the extents of masks for boxes."""
    result = sample.result
    result = result.with_tags(replace(result.tags, kinds=None))
    found = result.instances
    if found.masks is None or not found.masks.any():
        return without_masks(replace(sample, result=result))
    filled = found.masks.any(axis=(1, 2))
    boxes = np.where(filled[:, None], masks_to_boxes(found.masks), found.boxes)
    return replace(sample, result=result.with_instances(replace(found, boxes=boxes, mask_scores=None)))


def read_task(folder, regions, **data):
    task = {
        "data": {"image": "/data/upload/1/a%20b.jpg", "height": 10, "width": 20, **data},
        "predictions": [{"result": regions}],
    }
    (folder / "tasks.json").write_text(json.dumps([task]))
    return list(read_label_studio(folder))


def rectangle(**value):
    place = {"x": 10, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["dog"], **value}
    return {"type": "rectanglelabels", "value": place, "original_width": 20, "original_height": 10}


def brush(rle, label="dog"):
    return {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": [label]}}


@pytest.mark.parametrize("name", NAMED)
def test_each_sample_comes_back(tmp_path, name):
    sample = NAMED[name]
    report = write_label_studio(tmp_path / "d", [sample], classes=classes_of([sample]))
    read = list(read_label_studio(tmp_path / "d"))
    assert_same(read, [as_held(sample)], boxes=CLOSE)
    assert read[0].id == sample.id
    assert read[0].read_bytes() == sample.read_bytes()
    found, kinds = sample.result.instances, sum(map(bool, sample.result.tags.kinds or ()))
    expected = {
        "scores of masks": 0 if found.mask_scores is None else len(found),
        "kinds of tags": kinds,
        "masks without a pixel": int(name == "empty mask"),
    }
    assert dict(report.lost) == {what: count for what, count in expected.items() if count}


@QUICK
@given(dataset=datasets())
def test_any_masks_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("label_studio") / "d"
    write_label_studio(folder, written, classes=classes)
    assert_same(read_label_studio(folder), [as_held(sample) for sample in written], boxes=CLOSE)


@QUICK
@given(dataset=datasets(masks=False))
def test_any_boxes_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("label_studio") / "d"
    write_label_studio(folder, written, classes=classes)
    assert_same(read_label_studio(folder), [as_held(sample) for sample in written], boxes=CLOSE)


@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_brush_comes_back(mask):
    np.testing.assert_array_equal(brush_to_mask(mask_to_brush(mask), mask.shape), mask)


def test_a_brush_longer_than_one_run_comes_back():
    mask = np.zeros((300, 400), np.bool_)
    mask[100:290] = True
    np.testing.assert_array_equal(brush_to_mask(mask_to_brush(mask), mask.shape), mask)
    assert len(mask_to_brush(mask)) < 60


def test_a_brush_by_hand():
    # 1 x 1 pixel: 4 values (32 bits), 8 - 1 bits each (5), sizes 3, 4, 8, 16 less 1, then one run of 4 times 255.
    bits = f"{4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "1" + "00" + f"{3:03b}" + f"{255:08b}"
    padded = bits + "0" * (-len(bits) % 8)
    expected = [int(padded[i : i + 8], 2) for i in range(0, len(padded), 8)]
    assert mask_to_brush(np.ones((1, 1), np.bool_)) == expected
    assert brush_to_mask(expected, (1, 1)).tolist() == [[True]]


def test_a_brush_of_single_values_is_read():
    # What other encoders write: not one run of 4 values, but 4 values one by one; alpha alone counts.
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{7:03b}"
    bits += "".join(f"{value:08b}" for value in (255, 0, 0, 127, 0, 0, 0, 128))
    padded = bits + "0" * (-len(bits) % 8)
    rle = [int(padded[i : i + 8], 2) for i in range(0, len(padded), 8)]
    assert brush_to_mask(rle, (1, 2)).tolist() == [[False, True]]


@given(data=st.lists(st.integers(0, 255), max_size=60))
def test_any_bytes_are_a_mask_or_an_error(data):
    header = mask_to_brush(np.ones((2, 2), np.bool_))[:6]
    for rle in (data, header + data):
        # Any other error would end the test.
        with contextlib.suppress(FormatError):
            assert brush_to_mask(rle, (2, 2)).shape == (2, 2)


def test_the_configuration_names_every_label_and_tag(tmp_path):
    samples = [NAMED["unicode"], NAMED["overlap"]]
    write_label_studio(tmp_path / "d", samples, classes=classes_of(samples))
    view = ET.parse(tmp_path / "d/config.xml").getroot()
    for tag in ("BrushLabels", "RectangleLabels"):
        assert [label.get("value") for label in view.findall(f"{tag}/Label")] == classes_of(samples)
    assert [choice.get("value") for choice in view.findall("Choices/Choice")] == ["dog", "park", "犬 & cat"]


def test_images_are_where_the_tasks_say(tmp_path):
    write_label_studio(tmp_path / "d", [NAMED["jpeg"]], classes=["dog"], image_url="https://example.org/")
    [task] = json_items(tmp_path / "d/tasks.json")
    path = task["data"]["image"].removeprefix("https://example.org/")
    assert path.startswith("images/val/")
    assert (tmp_path / "d" / path).is_file()


def test_what_people_draw_is_read(tmp_path):
    polygon = {
        "type": "polygonlabels",
        "value": {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["cat"]},
    }
    choices = {"type": "choices", "value": {"choices": ["sunny"]}}
    task = {
        "data": {"image": "/data/local-files/?d=photos/a%20b.jpg"},
        "annotations": [
            {"result": []},
            {"result": [rectangle(), polygon, choices]},
            {"was_cancelled": True, "result": []},
        ],
        "predictions": [{"result": [rectangle(rectanglelabels=["bird"])]}],
    }
    (tmp_path / "tasks.json").write_text(json.dumps([task], indent=2))
    [read] = read_label_studio(tmp_path)
    assert read.file_name == "a b.jpg"
    assert read.result.size == (10, 20)
    assert read.result.instances.labels == ("dog", "cat")
    assert read.result.instances.boxes.tolist() == [[2, 2, 12, 7], [0, 0, 10, 5]]
    assert read.result.instances.masks[1].sum() == 50
    assert read.result.tags.names == ("sunny",)


def test_the_files_are_the_same_bytes_each_time(tmp_path):
    written = list(NAMED.values())
    for name in ("one", "two"):
        write_label_studio(tmp_path / name, written, classes=classes_of(written))
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) == len(written) + 2


def test_items_are_read_in_any_layout(tmp_path):
    path = tmp_path / "list.json"
    items = [{"a": "x" * 200_000, "b": [1, {"c": "]}"}]}, {}, {"d": 1.5}]
    for indent in (None, 2):
        path.write_text(json.dumps(items, indent=indent))
        assert list(json_items(path)) == items
    path.write_text(" [ ] ")
    assert list(json_items(path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list"),
        ("{}", "expected a list"),
        ("[", "item 1 is no JSON"),
        ("[{}", "item 2 is no JSON"),
        ("[{},", "item 2 is no JSON"),
        ("[{} {}]", "item 2: expected an object"),
        ("[{},]", "item 2: expected an object"),
        ("[,{}]", "item 1: expected an object"),
        ("[1]", "item 1: expected an object"),
        ('[{"a": }]', "item 1 is no JSON"),
        ("[" + '{"a":' * 100_000, "is no JSON"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, message):
    path = tmp_path / "tasks.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        list(json_items(path))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (rectangle(rotation=30), "rotated by 30 degrees"),
        (rectangle(x="nan"), "task 1"),
        (rectangle(width=-5), "reversed"),
        (rectangle(rectanglelabels=[]), "task 1 is none of Label Studio"),
        (brush([1, 2, 3]), "needs a header of 53 bits, got 24"),
        (brush([300]), "whole numbers from 0 to 255"),
        (brush("abc"), "whole numbers from 0 to 255"),
        (brush(mask_to_brush(np.ones((3, 3), np.bool_))), "does not fill"),
        (brush(mask_to_brush(np.ones((10, 20), np.bool_))[:7]), "ends in the middle of a run"),
        ({"type": "brushlabels"}, "task 1 is none of Label Studio: KeyError"),
        (5, "task 1 is none of Label Studio"),
    ],
)
def test_a_wrong_region_is_named(tmp_path, region, message):
    with pytest.raises(FormatError, match=message):
        read_task(tmp_path, [region])


def test_a_task_does_not_lead_out_of_the_dataset(tmp_path):
    with pytest.raises(FormatError, match="no path inside"):
        read_task(tmp_path, [], file_name="../../secret.jpg")


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="rename it in the ontology"):
        write_label_studio(tmp_path / "d", [sample_of(None, ["a\x02"], size=(4, 4))], classes=["a\x02"])


# Peers


def peer_masks(folder):
    """Label and mask of every brush, by Label Studio's own converter."""
    brushes = pytest.importorskip(
        "label_studio_converter.brush", reason="label-studio-converter is a peer that runs apart"
    )
    for task in json_items(folder / "tasks.json"):
        for region in task["predictions"][0]["result"]:
            if region["type"] == "brushlabels":
                shape = (region["original_height"], region["original_width"], 4)
                values = brushes.decode_rle(region["value"]["rle"]).reshape(shape)
                yield region["value"]["brushlabels"][0], values


@pytest.mark.filterwarnings("default")
def test_the_converter_decodes_the_same_masks(tmp_path):
    written = [sample for sample in NAMED.values() if sample.result.instances.masks is not None]
    write_label_studio(tmp_path / "d", written, classes=classes_of(written))
    own = [
        (label, mask)
        for sample in written
        for label, mask in zip(sample.result.instances.labels, sample.result.instances.masks, strict=True)
        if mask.any()
    ]
    peer = list(peer_masks(tmp_path / "d"))
    assert len(peer) == len(own) > 300
    for (label, values), (expected, mask) in zip(peer, own, strict=True):
        assert label == expected
        for channel in range(4):
            np.testing.assert_array_equal(values[..., channel], np.where(mask, 255, 0))


@pytest.mark.filterwarnings("default")
def test_masks_of_the_converter_are_read(tmp_path):
    brushes = pytest.importorskip(
        "label_studio_converter.brush", reason="label-studio-converter is a peer that runs apart"
    )
    for name in ("holes", "borders", "diagonal", "parts"):
        for mask in NAMED[name].result.instances.masks:
            rle = brushes.mask2rle(mask.astype(np.uint8) * 255)
            np.testing.assert_array_equal(brush_to_mask(rle, mask.shape), mask)
            # The same bits; it adds a byte where they fill the last one.
            assert mask_to_brush(mask) == rle[: len(mask_to_brush(mask))]

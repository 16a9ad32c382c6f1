"""CVAT for images 1.1: boxes, masks, polygons and tags come back with their scores; datumaro reads the same."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError
from rasa.formats import _xml
from rasa.formats.cvat import crop_to_runs, read_cvat, write_cvat
from rasa.ops.masks import masks_to_boxes
from tests.formats.samples import assert_same, classes_of, datasets, named_samples, sample_of, without_masks

NAMED = named_samples()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IMAGE = '<image id="0" name="a.jpg" width="20" height="10">'


def as_held(sample):
    """The same sample with what the format holds: the extents of masks for boxes."""
    found = sample.result.instances
    if found.masks is None or not found.masks.any():
        return without_masks(sample)
    filled = found.masks.any(axis=(1, 2))
    boxes = np.where(filled[:, None], masks_to_boxes(found.masks), found.boxes)
    return replace(sample, result=sample.result.with_instances(replace(found, boxes=boxes)))


def write_by_hand(folder, text):
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return folder


def annotated(*shapes, image=IMAGE):
    return f"<annotations><version>1.1</version>{image}{''.join(shapes)}</image></annotations>"


def mask(rle="0, 6", *, left=1, top=2, width=3, height=2):
    return f'<mask label="dog" rle="{rle}" left="{left}" top="{top}" width="{width}" height="{height}"/>'


@pytest.mark.parametrize("name", NAMED)
def test_each_sample_comes_back(tmp_path, name):
    sample = NAMED[name]
    report = write_cvat(tmp_path / "d", [sample], classes=classes_of([sample]))
    [read] = read_cvat(tmp_path / "d")
    assert_same([read], [as_held(sample)])
    assert read.read_bytes() == sample.read_bytes()
    assert dict(report.lost) == ({"masks without a pixel": 1} if name == "empty mask" else {})


@QUICK
@given(dataset=datasets())
def test_any_masks_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("cvat") / "d"
    write_cvat(folder, written, classes=classes)
    assert_same(read_cvat(folder), [as_held(sample) for sample in written])


@QUICK
@given(dataset=datasets(masks=False))
def test_any_boxes_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("cvat") / "d"
    write_cvat(folder, written, classes=classes)
    assert_same(read_cvat(folder), written)


def test_boxes_beside_masks_are_counted(tmp_path):
    one = NAMED["one pixel"]
    boxes = one.result.instances.boxes + np.array([[0, 0, 1.5, 0]], np.float32)
    sample = replace(one, result=one.result.with_instances(replace(one.result.instances, boxes=boxes)))
    assert write_cvat(tmp_path / "d", [sample], classes=["dog"]).lost == {
        "boxes that are not the extent of their mask": 1
    }


def test_runs_are_row_by_row_and_begin_with_background():
    assert crop_to_runs(np.array([[0, 1, 1], [1, 0, 0]], np.bool_)) == [1, 3, 2]
    assert crop_to_runs(np.array([[1, 1], [0, 1]], np.bool_)) == [0, 2, 1, 1]


def test_the_table_of_labels_has_classes_and_tags_once(tmp_path):
    samples = [NAMED["tags only"], NAMED["overlap"]]
    write_cvat(tmp_path / "d", samples, classes=["cat", "dog", "unused"])
    root = ET.parse(tmp_path / "d/annotations.xml").getroot()
    assert [name.text for name in root.findall("meta/project/labels/label/name")] == [
        "cat",
        "dog",
        "unused",
        "park",
        "犬 & cat",
    ]
    assert [image.get("id") for image in root.findall("image")] == ["0", "1"]
    assert [task.text for task in root.findall("meta/project/tasks/task/subset")] == ["train"]


def test_what_people_draw_is_read(tmp_path):
    shapes = [
        '<polygon label="dog" points="0.00,0.00;4.00,0.00;4.00,4.00;0.00,4.00" group_id="3"/>',
        '<polygon label="dog" points="10,0;14,0;14,4;10,4" group_id="3"/>',
        '<polygon label="dog" points="2,0;6,0;6,4;2,4" group_id="0"/>',
        '<box label="cat" xtl="1.5" ytl="2" xbr="3" ybr="4"/>',
        mask(),
        '<points label="dog" points="1,1"/>',
        '<tag label="sunny"/>',
    ]
    write_by_hand(tmp_path, '<?xml version="1.0" encoding="utf-8"?>' + annotated(*shapes))
    [read] = read_cvat(tmp_path)
    found = read.result.instances
    assert found.labels == ("dog", "dog", "cat", "dog")
    assert found.boxes.tolist() == [[0, 0, 14, 4], [2, 0, 6, 4], [1.5, 2, 3, 4], [1, 2, 4, 4]]
    assert found.masks.sum(axis=(1, 2)).tolist() == [32, 16, 0, 6]
    assert found.scores.tolist() == [1, 1, 1, 1]
    assert read.result.tags.names == ("sunny",)
    assert read.read_bytes is None


def test_the_files_are_the_same_bytes_each_time(tmp_path):
    written = list(NAMED.values())
    for name in ("one", "two"):
        write_cvat(tmp_path / name, written, classes=classes_of(written))
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) == len(written) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "annotations.xml is no XML"),
        (annotated()[:-3], "annotations.xml is no XML"),
        ("<annotation/>", "the root is <annotation>, expected <annotations>"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + annotated(), "line 1: a DTD"),
        ('<!DOCTYPE x SYSTEM "http://example.org/x.dtd">' + annotated(), "line 1: a DTD"),
        (annotated("&a;"), "undefined entity"),
        (annotated(image='<image name="a.jpg">'), r"image 'a.jpg': the image is stated to have None x None"),
        (annotated(image='<image name="../a.jpg" width="1" height="1">'), "no path inside"),
        (annotated(image='<image name="/etc/passwd" width="1" height="1">'), "no path inside"),
        (annotated(image='<image width="1" height="1">'), "no path inside"),
        (annotated('<box label="dog" xtl="1" ytl="2" xbr="0" ybr="4"/>'), "reversed"),
        (annotated('<box label="dog" xtl="1" ytl="2"/>'), "must be finite"),
        (annotated('<box label="dog" xtl="x" ytl="2" xbr="3" ybr="4"/>'), "image 'a.jpg': could not convert"),
        (annotated('<box xtl="1" ytl="2" xbr="3" ybr="4"/>'), "non-empty strings"),
        (annotated('<polygon label="dog" points="1,2,3"/>'), "image 'a.jpg'"),
        (annotated('<polygon label="dog" points="1,nan;2,3;4,5"/>'), "finite points"),
        (annotated(mask("0, 7")), "run lengths do not fill a mask of 3 x 2"),
        (annotated(mask("7, -1")), "run lengths do not fill"),
        (annotated(mask("99999999999999999999")), "image 'a.jpg'"),
        (annotated(mask(left=19)), "is not inside the image"),
        (annotated(mask(left=-1)), "is not inside the image"),
        (annotated(mask(width=0)), "is not inside the image"),
        (annotated(mask("")), "image 'a.jpg'"),
        (annotated("<a>" * 40 + "</a>" * 40), "more than 32 levels"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        list(read_cvat(write_by_hand(tmp_path, text)))


def test_an_element_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_xml, "MAX_ELEMENT_BYTES", 2**18)
    write_by_hand(tmp_path, f"<annotations>{IMAGE}<a b='{'x' * 2**19}'")
    with pytest.raises(FormatError, match="an element of more than 262144 bytes"):
        list(read_cvat(tmp_path))


def test_a_file_that_is_not_there_and_a_name_that_xml_cannot_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        list(read_cvat(tmp_path))
    with pytest.raises(InputError, match="rename it in the ontology"):
        write_cvat(tmp_path / "d", [sample_of(None, ["a\x0b"], size=(4, 4))], classes=["a\x0b"])
    with pytest.raises(InputError, match="not among the 1 classes"):
        write_cvat(tmp_path / "e", [NAMED["one pixel"]], classes=["cat"])


# Peers


@pytest.mark.filterwarnings("default")
def test_datumaro_reads_the_same(tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed, a peer that runs apart")
    written = list(NAMED.values())
    write_cvat(tmp_path / "d", written, classes=classes_of(written))
    dataset = datumaro.Dataset.import_from(str(tmp_path / "d"), "cvat")
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    kinds, seen = datumaro.AnnotationType, 0
    own = {Path(sample.file_name).stem: sample.result for sample in written}
    for item in dataset:
        found, tags = own[item.id].instances, own[item.id].tags
        shapes = [a for a in item.annotations if a.type in {kinds.mask, kinds.bbox}]
        assert [labels[a.label] for a in shapes] == list(found.labels)
        assert [labels[a.label] for a in item.annotations if a.type == kinds.label] == list(tags.names)
        for i, shape in enumerate(shapes):
            assert float(shape.attributes["score"]) == found.scores[i]
            if shape.type == kinds.mask:
                np.testing.assert_array_equal(shape.image.astype(bool), found.masks[i])
            else:
                np.testing.assert_allclose(shape.points, found.boxes[i], atol=0.01)
        seen += 1
    assert seen == len(written)

"""Pascal VOC: boxes, scores and masks come back; maps as VOC draws them; supervision and datumaro read the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError
from rasa.formats.voc import read_voc, write_voc
from rasa.ops.label_maps import label_map
from tests.formats.samples import assert_same, classes_of, datasets, image_bytes, named_samples, sample_of

NAMED = named_samples()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox>"


def visible(sample):
    """The same sample with every pixel of one mask only, as a label map holds it."""
    found = sample.result.instances
    if found.masks is None:
        return sample
    numbers = label_map(found.masks, scores=found.mask_scores)
    instances = replace(found, masks=numbers == np.arange(1, len(found) + 1)[:, None, None])
    return replace(sample, result=sample.result.with_instances(instances))


def write_by_hand(folder, text, *, stem="a"):
    (folder / "Annotations").mkdir(parents=True)
    (folder / "Annotations" / f"{stem}.xml").write_text(text)
    return folder


@pytest.mark.parametrize("name", NAMED)
def test_each_sample_comes_back(tmp_path, name):
    sample = NAMED[name]
    report = write_voc(tmp_path / "d", [sample], classes=classes_of([sample]), whole_pixels=False)
    assert_same(read_voc(tmp_path / "d"), [visible(sample)], tags=False)
    found = sample.result.instances
    shown = visible(sample).result.instances.masks
    hidden = 0 if found.masks is None else int(found.masks.sum() - shown.sum())
    gone = 0 if found.masks is None else int((found.masks.any(axis=(1, 2)) & ~shown.any(axis=(1, 2))).sum())
    expected = {
        "tags of images": len(sample.result.tags),
        "pixels of masks hidden by others": hidden,
        "objects hidden by others": gone,
    }
    lost = {what: count for what, count in report.lost.items() if "labelmap" not in what}
    assert lost == {what: count for what, count in expected.items() if count}
    assert report.objects == len(found)


@QUICK
@given(dataset=datasets())
def test_any_samples_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("voc") / "d"
    write_voc(folder, written, classes=classes, whole_pixels=False)
    assert_same(read_voc(folder), [visible(sample) for sample in written], tags=False)


@QUICK
@given(dataset=datasets(masks=False))
def test_any_boxes_come_back_to_the_pixel(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("voc") / "d"
    write_voc(folder, written, classes=classes)
    # Half a pixel; a side of less than a pixel is moved by up to 1.5.
    assert_same(read_voc(folder), written, boxes=1.5, tags=False)
    for sample in read_voc(folder):
        boxes, (height, width) = sample.result.instances.boxes, sample.result.size
        assert (boxes == boxes.round()).all()
        assert ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= (width, height)) & (boxes[:, :2] >= 0)).all()


def test_coordinates_count_from_one(tmp_path):
    sample = sample_of(None, ["dog"], size=(10, 20), boxes=np.array([[0, 2, 20, 3]], np.float32))
    write_voc(tmp_path / "d", [sample], classes=["dog"])
    [path] = (tmp_path / "d/Annotations").iterdir()
    assert "<xmin>1</xmin><ymin>3</ymin><xmax>20</xmax><ymax>3</ymax>" in path.read_text()


def test_label_maps_are_those_of_voc(tmp_path):
    masks = np.zeros((2, 10, 20), np.bool_)
    masks[0, :4] = masks[1, 6:] = True
    write_voc(tmp_path / "d", [sample_of(masks, ["dog", "cat"])], classes=["cat", "dog"])
    [classes] = (tmp_path / "d/SegmentationClass").iterdir()
    [objects] = (tmp_path / "d/SegmentationObject").iterdir()
    with PIL.Image.open(classes) as image:
        assert image.mode == "P"
        # The first colours of the development kit.
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert np.unique(np.asarray(image)).tolist() == [0, 1, 2]
        assert np.asarray(image)[0, 0] == 2
    with PIL.Image.open(objects) as image:
        assert np.asarray(image)[0, 0] == 1
        assert np.asarray(image)[5, 0] == 0
        assert np.asarray(image)[9, 0] == 2
    assert (tmp_path / "d/labelmap.txt").read_text().splitlines()[1:] == [
        "background:0,0,0::",
        "cat:128,0,0::",
        "dog:0,128,0::",
    ]


def test_void_is_background(tmp_path):
    folder = write_by_hand(
        tmp_path, f"<annotation><filename>a.jpg</filename>{SIZE}<object><name>dog</name>{BOX}</object></annotation>"
    )
    values = np.zeros((10, 20), np.uint8)
    values[2:5, 2:5], values[5, 2:5] = 1, 255
    (folder / "SegmentationObject").mkdir()
    image = PIL.Image.fromarray(values)
    image.putpalette([0] * 768)
    image.save(folder / "SegmentationObject/a.png")
    [read] = read_voc(folder)
    assert read.result.instances.masks.sum() == 9
    assert read.result.instances.boxes.tolist() == [[0, 0, 5, 4]]
    assert read.result.instances.scores.tolist() == [1]


def test_the_files_are_the_same_bytes_each_time(tmp_path):
    written = list(NAMED.values())
    for name in ("one", "two"):
        write_voc(tmp_path / name, written, classes=classes_of(written))
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) > 3 * len(written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"<annotation>{SIZE}", r"a\.xml is no XML"),
        ("", r"a\.xml is no XML"),
        ("<html></html>", "the root is <html>, expected <annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "line 1: a DTD"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "line 1: a DTD"),
        ("<annotation>&b;</annotation>", "undefined entity"),
        ("<annotation></annotation>", "stated to have None x None pixels"),
        (f"<annotation>{SIZE.replace('20', '-5')}</annotation>", "stated to have 10 x -5 pixels"),
        (f"<annotation>{SIZE.replace('20', '9' * 9)}</annotation>", "stated to have 10 x 999999999 pixels"),
        (f"<annotation>{SIZE}<filename>../../a.jpg</filename></annotation>", "no path inside"),
        (f"<annotation>{SIZE}<object><name>dog</name></object></annotation>", "object 1: bndbox needs"),
        (f"<annotation>{SIZE}<object>{BOX}</object></annotation>", "non-empty strings"),
        (f"<annotation>{SIZE}<object><name>dog</name>{BOX.replace('>5<', '>-5<')}</object></annotation>", "reversed"),
        (f"<annotation>{'<a>' * 40}{'</a>' * 40}</annotation>", "more than 32 levels"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        list(read_voc(write_by_hand(tmp_path, text)))


def test_a_list_does_not_lead_out_of_the_dataset(tmp_path):
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("../../secret\n")
    with pytest.raises(FormatError, match="no path inside"):
        list(read_voc(tmp_path))


def test_a_map_of_another_size_and_a_broken_one_are_refused(tmp_path):
    folder = write_by_hand(tmp_path, f"<annotation>{SIZE}<object><name>dog</name>{BOX}</object></annotation>")
    (folder / "SegmentationObject").mkdir()
    path = folder / "SegmentationObject/a.png"
    PIL.Image.new("L", (9, 9)).save(path)
    with pytest.raises(FormatError, match=r"has \(9, 9\) pixels, and its image \(10, 20\)"):
        list(read_voc(folder))
    path.write_bytes(image_bytes(10, 20)[:60])
    with pytest.raises(FormatError, match="is no label map"):
        list(read_voc(folder))


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path):
    sample = sample_of(None, ["a\x01b"], size=(10, 20))
    with pytest.raises(InputError, match=r"which XML cannot hold; rename it in the ontology"):
        write_voc(tmp_path / "d", [sample], classes=["a\x01b"])


def test_two_images_that_share_an_annotation_are_refused(tmp_path):
    one = NAMED["one pixel"]
    two = replace(one, file_name=f"{Path(one.file_name).stem}.jpg")
    with pytest.raises(InputError, match="share the annotation"):
        write_voc(tmp_path / "d", [one, two], classes=["dog"])


# Peers


@pytest.mark.filterwarnings("default")
def test_supervision_reads_the_same_boxes(tmp_path):
    supervision = pytest.importorskip("supervision")
    written = [sample for sample in NAMED.values() if len(sample.result.instances)]
    write_voc(tmp_path / "d", written, classes=classes_of(written))
    read = supervision.DetectionDataset.from_pascal_voc(str(tmp_path / "d/JPEGImages"), str(tmp_path / "d/Annotations"))
    own = {sample.file_name: sample.result.instances for sample in read_voc(tmp_path / "d")}
    assert len(read) == len(written)
    for path, _, found in read:
        expected = own[Path(path).name]
        np.testing.assert_array_equal(found.xyxy, expected.boxes)
        assert [read.classes[i] for i in found.class_id] == list(expected.labels)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["voc_detection", "voc_instance_segmentation"])
def test_datumaro_reads_the_same(tmp_path, kind):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed, a peer that runs apart")
    # Its label map has no way to write some names, and it reads values as uint8.
    plain = [n for n in NAMED if n not in {"unicode", "boxes only", "tags only", "300 classes"}]
    written = [visible(NAMED[name]) for name in plain]
    classes = classes_of(written)
    write_voc(tmp_path / "d", written, classes=classes)
    own = {Path(sample.file_name).stem: sample for sample in read_voc(tmp_path / "d")}
    seen = 0
    dataset = datumaro.Dataset.import_from(str(tmp_path / "d"), kind)
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    for item in dataset:
        sample = own[item.id]
        found = sample.result.instances
        assert item.subset == sample.split
        seen += 1
        if kind == "voc_detection":
            boxes = [a for a in item.annotations if a.type == datumaro.AnnotationType.bbox]
            assert [labels[a.label] for a in boxes] == list(found.labels)
            # It takes the first pixel as the coordinate, and the width for the difference.
            expected = found.boxes + np.array([1, 1, 0, 0])
            np.testing.assert_allclose(np.array([a.points for a in boxes]).reshape(-1, 4), expected)
        else:
            masks = [a for a in item.annotations if a.type == datumaro.AnnotationType.mask]
            filled = [i for i in range(len(found)) if found.masks[i].any()]
            assert len(masks) == len(filled)
            stack = sorted((labels[a.label], a.image.astype(bool).tobytes()) for a in masks)
            assert stack == sorted((found.labels[i], found.masks[i].tobytes()) for i in filled)
    assert seen == len(written)

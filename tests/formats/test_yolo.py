"""YOLO: boxes and segments come back; a segment of several parts and holes is one line; ultralytics reads the same."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError, OutputError
from rasa.formats._yolo_yaml import read_data_yaml
from rasa.formats.yolo import read_yolo, write_yolo_detect, write_yolo_segment
from rasa.ops.polygons import mask_to_polygons
from tests.formats.samples import assert_same, classes_of, datasets, disc, image_bytes, named_samples, sample_of

NAMED = named_samples()
# Pixels: shares have nine decimals.
CLOSE = 1e-4
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def has_masks(sample):
    masks = sample.result.instances.masks
    return masks is not None and bool(masks.any(axis=(1, 2)).all())


def write_by_hand(folder, lines, *, names="[dog]", size=(10, 20)):
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True)
    (folder / "images/train/a.png").write_bytes(image_bytes(*size))
    (folder / "labels/train/a.txt").write_text(lines)
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/train\nnames: {names}\n")
    return folder


@pytest.mark.parametrize("name", NAMED)
def test_boxes_come_back(tmp_path, name):
    sample = NAMED[name]
    report = write_yolo_detect(tmp_path / "d", [sample], classes=classes_of([sample]))
    assert_same(
        read_yolo(tmp_path / "d"), [sample], boxes=CLOSE, masks=False, scores=False, mask_scores=False, tags=False
    )
    assert report.objects == len(sample.result.instances)
    assert report.lost["scores of objects"] == len(sample.result.instances)
    assert report.lost["tags of images"] == len(sample.result.tags)


@pytest.mark.parametrize("name", [name for name in NAMED if has_masks(NAMED[name])])
def test_masks_come_back_whole(tmp_path, name):
    sample = NAMED[name]
    report = write_yolo_segment(tmp_path / "d", [sample], classes=classes_of([sample]))
    assert_same(read_yolo(tmp_path / "d"), [sample], scores=False, mask_scores=False, tags=False)
    lines = (tmp_path / "d/labels" / sample.split / f"{Path(sample.file_name).stem}.txt").read_text().splitlines()
    assert len(lines) == len(sample.result.instances) == report.objects
    assert report.worst_iou is None or report.worst_iou[0] == 1


@QUICK
@given(dataset=datasets())
def test_any_boxes_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("yolo") / "d"
    write_yolo_detect(folder, written, classes=classes)
    assert_same(read_yolo(folder), written, boxes=CLOSE, masks=False, scores=False, mask_scores=False, tags=False)


@QUICK
@given(dataset=datasets())
def test_any_masks_come_back(tmp_path_factory, dataset):
    classes, written = dataset
    folder = tmp_path_factory.mktemp("yolo") / "d"
    report = write_yolo_segment(folder, written, classes=classes)
    read = {sample.file_name: sample.result.instances for sample in read_yolo(folder)}
    empty = 0
    for sample in written:
        found = sample.result.instances
        filled = found.masks.any(axis=(1, 2))
        empty += int((~filled).sum())
        kept = found.take(filled)
        assert read[sample.file_name].labels == kept.labels
        if len(kept):
            np.testing.assert_array_equal(read[sample.file_name].masks, kept.masks)
    assert report.lost["objects whose mask has no pixel"] == empty


def test_boxes_without_masks_become_rectangles_and_are_counted(tmp_path):
    sample = NAMED["boxes only"]
    report = write_yolo_segment(tmp_path / "d", [sample], classes=["dog", "cat"])
    assert report.lost["boxes without a mask, written as rectangles"] == 3
    [line, *_] = (tmp_path / "d/labels/train" / f"{Path(sample.file_name).stem}.txt").read_text().splitlines()
    assert len(line.split()) == 9


def test_a_box_outside_of_the_image_is_cut_and_counted(tmp_path):
    sample = sample_of(None, ["dog"], size=(10, 20), boxes=np.array([[-5, 2, 30, 8]], np.float32))
    report = write_yolo_detect(tmp_path / "d", [sample], classes=["dog"])
    assert report.lost["parts of boxes outside of the image"] == 1
    [read] = read_yolo(tmp_path / "d")
    np.testing.assert_allclose(read.result.instances.boxes, [[0, 2, 20, 8]], atol=CLOSE)


def test_background_has_an_empty_label_file(tmp_path):
    sample = NAMED["no objects"]
    write_yolo_segment(tmp_path / "d", [sample], classes=["dog"])
    [label] = (tmp_path / "d/labels/train").iterdir()
    assert label.read_bytes() == b""
    assert len(next(read_yolo(tmp_path / "d")).result.instances) == 0


def test_the_files_are_the_same_bytes_each_time(tmp_path):
    written = list(NAMED.values())
    for name in ("one", "two"):
        write_yolo_segment(tmp_path / name, written, classes=classes_of(written))
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) == 2 * len(written) + 1


def test_any_class_name_is_kept(tmp_path):
    pytest.importorskip("yaml")
    names = ["no", "12", "a: b # c", '"quoted"', "back\\slash", "犬", "🐕", "line\nbreak", "x\u0085y\u2028", " - x"]
    write_yolo_detect(tmp_path / "d", [], classes=names)
    assert list(read_data_yaml(tmp_path / "d/data.yaml")[1].values()) == names


def test_an_image_that_exif_turns_is_read_upright(tmp_path):
    folder = write_by_hand(tmp_path, "0 0.25 0.5 0.5 1\n")
    file, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (20, 10)).save(file, "JPEG", exif=exif)
    (folder / "images/train/a.png").unlink()
    (folder / "images/train/a.jpg").write_bytes(file.getvalue())
    [read] = read_yolo(folder)
    assert read.result.size == (20, 10)
    np.testing.assert_allclose(read.result.instances.boxes, [[0, 0, 5, 20]])


def test_a_dataset_of_roboflow_layout_is_read(tmp_path):
    for name in ("train/images", "train/labels"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "train/images/a.png").write_bytes(image_bytes(10, 20))
    (tmp_path / "train/labels/a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['dog']\n")
    [read] = read_yolo(tmp_path)
    assert read.result.instances.labels == ("dog",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1 0.5 0.5 1 1\n", r"a\.txt, line 1: class 1 is not among the 1 names"),
        ("0 0.5 0.5 1 1\n0 0.5 0.5 1\n", r"line 2: expected 4 numbers of a box or at least 3 corners, got 3"),
        ("dog 0.5 0.5 1 1\n", "line 1: expected a class id and numbers"),
        ("0 0.5 nan 1 1\n", "line 1: coordinates must be shares"),
        ("0 12 30 40 50\n", "line 1: coordinates must be shares"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n", "got 7 numbers"),
        ("0\n", "got 0 numbers"),
        ("0 0.5 0.5 -0.001 0.5\n", "line 1: width and height must not be negative"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, message):
    with pytest.raises(FormatError, match=message):
        list(read_yolo(write_by_hand(tmp_path, lines)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: /etc/images\nnames: [dog]\n", "no path inside"),
        ("train: ../../images\nnames: [dog]\n", "no path inside"),
        ("train: photos\nnames: [dog]\n", "has no folder called images"),
        ("train: 5\nnames: [dog]\n", "train must be a folder"),
        ("names: 5\n", "names must be a list"),
        ("names: [[a], b]\n", "names must be a list"),
        ("names: {a: b}\n", "names must be a list"),
        ("[1, 2\n", "is no YAML"),
        ("- dog\n", "expected train, val and names"),
        ("!!python/object/apply:os.system ['true']\n", "is no YAML"),
    ],
)
def test_a_wrong_yaml_is_named(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=message):
        list(read_yolo(tmp_path))


def test_labels_without_their_image_are_refused(tmp_path):
    folder = write_by_hand(tmp_path, "0 0.5 0.5 1 1\n")
    (folder / "images/train/a.png").unlink()
    with pytest.raises(FormatError, match=r"a\.txt: there is no image of that name"):
        list(read_yolo(folder))


def test_a_label_outside_of_the_classes_and_a_full_folder_are_refused(tmp_path):
    sample = NAMED["one pixel"]
    with pytest.raises(InputError, match="'dog', which is not among the 1 classes"):
        write_yolo_segment(tmp_path / "d", [sample], classes=["cat"])
    assert not (tmp_path / "d").exists()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/file").touch()
    with pytest.raises(OutputError, match="is not empty"):
        write_yolo_detect(tmp_path / "x", [sample], classes=["dog"])


def test_two_images_that_share_a_label_file_are_refused(tmp_path):
    one = NAMED["one pixel"]
    from dataclasses import replace

    two = replace(one, file_name=f"{Path(one.file_name).stem}.jpg")
    with pytest.raises(InputError, match="share the label file"):
        write_yolo_detect(tmp_path / "d", [one, two], classes=["dog"])


# Peers


@pytest.fixture
def yolo_dataset(tmp_path, monkeypatch):
    """Ultralytics' own reader (AGPL: only where somebody installed it beside the tests)."""
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    data = pytest.importorskip("ultralytics.data", reason="ultralytics is not installed, a peer that runs apart")
    from ultralytics.data.utils import check_det_dataset

    def read(folder, task):
        info = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
        options = {"imgsz": 64, "augment": False, "task": task, "data": info}
        return [
            data.YOLODataset(img_path=info[split], **options) for split in ("train", "val", "test") if info.get(split)
        ]

    return read


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_ultralytics_reads_the_same(tmp_path, yolo_dataset, task):
    from ultralytics.data.utils import polygons2masks

    # It refuses images of less than 10 pixels a side, and removes an object with the box and class of another.
    refused = {"image of one pixel"} | ({"borders"} if task == "detect" else set())
    written = [s for name, s in NAMED.items() if (has_masks(s) or task == "detect") and name not in refused]
    classes, by_name = classes_of(written), {sample.file_name: sample for sample in written}
    {"detect": write_yolo_detect, "segment": write_yolo_segment}[task](tmp_path / "d", written, classes=classes)
    ious, seen = [], set()
    for dataset in yolo_dataset(tmp_path / "d", task):
        for label in dataset.labels:
            sample = by_name[Path(label["im_file"]).name]
            found = sample.result.instances
            seen.add(sample.file_name)
            assert tuple(label["shape"]) == sample.result.size
            assert [classes[int(number)] for number in label["cls"].ravel()] == list(found.labels)
            height, width = sample.result.size
            wide = label["bboxes"] * [width, height, width, height]
            corners = np.concatenate([wide[:, :2] - wide[:, 2:] / 2, wide[:, :2] + wide[:, 2:] / 2], axis=1)
            np.testing.assert_allclose(corners, found.boxes, atol=0.02)
            if task == "segment" and len(found):
                lines = [segment * [width, height] for segment in label["segments"]]
                for mask, own in zip(polygons2masks((height, width), lines, color=1) > 0, found.masks, strict=True):
                    parts = mask_to_polygons(own)
                    ious.append((mask & own).sum() / (mask | own).sum())
                    # Only the bridges between parts are painted in addition, one pixel wide.
                    assert mask[own].all()
                    assert ious[-1] == 1 or sum(1 + len(part.holes) for part in parts) > 1
    assert seen == set(by_name)
    assert len(ious) > 300 or task == "detect"


def test_opencv_fills_the_line_of_a_plain_object_exactly(tmp_path):
    cv2 = pytest.importorskip("cv2")
    ring = disc((48, 64), (24, 30), 18)
    sample = sample_of([ring], ["dog"])
    write_yolo_segment(tmp_path / "d", [sample], classes=["dog"])
    [label] = (tmp_path / "d/labels/train").iterdir()
    values = np.array(label.read_text().split()[1:], np.float32).reshape(-1, 2) * np.array([64, 48], np.float32)
    filled = cv2.fillPoly(np.zeros((48, 64), np.uint8), [values.astype(np.int32)], 1)
    np.testing.assert_array_equal(filled > 0, ring)


@pytest.mark.filterwarnings("default")
def test_datumaro_reads_the_same_boxes(tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed, a peer that runs apart")
    written = list(NAMED.values())
    classes = classes_of(written)
    write_yolo_detect(tmp_path / "d", written, classes=classes)
    own = {Path(sample.file_name).stem: sample for sample in written}
    dataset = datumaro.Dataset.import_from(str(tmp_path / "d"), "yolo")
    assert [label.name for label in dataset.categories()[datumaro.AnnotationType.label]] == classes
    assert {item.id for item in dataset} == set(own)
    for item in dataset:
        found = own[item.id].result.instances
        assert item.subset == own[item.id].split
        assert [classes[shape.label] for shape in item.annotations] == list(found.labels)
        # It rounds to hundredths of a pixel.
        read = np.array([shape.points for shape in item.annotations]).reshape(-1, 4)
        np.testing.assert_allclose(read, found.boxes, atol=0.02)

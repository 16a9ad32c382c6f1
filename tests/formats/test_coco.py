"""COCO files against pycocotools and supervision, and what others write."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rasa.errors import FormatError, InputError, OutputError
from rasa.formats.coco import read_coco, write_coco
from rasa.formats.samples import Sample
from rasa.ops.polygons import fill_rings
from rasa.types import Failure, Instances, Result
from tests.formats import samples as given_samples
from tests.formats.samples import assert_same, classes_of, datasets, disc, named_samples, sample_of

NAMED = named_samples()
# pycocotools 2.0.11 decodes through an __array__ without NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def write(folder, samples, **options):
    return write_coco(folder, samples, classes=options.pop("classes", classes_of(samples) or ["dog"]), **options)


def one(folder, split="train"):
    return folder / "annotations" / f"instances_{split}.json"


def document(folder, split="train"):
    return json.loads(one(folder, split).read_text(encoding="utf-8"))


# Round trips


@pytest.mark.parametrize("name", NAMED)
def test_run_lengths_keep_everything(tmp_path, name):
    report = write(tmp_path / "d", [NAMED[name]])
    read = list(read_coco(tmp_path / "d"))
    assert_same(read, [NAMED[name]])
    assert read[0].id == NAMED[name].id
    assert read[0].read_bytes() == NAMED[name].read_bytes()
    assert (report.images, report.objects, report.lost, report.worst_iou) == (
        1, len(NAMED[name].result.instances), {}, None)  # fmt: skip


@given(datasets())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_dataset_comes_back(tmp_path_factory, dataset):
    classes, samples = dataset
    folder = tmp_path_factory.mktemp("coco") / "d"
    write(folder, samples, classes=classes)
    assert_same(list(read_coco(folder)), samples)


@given(datasets(masks=False))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_boxes_come_back_to_the_last_bit(tmp_path_factory, dataset):
    classes, samples = dataset
    folder = tmp_path_factory.mktemp("coco") / "d"
    write(folder, samples, classes=classes)
    assert_same(list(read_coco(folder)), samples)


@given(datasets())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_polygons_lose_holes_and_say_so(tmp_path_factory, dataset):
    classes, samples = dataset
    folder = tmp_path_factory.mktemp("coco") / "d"
    report = write(folder, samples, classes=classes, masks="polygons")
    read = {sample.file_name: sample for sample in read_coco(folder)}
    assert_same(read.values(), samples, masks=False, mask_scores=False)
    ious = [1.0]
    for sample in samples:
        masks, back = sample.result.instances.masks, read[sample.file_name].result.instances.masks
        for i, mask in enumerate(masks):
            kept = np.zeros_like(mask) if back is None else back[i]
            assert not (mask & ~kept).any()
            ious.append((mask & kept).sum() / kept.sum() if mask.any() else 1.0)
    if any(len(sample.result.instances) for sample in samples):
        assert report.worst_iou[0] == pytest.approx(min(ious))
    assert (report.lost["holes of masks"] > 0) == (min(ious) < 1)


def test_the_worst_polygon_is_named(tmp_path):
    samples = [NAMED["parts"], NAMED["holes"]]
    report = write(tmp_path / "d", samples, masks="polygons")
    mask = NAMED["holes"].result.instances.masks[0]
    filled = disc(mask.shape, (24, 30), 18)
    expected = mask.sum() / filled.sum()
    assert report.worst_iou == (pytest.approx(expected), NAMED["holes"].result.name, "dog")
    assert report.lost == {"holes of masks": 1}


# Peers


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_pycocotools_decodes_and_scores_itself_perfect(tmp_path, form):
    left_out = {"empty mask", "boxes only", "tags only"}
    samples = [sample for name, sample in NAMED.items() if name not in left_out and sample.split == "train"]
    write(tmp_path / "d", samples, masks=form)
    truth = COCO(str(one(tmp_path / "d")))
    masks = {(s.file_name, i): m for s in samples for i, m in enumerate(s.result.instances.masks)}
    for image in truth.loadImgs(truth.getImgIds()):
        for i, entry in enumerate(truth.loadAnns(truth.getAnnIds(imgIds=image["id"]))):
            mask = masks[image["file_name"], i]
            decoded = truth.annToMask(entry).astype(bool)
            assert entry["area"] == mask.sum()
            assert entry["iscrowd"] == 0
            if form == "rle":
                np.testing.assert_array_equal(decoded, mask)
            else:
                rings = [np.reshape(ring, (-1, 2)) for ring in entry["segmentation"]]
                np.testing.assert_array_equal(decoded, np.any([fill_rings([r], mask.shape) for r in rings], axis=0))
    found = truth.loadRes([dict(entry) for entry in truth.loadAnns(truth.getAnnIds())])
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.maxDets = [1, 10, 400]
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0, -1]
        assert precision[precision > -1].mean() == 1.0


def test_supervision_reads_boxes_masks_and_classes(tmp_path):
    supervision = pytest.importorskip("supervision")
    samples = [NAMED[name] for name in ("overlap", "parts", "one pixel", "jpeg")]
    write(tmp_path / "d", [s for s in samples if s.split == "train"], classes=["cat", "dog"])
    path = tmp_path / "d"
    read = supervision.DetectionDataset.from_coco(str(path / "images"), str(one(path)), force_masks=True)
    assert read.classes == ["cat", "dog"]
    for sample in samples[:3]:
        detections = read.annotations[str(path / "images" / sample.file_name)]
        found = sample.result.instances
        np.testing.assert_array_equal(detections.mask, found.masks)
        np.testing.assert_allclose(detections.xyxy, found.boxes)
        assert [read.classes[i] for i in detections.class_id] == list(found.labels)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_datumaro_reads_the_same(tmp_path, form):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed, a peer that runs apart")
    samples = [sample for name, sample in NAMED.items() if name not in {"empty mask", "boxes only", "tags only"}]
    write(tmp_path / "d", samples, masks=form)
    dataset = datumaro.Dataset.import_from(str(tmp_path / "d"), "coco_instances")
    names = [entry.name for entry in dataset.categories()[datumaro.AnnotationType.label]]
    items = {(item.id, item.subset): item for item in dataset}
    assert len(items) == len(samples)
    for sample in samples:
        found = sample.result.instances
        kind = datumaro.AnnotationType.mask if form == "rle" else datumaro.AnnotationType.polygon
        read = [a for a in items[sample.file_name.rpartition(".")[0], sample.split].annotations if a.type == kind]
        assert len({annotation.group for annotation in read}) == len(found)
        if form == "rle":
            key = {(names[a.label], a.image.astype(bool).tobytes(), np.float32(a.attributes["score"])) for a in read}
            rows = zip(found.labels, found.masks, found.scores, strict=True)
            assert key == {(label, mask.tobytes(), score) for label, mask, score in rows}


# What is written


def test_the_fields_of_the_format(tmp_path):
    write(tmp_path / "d", [NAMED["overlap"], NAMED["jpeg"], NAMED["test split"]], classes=["cat", "dog", "犬"])
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["annotations", "images"]
    names = [f"instances_{split}.json" for split in ("test", "train", "val")]
    assert sorted(path.name for path in (tmp_path / "d" / "annotations").iterdir()) == names
    train, val = document(tmp_path / "d"), document(tmp_path / "d", "val")
    assert [(c["id"], c["name"]) for c in train["categories"]] == [(1, "cat"), (2, "dog"), (3, "犬")]
    assert [entry["category_id"] for entry in train["annotations"]] == [2, 1]
    assert [entry["id"] for entry in train["annotations"] + val["annotations"]] == [1, 2, 3]
    assert (train["images"][0]["id"], val["images"][0]["id"]) == (1, 2)
    x, y, width, height = train["annotations"][0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], NAMED["overlap"].result.instances.boxes[0])
    assert train["images"][0]["tags"][1] == {"name": "park", "score": 0.5, "kind": "scene"}
    assert train["info"]["tags"] == {"dog": 1, "park": 1, "犬 & cat": 1}
    assert train["annotations"][0]["score"] == float(NAMED["overlap"].result.instances.scores[0])


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_the_same_bytes_every_time(tmp_path, form):
    for name in ("one", "two"):
        write(tmp_path / name, list(NAMED.values()), masks=form)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == len(NAMED) + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_nothing_makes_an_empty_data_set(tmp_path):
    write(tmp_path / "d", [])
    assert document(tmp_path / "d")["images"] == []
    assert list(read_coco(tmp_path / "d")) == []
    assert COCO(str(one(tmp_path / "d"))).getImgIds() == []


def test_failed_images_and_missing_files_are_counted(tmp_path):
    failed = Sample("", "x.png", Result("x.png", (0, 0), failure=Failure("decode", "ImageError", "broken")))
    bare = Sample("", "y.png", Result("y.png", (3, 4)))
    report = write(tmp_path / "d", [failed, bare])
    assert report.images == 1
    assert report.lost == {"images that failed": 1, "image files that were not given": 1}
    (read,) = read_coco(tmp_path / "d")
    assert (read.file_name, read.read_bytes) == ("y.png", None)


def test_a_label_that_is_no_class(tmp_path):
    with pytest.raises(InputError, match="'dog', which is not among the 1 classes"):
        write(tmp_path / "d", [NAMED["parts"]], classes=["cat"])
    assert list(tmp_path.iterdir()) == []


def test_two_images_of_one_name(tmp_path):
    with pytest.raises(InputError, match="two images are called"):
        write(tmp_path / "d", [NAMED["parts"], NAMED["parts"]])


def test_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="is not empty"):
        write(tmp_path, [NAMED["parts"]])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_form_of_masks(tmp_path):
    with pytest.raises(InputError, match="masks must be one of rle, polygons, got 'rel'"):
        write(tmp_path / "d", [], masks="rel")


# What others write


def others(tmp_path, **changes):
    """A small file as other tools write it: ids of any kind, run lengths as text and numbers, few optional fields."""
    mask = disc((20, 30), (9, 12), 6)
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat, counts, last = mask.ravel(order="F"), [0], False
    for value in flat.tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    data = {
        "images": [{"id": "a", "file_name": "sub/a.png", "height": 20, "width": 30}],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [
            {"image_id": "a", "category_id": 7, "segmentation": {"size": [20, 30], "counts": compressed}},
            {"image_id": "a", "category_id": 7, "segmentation": {"size": [20, 30], "counts": counts}, "iscrowd": 1},
            {"image_id": "a", "category_id": 7, "segmentation": [[2, 3, 12, 3, 12, 9, 2, 9]], "bbox": [2, 3, 10, 6]},
            {"image_id": "a", "category_id": 7, "bbox": [1, 2, 3, 4]},
        ],
    }
    data |= changes
    (tmp_path / "annotations").mkdir(exist_ok=True)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return mask


def test_files_of_others(tmp_path):
    mask = others(tmp_path)
    (tmp_path / "val2017" / "sub").mkdir(parents=True)
    (tmp_path / "val2017" / "sub" / "a.png").write_bytes(given_samples.image_bytes(20, 30))
    (sample,) = read_coco(tmp_path)
    found = sample.result.instances
    assert (sample.split, sample.file_name, sample.id) == ("val", "sub__a.png", "")
    assert sample.read_bytes() == given_samples.image_bytes(20, 30)
    np.testing.assert_array_equal(found.masks[0], mask)
    np.testing.assert_array_equal(found.masks[1], mask)
    assert found.masks[2].sum() == 60
    assert found.masks[2][3:9, 2:12].all()
    assert not found.masks[3].any()
    np.testing.assert_array_equal(found.boxes, [[6, 3, 19, 16], [6, 3, 19, 16], [2, 3, 12, 9], [1, 2, 4, 6]])
    assert found.scores.tolist() == [1, 1, 1, 1]
    assert [s.file_name for s in read_coco(tmp_path / "annotations" / "instances_val2017.json")] == ["sub__a.png"]


def test_a_size_that_is_not_stated_is_read_from_the_image(tmp_path):
    others(tmp_path, images=[{"id": "a", "file_name": "a.png"}])
    with pytest.raises(FormatError, match="no height and width, and no file"):
        list(read_coco(tmp_path))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(given_samples.image_bytes(20, 30))
    (sample,) = read_coco(tmp_path)
    assert sample.result.size == (20, 30)


BAD = {
    "no list": ({"images": {}}, "'images' is no list of objects"),
    "no annotations": ({"annotations": None}, "'annotations' is no list"),
    "path out": ({"images": [{"id": "a", "file_name": "../a.png", "height": 20, "width": 30}]}, "no path inside"),
    "absolute": ({"images": [{"id": "a", "file_name": "/etc/passwd", "height": 20, "width": 30}]}, "no path inside"),
    "no name": ({"images": [{"id": "a", "height": 20, "width": 30}]}, "file_name is None"),
    "huge": ({"images": [{"id": "a", "file_name": "a.png", "height": 10**9, "width": 10**9}]}, "is stated to have"),
    "twice": ({"images": [{"id": "a", "file_name": "a.png", "height": 20, "width": 30}] * 2}, "stands twice"),
    "list as id": ({"images": [{"id": [], "file_name": "a.png"}]}, r"id \[\], expected a number"),
    "category": ({"categories": [{"id": 7, "name": ""}]}, "expected a text"),
    "tags": (
        {"images": [{"id": "a", "file_name": "a", "height": 20, "width": 30, "tags": [{}]}]},
        "image 'a': KeyError",
    ),
}
BAD_ENTRIES = {
    "image": ({"image_id": "b"}, "annotation 1: there is no image 'b'"),
    "category": ({"category_id": 8}, "annotation 1: there is no category 8"),
    "list": ({"category_id": []}, r"annotation 1: there is no category \[\]"),
    "box": ({"bbox": [1, 2, -3, 4]}, "annotation 1: bbox is"),
    "box of NaN": ({"bbox": [1, 2, float("nan"), 4]}, "annotation 1: bbox is"),
    "box of text": ({"bbox": "1234"}, "annotation 1: bbox is '1234'"),
    "score": ({"score": 2}, r"scores must be in \[0, 1\]"),
    "score of text": ({"score": "high"}, "annotation 1: ValueError"),
    "size": ({"segmentation": {"size": [2, 2], "counts": [4]}}, r"annotation 1: the mask has size \[2, 2\], the image"),
    "counts": ({"segmentation": {"size": [20, 30], "counts": [4]}}, "annotation 1: run lengths do not fill"),
    "huge counts": ({"segmentation": {"size": [20, 30], "counts": [10**30]}}, "annotation 1: OverflowError"),
    "text": ({"segmentation": {"size": [20, 30], "counts": "é~"}}, "annotation 1: run lengths hold a character"),
    "no counts": ({"segmentation": {"size": [20, 30]}}, "annotation 1: KeyError"),
    "odd": ({"segmentation": [[1, 2, 3]]}, "annotation 1: a polygon has shape"),
    "nested": ({"segmentation": [[[1, 2], [3, 4]]]}, "annotation 1: a polygon has shape"),
    "infinite": ({"segmentation": [[1, 2, 3, float("inf")]]}, "annotation 1: a ring must be finite"),
    "number": ({"segmentation": 5}, "annotation 1: segmentation is int"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_files_are_named(tmp_path, name):
    changes, message = BAD[name]
    others(tmp_path, **changes)
    with pytest.raises(FormatError, match=rf"instances_val2017\.json.*{message}"):
        list(read_coco(tmp_path))


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_broken_annotations_are_named(tmp_path, name):
    changes, message = BAD_ENTRIES[name]
    others(tmp_path, annotations=[{"id": 1, "image_id": "a", "category_id": 7, "bbox": [1, 2, 3, 4]} | changes])
    with pytest.raises(FormatError, match=rf"instances_val2017\.json.*{message}"):
        list(read_coco(tmp_path))


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "[]", "\xff"])
def test_no_json(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=r"x\.json"):
        list(read_coco(tmp_path))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="has no COCO file such as annotations/instances_train"):
        list(read_coco(tmp_path))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "d" / "images").mkdir(parents=True)
    others(tmp_path / "d")
    (tmp_path / "d" / "images" / "sub").symlink_to(tmp_path)
    with pytest.raises(FormatError, match="no path inside"):
        list(read_coco(tmp_path / "d"))


def test_boxes_and_sizes_of_one_image(tmp_path):
    sample = sample_of(None, ["dog"], size=(5, 7), boxes=np.array([[0.1, 0.2, 6.9, 4.7]], np.float32))
    write(tmp_path / "d", [sample])
    (entry,) = document(tmp_path / "d")["annotations"]
    assert entry["segmentation"] == []
    assert entry["area"] == pytest.approx(6.8 * 4.5)
    assert isinstance(next(read_coco(tmp_path / "d")).result.instances, Instances)

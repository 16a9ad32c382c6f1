"""COCO panoptic: ids, areas and boxes agree between PNG and JSON, and come back."""

import json
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError
from rasa.formats.panoptic import read_panoptic, write_panoptic
from rasa.ops.colors import tag_color
from rasa.ops.label_maps import label_map
from rasa.ops.masks import masks_to_boxes
from tests.formats.samples import assert_same_tags, classes_of, datasets, disc, named_samples, sample_of

NAMED = named_samples()


def write(folder, samples, classes=None):
    return write_panoptic(folder, samples, classes=classes or classes_of(samples) or ["dog"])


def document(folder, split="train"):
    return json.loads((folder / "annotations" / f"panoptic_{split}.json").read_text(encoding="utf-8"))


def panopticapi_check(folder, split):
    """What ``panopticapi`` demands of ground truth: ids of PNG and JSON agree, areas and categories too."""
    data = document(folder, split)
    categories = {entry["id"] for entry in data["categories"]}
    images = {entry["id"]: entry for entry in data["images"]}
    for annotation in data["annotations"]:
        image = images.pop(annotation["image_id"])
        path = folder / "annotations" / f"panoptic_{split}" / annotation["file_name"]
        # rgb2id of panopticapi.utils
        with PIL.Image.open(path) as png:
            color = np.array(png, dtype=np.uint32)
        assert color.shape == (image["height"], image["width"], 3)
        ids, areas = np.unique(color[..., 0] + 256 * color[..., 1] + 256**2 * color[..., 2], return_counts=True)
        found = {number: area for number, area in zip(ids.tolist(), areas.tolist(), strict=True) if number}
        assert found == {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
        for segment in annotation["segments_info"]:
            assert segment["category_id"] in categories
            assert segment["iscrowd"] == 0
            x, y, width, height = segment["bbox"]
            place = np.argwhere(color @ np.array([1, 256, 256**2]) == segment["id"])
            assert [y, x] == place.min(axis=0).tolist()
            assert [y + height - 1, x + width - 1] == place.max(axis=0).tolist()
    assert not images


def assert_shown(read, sample):
    """Check that what is to be seen of each object came back."""
    found, back = sample.result.instances, read.result.instances
    assert (read.file_name, read.split, read.id) == (sample.file_name, sample.split, sample.id)
    assert read.result.size == sample.result.size
    assert_same_tags(read.result.tags, sample.result.tags)
    if found.masks is None:
        assert len(back) == 0
        return
    values = label_map(found.masks, scores=found.mask_scores)
    seen = [i for i in range(len(found)) if (values == i + 1).any()]
    assert back.labels == tuple(found.labels[i] for i in seen)
    np.testing.assert_array_equal(back.scores, found.scores[seen])
    if seen:
        np.testing.assert_array_equal(back.masks, [values == i + 1 for i in seen])
        np.testing.assert_array_equal(back.boxes, masks_to_boxes(back.masks))


@pytest.mark.parametrize("name", NAMED)
def test_what_is_seen_comes_back(tmp_path, name):
    report = write(tmp_path / "d", [NAMED[name]])
    panopticapi_check(tmp_path / "d", NAMED[name].split)
    (read,) = read_panoptic(tmp_path / "d")
    assert_shown(read, NAMED[name])
    assert read.read_bytes() == NAMED[name].read_bytes()
    assert report.objects == len(read.result.instances)


@given(datasets())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_dataset(tmp_path_factory, dataset):
    classes, samples = dataset
    folder = tmp_path_factory.mktemp("panoptic") / "d"
    report = write(folder, samples, classes)
    for split in {sample.split for sample in samples}:
        panopticapi_check(folder, split)
    read = {sample.file_name: sample for sample in read_panoptic(folder)}
    assert len(read) == len(samples)
    for sample in samples:
        assert_shown(read[sample.file_name], sample)
    written = sum(len(sample.result.instances) for sample in samples)
    assert report.objects + report.lost["objects hidden by others"] + report.lost["masks without a pixel"] == written


def test_what_is_hidden_is_counted(tmp_path):
    front, behind = disc((40, 40), (20, 20), 5), disc((40, 40), (20, 24), 9)
    boxes = np.array([[15, 15, 26, 26], [15, 11, 34, 30]], np.float32)
    report = write(tmp_path / "d", [sample_of([behind, front], ["dog", "cat"], seed=3, boxes=boxes[::-1])])
    hidden = int((front & behind).sum())
    assert report.lost == {"pixels of masks hidden by others": hidden}
    assert report.worst_iou == (pytest.approx(1 - hidden / behind.sum()), "photos/3.png", "dog")


def test_an_object_behind_a_smaller_one_and_one_without_mask(tmp_path):
    full = np.ones((2, 2, 2), np.bool_)
    full[1, 0, 0] = False
    samples = [
        sample_of(np.concatenate([full, full[:1]]), ["a"] * 3, seed=1),
        sample_of(None, ["a"], size=(2, 2), seed=2),
    ]
    report = write(tmp_path / "d", samples)
    assert report.lost["objects hidden by others"] == 1
    assert report.lost["objects without a mask"] == 1
    assert report.objects == 2


def test_of_equal_masks_the_surer_lies_in_front(tmp_path):
    same = np.ones((2, 3, 3), np.bool_)
    for scores, label in (([0.9, 0.2], "a"), ([0.2, 0.9], "b")):
        sample = sample_of(same, ["a", "b"], mask_scores=np.array(scores, np.float32))
        write(tmp_path / label, [sample])
        assert next(read_panoptic(tmp_path / label)).result.instances.labels == (label,)


def test_segments_have_the_colours_of_their_tags(tmp_path):
    write(tmp_path / "d", [NAMED["overlap"]])
    (annotation,) = document(tmp_path / "d")["annotations"]
    red, green, blue = tag_color("dog")
    assert annotation["segments_info"][0]["id"] == red + 256 * green + 65536 * blue
    assert document(tmp_path / "d")["categories"][1] == {
        "id": 2, "name": "dog", "supercategory": "", "isthing": 1, "color": [red, green, blue]}  # fmt: skip


def test_the_same_bytes_every_time(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, list(NAMED.values()))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 2 * len(NAMED) + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_two_images_of_one_stem(tmp_path):
    one = sample_of(np.ones((1, 2, 2)), ["dog"])
    with pytest.raises(InputError, match=r"two images have the map 'x\.png'"):
        write(tmp_path / "d", [replace(one, file_name="x.png"), replace(one, file_name="x.jpg")])


# What others write


def broken(folder, change):
    """A data set whose JSON is changed by ``change``."""
    write(folder, [NAMED["overlap"]])
    data = document(folder)
    change(data["annotations"][0])
    (folder / "annotations" / "panoptic_train.json").write_text(json.dumps(data), encoding="utf-8")


BAD = {
    "missing segment": (lambda a: a["segments_info"].pop(), "and its segments_info differ in id"),
    "segment of nothing": (
        lambda a: a["segments_info"].append({"id": 5, "category_id": 1}), "its segments_info differ in id 5"),
    "twice": (lambda a: a["segments_info"].append(a["segments_info"][0]), "a number that no other segment has"),
    "no id": (lambda a: a["segments_info"][0].pop("id"), "segment None: expected a number"),
    "category": (lambda a: a["segments_info"][0].update(category_id=9), "there is no category 9"),
    "list": (lambda a: a.update(segments_info=5), "'segments_info' is no list"),
    "path out": (lambda a: a.update(file_name="../../images/x.png"), "is no path inside"),
    "no file": (lambda a: a.update(file_name="x.png"), r"x\.png is no label map"),
    "no name": (lambda a: a.pop("file_name"), "is no path inside"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_broken_files_are_named(tmp_path, name):
    change, message = BAD[name]
    broken(tmp_path / "d", change)
    with pytest.raises(FormatError, match=message):
        list(read_panoptic(tmp_path / "d"))


def test_a_png_of_another_size_or_kind(tmp_path):
    write(tmp_path / "d", [NAMED["overlap"]])
    (png,) = (tmp_path / "d" / "annotations" / "panoptic_train").iterdir()
    PIL.Image.new("RGB", (3, 3)).save(png)
    with pytest.raises(FormatError, match=r"has size \(3, 3\) and mode RGB, expected \(48, 64\)"):
        list(read_panoptic(tmp_path / "d"))
    PIL.Image.new("L", (64, 48)).save(png)
    with pytest.raises(FormatError, match="and mode L, expected"):
        list(read_panoptic(tmp_path / "d"))


def test_datumaro_reads_the_same(tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed, a peer that runs apart")
    samples = [sample for sample in NAMED.values() if sample.result.instances.masks is not None]
    write(tmp_path / "d", samples)
    dataset = datumaro.Dataset.import_from(str(tmp_path / "d"), "coco_panoptic")
    names = [entry.name for entry in dataset.categories()[datumaro.AnnotationType.label]]
    items = {(item.id, item.subset): item for item in dataset}
    assert len(items) == len(samples)
    for sample in samples:
        found = sample.result.instances
        values = label_map(found.masks, scores=found.mask_scores)
        read = items[sample.file_name.rpartition(".")[0], sample.split].annotations
        assert len(read) == len(np.unique(values[values > 0]))
        for annotation in read:
            (value,) = np.unique(values[annotation.image.astype(bool)])
            np.testing.assert_array_equal(annotation.image.astype(bool), values == value)
            assert names[annotation.label] == found.labels[value - 1]

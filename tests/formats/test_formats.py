"""The registry: what it says of each format is what the format does."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rasa.formats
from rasa import Tags
from rasa.errors import DependencyError, InputError, OutputError
from rasa.formats import FORMATS, Format, find_format
from rasa.formats.samples import WriteReport
from tests.formats.samples import assert_same_masks, disc, sample_of

NAMES = (
    "coco", "coco-polygons", "coco-panoptic", "yolo-detect", "yolo-segment", "voc", "semantic-maps", "instance-maps",
    "labelme", "label-studio", "cvat", "tags-csv", "tags-parquet", "hf-datasets", "webdataset",
)  # fmt: skip
CLASSES = ["cat", "dog"]


@pytest.fixture(scope="module")
def sample():
    """Two round objects that do not overlap, with all that can be known of them."""
    masks = np.stack([disc((48, 64), (20, 14), 9), disc((48, 64), (24, 44), 12)])
    tags = Tags(("dog", "cat"), np.array([0.75, 0.5], np.float32), None, ("object", "object"))
    return sample_of(masks, ("dog", "cat"), tags=tags, suffix=".jpg", seed=3)


@pytest.fixture(scope="module")
def written(sample, tmp_path_factory):
    """Name of a format to its report and what is read back, each written once."""
    home, done = tmp_path_factory.mktemp("formats"), {}

    def get(name):
        if name not in done:
            report = FORMATS[name].write(home / name, [sample], classes=CLASSES)
            (read,) = FORMATS[name].read(home / name)
            done[name] = report, read
        return done[name]

    return get


def test_all_formats_are_there():
    assert tuple(FORMATS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_functions_have_the_same_form(name):
    entry = FORMATS[name]
    module = __import__(entry.module, fromlist=["x"])
    parameters = list(inspect.signature(getattr(module, entry.writer)).parameters)
    assert parameters[:3] == ["folder", "samples", "classes"]
    assert set(entry.options) <= set(parameters)
    assert next(iter(inspect.signature(getattr(module, entry.reader)).parameters)) == "folder"


@pytest.mark.parametrize("name", NAMES)
def test_boxes_masks_and_counts_survive_where_the_table_says_so(name, sample, written):
    entry, (report, read) = FORMATS[name], written(name)
    found, own = read.result.instances, sample.result.instances
    assert report.images == 1
    assert read.result.size == sample.result.size
    assert read.split == "train"
    if not entry.boxes and not entry.masks:
        assert (len(found), report.lost["objects"]) == (0, 2)
        return
    assert sorted(found.labels) == sorted(own.labels)
    assert report.objects == 2
    order = [found.labels.index(label) for label in own.labels]
    np.testing.assert_allclose(found.boxes[order], own.boxes, atol=0.01)
    if entry.masks in {"exact", "flat"}:  # the two do not overlap
        assert_same_masks(found.masks[order], own.masks)
    elif entry.masks == "outlines":
        ious = [
            (one & other).sum() / (one | other).sum() for one, other in zip(found.masks[order], own.masks, strict=True)
        ]
        assert min(ious) > 0.95
        assert report.worst_iou is not None
        assert report.worst_iou[0] > 0.95
    else:
        assert found.masks is None
        assert any("mask" in what for what in report.lost)


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_tags_survive_or_are_counted(name, sample, written):
    entry, (report, read) = FORMATS[name], written(name)
    found, own = read.result.instances, sample.result.instances
    if entry.scores:
        order = [found.labels.index(label) for label in own.labels]
        np.testing.assert_allclose(found.scores[order], own.scores, atol=1e-6)
        assert not {"scores of objects"} & set(report.lost)
    elif not entry.of_tags:
        assert report.lost["scores of objects"] == 2
    if entry.tags:
        assert sorted(read.result.tags.names) == ["cat", "dog"]
        assert "tags of images" not in report.lost
    else:
        assert report.lost["tags of images"] == 2
    if entry.tags == "scored":
        assert dict(zip(read.result.tags.names, read.result.tags.scores, strict=True)) == {"dog": 0.75, "cat": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_image_files_are_there_where_the_table_says_so(name, sample, written):
    report, read = written(name)
    if FORMATS[name].images:
        assert read.read_bytes() == sample.read_bytes()
    else:
        assert read.read_bytes is None
        assert report.lost["image files"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_writer_leaves_a_full_folder_alone(name, sample, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(OutputError, match="not empty"):
        FORMATS[name].write(tmp_path, [sample], classes=CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_samples_give_the_same_bytes(name, sample, tmp_path):
    for out in ("one", "two"):
        FORMATS[name].write(tmp_path / out, [sample], classes=CLASSES)
    files = [
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}
        for out in ("one", "two")
    ]
    assert files[0] == files[1] != {}


def test_short_names():
    assert [find_format(name).name for name in ("yolo", "tags", "huggingface", "coco")] == [
        "yolo-segment",
        "tags-csv",
        "hf-datasets",
        "coco",
    ]
    with pytest.raises(
        InputError, match=r'unknown format "coca"; did you mean "coco"\? \(`rasa formats` lists all 15\)'
    ):
        find_format("coca")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    home = tmp_path / "site"
    home.mkdir()
    (home / "needs_a_hat.py").write_text("import no_such_hat")
    monkeypatch.syspath_prepend(str(home))
    entry = Format("hat", "for tests", "needs_a_hat", "write_hat", "read_hat")
    with pytest.raises(DependencyError, match='format "hat" needs "no_such_hat"; install the extra "label"'):
        entry.write(tmp_path, [], classes=[])


def test_the_list_of_formats_costs_nothing():
    root = Path(rasa.formats.__file__).parents[2]
    code = "import sys, rasa.formats; print('numpy' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_report_keeps_the_worst():
    report = WriteReport()
    for iou in (0.9, 0.5, 0.7):
        report.note_iou(iou, image=f"{iou}.jpg", label="dog")
    report.lose("holes", 0)
    report.lose("scores", 2)
    assert report.to_dict() == {"images": 0, "objects": 0, "lost": {"scores": 2}, "worst_iou": (0.5, "0.5.jpg", "dog")}

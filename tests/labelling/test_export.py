"""Export of a labelled dataset: all formats, splits, class names, filters."""

import json

import numpy as np
import pytest

import rasa
from rasa.errors import ImageError, InputError, OutputError
from rasa.formats import FORMATS
from rasa.formats.classes import Ontology
from rasa.labelling.dataset import open_dataset
from rasa.labelling.export import Parts, export
from rasa.labelling.quality import Keep


def labelled(photos, home):
    folder = photos(12)
    (folder / "broken.png").write_bytes(b"no picture")
    return rasa.label([folder], home / "dataset", pipeline="fakes:fast", shard_size=5)


@pytest.fixture(scope="module")
def shared():
    """What the first test labels, for all that change nothing."""
    return {}


@pytest.fixture
def dataset(shared, photos, tmp_path):
    if not shared:
        shared["dataset"] = labelled(photos, tmp_path)
    return open_dataset(shared["dataset"].folder, run=shared["dataset"].fingerprint)


@pytest.fixture
def own_dataset(photos, tmp_path):
    """One that a test may change."""
    return labelled(photos, tmp_path)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder, name):
    return list(FORMATS[name].read(folder / name))


def test_every_format_gets_all_images_and_objects(dataset, tmp_path):
    reports = export(dataset, tmp_path / "out", to=list(FORMATS))
    assert list(reports) == list(FORMATS)
    rows = [image for image in dataset.rows() if image.ok]
    objects = sum(len(image.result.instances) for image in rows)
    assert (len(rows), objects) == (12, 36)
    for name, report in reports.items():
        assert (report.images, report.lost["images that failed"]) == (12, 1)
        if not FORMATS[name].of_tags:
            assert report.objects == objects, name
        assert {sample.file_name for sample in read(tmp_path / "out", name)} == {image.file_name for image in rows}
    by_name = {image.file_name: image for image in rows}
    for sample in read(tmp_path / "out", "webdataset"):
        own = by_name[sample.file_name]
        np.testing.assert_array_equal(sample.result.instances.masks, own.result.instances.masks)
        assert sample.read_bytes() == own.read_bytes()


def test_the_same_dataset_gives_the_same_bytes(dataset, tmp_path):
    for out in ("one", "two"):
        export(
            dataset.folder, tmp_path / out, to=["coco", "webdataset", "tags-parquet"], split=Parts(0.2, 0.2, 1, True)
        )
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}


def test_an_account_says_what_it_was_made_of(dataset, tmp_path):
    keep = Keep(min_score=0.5)
    export(dataset, tmp_path / "out", to="coco", split=Parts(seed=3), changes=[keep, lambda result: result])
    account = json.loads((tmp_path / "out" / "coco.export.json").read_text())
    assert account["run"] == dataset.fingerprint
    assert account["classes"] == ["blue", "green", "red"]
    assert account["split"] == {"val": 0.1, "test": 0.1, "seed": 3, "stratify": False}
    assert account["changes"][0] == keep.describe()
    assert (account["images"], account["objects"], account["lost"]) == (12, 36, {"images that failed": 1})


def test_classes_are_those_of_the_ontology_and_do_not_depend_on_filters(dataset, tmp_path):
    ontology = Ontology({"red": "warm", "orange": "warm", "green": "cold"}, drop=frozenset({"nothing"}))
    export(
        dataset, tmp_path / "out", to=["coco", "tags-csv"], ontology=ontology, changes=[Keep(drop=frozenset({"blue"}))]
    )
    for name in ("coco", "tags-csv"):
        account = json.loads((tmp_path / "out" / f"{name}.export.json").read_text())
        assert account["classes"] == ["warm", "cold", "blue"]
    for sample in read(tmp_path / "out", "coco"):
        assert set(sample.result.instances.labels) == {"warm", "cold"}
        assert set(sample.result.tags.names) == {"warm", "cold"}


def test_an_ontology_may_drop_the_unknown(dataset, tmp_path):
    reports = export(dataset, tmp_path / "out", to="coco", ontology=Ontology({"red": "warm"}, unknown="drop"))
    assert reports["coco"].objects == 12
    assert json.loads((tmp_path / "out" / "coco.export.json").read_text())["classes"] == ["warm"]


@pytest.mark.parametrize("stratify", [False, True])
def test_an_image_is_in_the_same_part_of_every_format(dataset, tmp_path, stratify):
    parts = Parts(0.3, 0.3, seed=5, stratify=stratify)
    export(dataset, tmp_path / "out", to=["coco", "yolo", "webdataset", "hf-datasets", "tags-csv"], split=parts)
    found = [
        {sample.file_name: sample.split for sample in read(tmp_path / "out", name)}
        for name in ("coco", "yolo-segment", "webdataset", "hf-datasets", "tags-csv")
    ]
    assert all(other == found[0] for other in found)
    assert set(found[0].values()) == {"train", "val", "test"}


def test_a_filter_decides_what_is_written(dataset, tmp_path):
    reports = export(dataset, tmp_path / "out", to="coco", changes=[Keep(min_area=10**6)])
    assert (reports["coco"].images, reports["coco"].objects) == (12, 0)


def test_a_full_folder_stops_all_before_any_work(dataset, tmp_path):
    (tmp_path / "out" / "voc").mkdir(parents=True)
    (tmp_path / "out" / "voc" / "mine").write_text("keep")
    with pytest.raises(OutputError, match="voc is not empty"):
        export(dataset, tmp_path / "out", to=["coco", "voc"])
    assert files(tmp_path / "out") == {"voc/mine": b"keep"}


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("cooc", 'unknown format "cooc"; did you mean "coco"'),
        ([], "name at least one format"),
        (["yolo", "yolo-segment"], "formats must be distinct, got yolo-segment, yolo-segment"),
    ],
)
def test_wrong_formats_are_refused(dataset, tmp_path, to, message):
    with pytest.raises(InputError, match=message):
        export(dataset, tmp_path / "out", to=to)
    with pytest.raises(InputError, match="shares of at least 0"):
        Parts(0.6, 0.6)
    with pytest.raises(InputError, match="no labelled dataset"):
        export(tmp_path, tmp_path / "out", to="coco")


def test_a_photo_that_has_changed_is_named_and_nothing_is_left(own_dataset, tmp_path):
    (tmp_path / "photos" / "0004.png").write_bytes(b"other")
    with pytest.raises(ImageError, match=r"0004\.png"):
        export(own_dataset, tmp_path / "out", to="coco")
    assert files(tmp_path / "out") == {}
    assert export(own_dataset, tmp_path / "out", to="tags-csv")["tags-csv"].images == 12


def test_a_derived_run_can_be_exported(dataset, tmp_path):
    keep = Keep(drop=frozenset({"red"}))
    derived = dataset.derive(keep.describe(), lambda images: (keep(image.result) for image in images))
    export(derived, tmp_path / "new", to="coco")
    export(open_dataset(dataset.folder, run=dataset.fingerprint), tmp_path / "old", to="coco")
    labels = [
        {label for sample in read(tmp_path / out, "coco") for label in sample.result.instances.labels}
        for out in ("new", "old")
    ]
    assert labels == [{"blue", "green"}, {"blue", "green", "red"}]

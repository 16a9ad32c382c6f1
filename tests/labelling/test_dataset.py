"""A dataset that is opened: rows in order with their images, counts, and runs derived from others."""

import pickle

import numpy as np
import pytest

from rasa.errors import FormatError, ImageError, InputError
from rasa.labelling.dataset import open_dataset
from rasa.labelling.plan import load_plan, plan_images
from rasa.labelling.runs import start_run
from rasa.labelling.store import LabelledRow, is_done, labels_file, write_shard
from rasa.types import Failure, Instances, Result, Tags

PROVENANCE = {"versions": {"rasa": "1"}, "config": {"tagger": "t"}, "stages": [{"stage": "tag", "threshold": 0.5}]}


def labels_of(image):
    """Labels that depend on the bytes; images with "bad" in them fail."""
    data = image.read()
    if b"bad" in data:
        return Result(image.path, (0, 0), failure=Failure("decode", "ImageError", "no image"))
    count = len(data) % 3
    masks = np.zeros((count, 4, 6), np.bool_)
    masks[:, 1:3, : len(data) % 5] = True
    found = Instances(
        np.tile(np.array([0, 1, 4, 3], np.float32), (count, 1)), np.linspace(0.9, 0.1, count), ("cat",) * count, masks
    )
    return Result(image.path, (4, 6), Tags(("cat",), np.array([0.5], np.float32)), found, timings={"tag": 0.5})


def label(folder, shards=None):
    """Label a planned folder; ``shards`` limits how many."""
    run = start_run(folder, PROVENANCE)
    for shard in load_plan(folder).shards[:shards]:
        if not is_done(folder, run, shard):
            write_shard(folder, run, shard, [LabelledRow.of(image, labels_of(image)) for image in shard.images])
    return run


@pytest.fixture
def source(tmp_path):
    """A folder of seven images: one fails, two are the same."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in {"0": "zero", "1": "one!", "2": "bad 2", "3": "three", "4": "zero", "5": "5", "6": "six"}.items():
        (folder / f"{name}.png").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path, source):
    """A dataset of it, in shards of two, not yet labelled."""
    return plan_images(tmp_path / "out", source, shard_size=2).folder


def test_rows_come_in_the_order_of_the_plan_with_their_bytes(folder):
    run = label(folder)
    dataset = open_dataset(folder)
    assert (dataset.fingerprint, dataset.config, dataset.name, dataset.finished) == (run, {"tagger": "t"}, "out", True)
    images = list(dataset.rows())
    assert [image.read_bytes().decode() for image in images] == ["zero", "one!", "bad 2", "three", "5", "six"]
    assert [image.ok for image in images] == [True, True, False, True, True, True]
    assert [image.id for image in images] == [image.id for image in dataset.plan.images()]
    first = images[0]
    assert first.file_name == f"{first.id[:32]}.png"
    assert (first.bytes, first.result.name, first.result.provenance) == (4, first.path, PROVENANCE)
    np.testing.assert_array_equal(first.result.instances.masks, labels_of(first.planned).instances.masks)
    assert images[2].result.failure == Failure("decode", "ImageError", "no image")


def test_counts_and_duplicates(folder, source):
    label(folder)
    counts = open_dataset(folder).counts
    assert (counts.planned, counts.ok, counts.failed, counts.labelled, counts.duplicates) == (6, 5, 1, 6, 1)
    (paths,) = open_dataset(folder).duplicates().values()
    assert paths == [str(source / "0.png"), str(source / "4.png")]


def test_a_run_that_is_going_on_gives_what_it_has(folder):
    label(folder, shards=2)
    dataset = open_dataset(folder)
    assert not dataset.finished
    assert len(list(dataset.rows())) == 4
    assert dataset.counts.labelled == 4
    label(folder)
    assert dataset.finished
    assert len(list(dataset.rows())) == 6


def test_timings_are_apart(folder):
    label(folder)
    timings = list(open_dataset(folder).timings())
    assert len(timings) == 5
    assert {(stage, seconds) for _, stage, seconds in timings} == {("tag", 0.5)}
    assert next(iter(open_dataset(folder).rows())).result.timings == {}


def test_images_that_changed_are_left_out_once_they_are_planned_again(folder, source):
    label(folder)
    (source / "1.png").write_text("another one")
    (source / "0.png").write_text("0 is another one too")
    images = list(open_dataset(folder).rows())
    with pytest.raises(ImageError, match=r"1\.png' has changed since it was planned"):
        images[1].read_bytes()
    plan_images(folder, source, shard_size=2)
    label(folder)
    # "zero" lives on in its copy 4.png, "one!" nowhere.
    texts = [image.read_bytes().decode() for image in open_dataset(folder).rows()]
    assert texts == ["zero", "bad 2", "three", "5", "six", "0 is another one too", "another one"]
    assert open_dataset(folder).counts.planned == open_dataset(folder).counts.labelled == 7


def keep_one(images):
    for image in images:
        yield image.result.with_instances(image.result.instances.take([0] if len(image.result.instances) else []))


def test_a_derived_run_has_its_own_labels_and_names_its_parent(folder):
    run = label(folder)
    before = {path: path.read_bytes() for path in (folder / "labels" / run).iterdir()}
    derived = open_dataset(folder).derive({"keep": 1}, keep_one)
    assert derived.run.parent == run
    assert derived.run.extra == {"derived": {"keep": 1}}
    assert derived.fingerprint not in {run, open_dataset(folder).derive({"keep": 2}, keep_one).fingerprint}
    assert {path: path.read_bytes() for path in (folder / "labels" / run).iterdir()} == before
    whole, kept = list(open_dataset(folder, run=run).rows()), list(derived.rows())
    assert [image.id for image in kept] == [image.id for image in whole]
    assert [len(image.result.instances) for image in kept] == [min(1, len(image.result.instances)) for image in whole]
    assert kept[2].result.failure == whole[2].result.failure
    assert derived.finished


def test_deriving_again_does_nothing_and_goes_on_when_there_is_more(folder):
    run = label(folder, shards=1)
    calls = []

    def count(images):
        calls.append(1)
        return keep_one(images)

    open_dataset(folder, run=run).derive({"keep": 1}, count)
    open_dataset(folder, run=run).derive({"keep": 1}, count)
    assert len(calls) == 1
    label(folder)
    assert open_dataset(folder, run=run).derive({"keep": 1}, count).finished
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images: [], "too few results for shard-000000"),
        (lambda images: [result for result in keep_one(images) for _ in range(2)], "too many results for shard-000000"),
    ],
)
def test_a_change_that_miscounts_writes_nothing(folder, change, reason):
    run = label(folder)
    with pytest.raises(InputError, match=reason):
        open_dataset(folder, run=run).derive({"wrong": 1}, change)
    assert [path.name for path in (folder / "labels").iterdir()] == [run]


def test_what_is_no_dataset_or_has_labels_of_another(folder, tmp_path):
    with pytest.raises(InputError, match="is no labelled dataset"):
        open_dataset(tmp_path)
    run = label(folder)
    shards = load_plan(folder).shards
    labels_file(folder, run, shards[0]).write_bytes(labels_file(folder, run, shards[1]).read_bytes())
    with pytest.raises(FormatError, match=r"shard-000000 has labels of [0-9a-f]{64}, which is not in its plan"):
        list(open_dataset(folder).rows())


def test_a_plan_travels_to_other_processes(folder):
    plan = load_plan(folder)
    assert pickle.loads(pickle.dumps(plan.shards[1])).images == plan.shards[1].images

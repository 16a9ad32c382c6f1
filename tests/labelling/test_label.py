"""``rasa.label`` on fake models: what is labelled, what is continued, what is refused."""

import functools
import shutil

import pytest

import rasa
from rasa.errors import FailedImagesError, RasaError, WorkerError
from rasa.labelling.dataset import open_dataset
from rasa.labelling.store import read_timings


def test_a_folder_becomes_a_dataset(photos, tmp_path, logged, fakes):
    dataset = rasa.label(photos(10), tmp_path / "out", pipeline="fakes:fast", shard_size=4)
    assert (dataset.counts.ok, dataset.counts.failed, dataset.finished) == (10, 0, True)
    images = list(dataset.rows())
    assert [image.path[-8:] for image in images] == [f"{i:04d}.png" for i in range(10)]
    for image in images:
        direct = fakes.fast()(image.read_bytes())
        assert image.result.tags.names == direct.tags.names
        assert image.result.tags.scores.tolist() == direct.tags.scores.tolist()
        assert (image.result.instances.masks == direct.instances.masks).all()
    assert [line["shard"] for line in logged(tmp_path / "out", "shard")] == [0, 1, 2]
    assert logged(tmp_path / "out", "end")[0]["images"] == 10


def test_the_number_of_workers_and_the_batch_size_change_no_byte(photos, tmp_path, content):
    folder = photos(21)
    one = rasa.label(folder, tmp_path / "one", pipeline="fakes:fast", shard_size=4)
    rasa.label(folder, tmp_path / "two", pipeline="fakes:fast", shard_size=4, workers=2, batch_size=3)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert one.counts.ok == 21


def test_a_second_run_labels_what_is_new_only(photos, tmp_path, logged, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("RASA_TEST_NOTES", str(notes))
    folder, seen = photos(5), []
    rasa.label(folder, tmp_path / "out", pipeline="fakes:noted", shard_size=2)
    first = notes.read_text(encoding="utf-8")
    assert len(first.splitlines()) == 5
    rasa.label(folder, tmp_path / "out", pipeline="fakes:noted", shard_size=2, watch=seen.append)
    assert notes.read_text(encoding="utf-8") == first
    assert (seen[-1].before, seen[-1].total) == (5, 0)
    photos(8)
    shutil.copy(folder / "0000.png", folder / "again.png")
    dataset = rasa.label(folder, tmp_path / "out", pipeline="fakes:noted", shard_size=2)
    assert len(notes.read_text(encoding="utf-8").splitlines()) == 8
    assert (dataset.counts.ok, dataset.counts.duplicates) == (8, 1)


def stages_timed(dataset):
    rows = [read_timings(dataset.folder, dataset.fingerprint, shard) for shard in dataset.shards()]
    return [(row["id"], row["stage"]) for shard in rows for row in shard]


def test_images_that_failed_are_labelled_again_when_asked(photos, tmp_path, monkeypatch, content, logged):
    mood, notes = tmp_path / "mood", tmp_path / "notes"
    monkeypatch.setenv("RASA_TEST_MOOD", str(mood))
    monkeypatch.setenv("RASA_TEST_NOTES", str(notes))
    folder = photos(6)
    shutil.copy(photos(1, folder="deadly", size=(13, 8)) / "0000.png", folder / "0001a.png")
    shutil.copy(photos(1, folder="unlucky", size=(17, 8)) / "0000.png", folder / "0004a.png")
    (folder / "0005a.png").write_bytes(b"no image")
    label = functools.partial(rasa.label, folder, pipeline="fakes:moody", shard_size=3)
    calm = label(tmp_path / "calm")
    mood.touch()
    out = tmp_path / "out"
    assert label(out).counts.failed == 3
    mood.unlink()
    notes.unlink()
    assert label(out).counts.failed == 3
    assert not notes.exists()

    seen = []
    dataset = label(out, retry_failed=True, watch=seen.append)
    assert sorted(line.rpartition("/")[2] for line in notes.read_text().splitlines()) == ["0001a.png", "0004a.png"]
    assert (dataset.counts.ok, dataset.counts.failed) == (8, 1)
    assert (seen[-1].before, seen[-1].total, seen[-1].done) == (6, 3, 3)
    assert [(line["images"], line["failed"]) for line in logged(out, "shard")[-2:]] == [(1, 0), (2, 1)]
    assert content(out) == content(tmp_path / "calm")
    assert stages_timed(dataset) == stages_timed(calm)


def test_an_image_that_kills_its_worker_again_keeps_its_row(photos, tmp_path, monkeypatch, content):
    mood = tmp_path / "mood"
    monkeypatch.setenv("RASA_TEST_MOOD", str(mood))
    monkeypatch.setenv("RASA_TEST_NOTES", str(tmp_path / "notes"))
    mood.touch()
    folder = photos(3)
    shutil.copy(photos(1, folder="deadly", size=(13, 8)) / "0000.png", folder / "0001a.png")
    label = functools.partial(rasa.label, folder, tmp_path / "out", pipeline="fakes:moody", shard_size=4)
    label()
    before = content(tmp_path / "out")
    dataset = label(retry_failed=True)
    assert (dataset.counts.ok, dataset.counts.failed) == (3, 1)
    assert content(tmp_path / "out") == before


def test_another_threshold_labels_anew_and_keeps_the_old_labels(photos, tmp_path, content, fakes):
    folder, out = photos(6), tmp_path / "out"
    first = rasa.label(folder, out, pipeline=functools.partial(fakes.fast_at, 0.0), shard_size=4)
    before = content(out)
    second = rasa.label(folder, out, pipeline=functools.partial(fakes.fast_at, 0.45), shard_size=4)
    assert first.fingerprint != second.fingerprint
    assert before.items() <= content(out).items()
    assert open_dataset(out).fingerprint == second.fingerprint
    assert {len(image.result.tags) for image in open_dataset(out, run=first.fingerprint).rows()} == {3}
    assert min(len(image.result.tags) for image in second.rows()) < 3


def test_progress_says_rate_and_what_is_left(photos, tmp_path):
    seen = []
    rasa.label(photos(24), tmp_path / "out", pipeline="fakes:slow", shard_size=8, batch_size=2, watch=seen.append)
    assert [moment.state for moment in seen[:3]] == ["listing", "loading", "labelling"]
    moving = [moment for moment in seen if moment.state == "labelling"]
    assert [moment.done for moment in moving] == sorted(moment.done for moment in moving)
    assert moving[-1].done == moving[-1].total == 24
    assert len(moving) > 10  # batches, not shards
    assert 0 < moving[-1].per_second < 50  # 20 ms an image
    assert moving[-2].seconds_left is not None


def test_strict_raises_when_all_is_done(photos, tmp_path):
    folder = photos(3)
    (folder / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(FailedImagesError, match="1 of 4 images have no labels; their rows say why") as caught:
        rasa.label(folder, tmp_path / "out", pipeline="fakes:fast", strict=True)
    assert caught.value.failed == 1
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.counts.ok, dataset.counts.failed) == (3, 1)
    [row] = [image.row for image in dataset.rows() if not image.ok]
    assert (row.error_stage, row.error_kind) == ("decode", "ImageError")
    assert "it looks like text" in row.error_message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"threads": True}, "threads must be a whole number of at least 1, got True"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"engine": "spark"}, 'engine must be "local" or "ray", got \'spark\''),
        ({"address": "auto"}, 'pass engine="ray" with it'),
        ({"pipeline": "fast"}, "must be of the form package.module:function"),
        ({"pipeline": "fakes:nothing"}, "has no attribute 'nothing'"),
        ({"pipeline": "no_such_module:fast"}, "cannot be found"),
        ({"pipeline": "fakes:HERE"}, "is a .*Path; pass a function"),
        ({"pipeline": lambda: None}, "cannot be sent to a worker"),
        ({"pipeline": 3}, "must make a pipeline, got int"),
        ({"pipeline": "builtins:dict"}, "must give a rasa.Pipeline, got dict"),
        ({"pipeline": "fakes:fast", "box_threshold": 0.5}, "box_threshold would change a preset"),
        ({"preset": "no-such"}, "unknown preset"),
        ({"box_treshold": 0.5}, 'unknown option "box_treshold"'),
    ],
)
def test_what_does_not_fit_is_refused(photos, tmp_path, options, message):
    is_preset = {"preset", "box_treshold"} & set(options)
    with pytest.raises(RasaError, match=message):
        rasa.label(photos(1), tmp_path / "out", **(options if is_preset else {"pipeline": "fakes:fast"} | options))


def test_a_pipeline_that_cannot_be_built_says_why(photos, tmp_path):
    with pytest.raises(WorkerError, match="a worker failed: RuntimeError: no such luck"):
        rasa.label(photos(1), tmp_path / "out", pipeline="fakes:broken")
    with pytest.raises(WorkerError, match=r"3 workers died while they loaded the models \(signal 9, SIGKILL"):
        rasa.label(photos(1), tmp_path / "out", pipeline="fakes:dies")


def test_a_missing_source_is_an_error_before_anything_starts(tmp_path):
    with pytest.raises(rasa.InputError, match="does not exist"):
        rasa.label(tmp_path / "nowhere", tmp_path / "out", pipeline="fakes:fast")

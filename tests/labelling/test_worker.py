"""One shard: batches that shrink, images that fail alone, results in order."""

import numpy as np
import pytest

import rasa
from rasa.errors import ContractError
from rasa.labelling.board import Died, Task
from rasa.labelling.halving import InHalves, is_out_of_memory
from rasa.labelling.plan import plan_images
from rasa.labelling.recipe import Recipe
from rasa.labelling.store import is_done, read_shard
from rasa.labelling.worker import Labeller, Settings
from rasa.testing import sample_image
from rasa.types import Result


@pytest.fixture
def shard(photos, tmp_path):
    [found] = plan_images(tmp_path / "out", photos(9)).shards
    return found


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "out", "0" * 16, batch_size=4)


def label(shard, settings, factory="fakes:fast", **task):
    moves = []
    outcome = Labeller(Recipe(factory=factory)).label(Task(shard, **task), settings, moved=moves.append)
    return outcome, moves


def test_rows_are_in_the_order_of_the_plan(shard, settings):
    outcome, moves = label(shard, settings)
    assert (outcome.state, outcome.images, outcome.failed) == ("labelled", 9, 0)
    assert moves == [4, 8]
    rows = list(read_shard(settings.folder, settings.fingerprint, shard))
    assert [row.path for row in rows] == [image.path for image in shard.images]
    assert label(shard, settings)[0].state == "there"


def test_a_single_image_is_given_back_and_nothing_is_written(shard, settings):
    outcome, _ = label(shard, settings, row=3)
    assert (outcome.state, outcome.row.path) == ("row", shard.images[3].path)
    assert not is_done(settings.folder, settings.fingerprint, shard)


def test_known_rows_and_images_that_nobody_survived_make_a_shard(shard, settings):
    known = {row: label(shard, settings, row=row)[0].row for row in range(8)} | {8: Died("signal 9")}
    outcome, _ = label(shard, settings, known=known)
    assert (outcome.state, outcome.images, outcome.failed) == ("labelled", 9, 1)
    *rows, last = read_shard(settings.folder, settings.fingerprint, shard)
    assert [row.status for row in rows] == ["ok"] * 8
    assert (last.error_stage, last.error_kind, last.error_message) == ("worker", "WorkerDied", "signal 9")


def test_one_failing_image_costs_no_other_of_its_batch(photos, settings, tmp_path):
    folder = photos(3)
    for name, width in (("unlucky", 17), ("fine", 18)):
        rasa_image = sample_image(height=8, width=width)
        save(folder / f"{name}.png", rasa_image)
    [shard] = plan_images(tmp_path / "out", folder).shards
    outcome, _ = label(shard, settings, "fakes:poison")
    assert (outcome.images, outcome.failed) == (5, 1)
    rows = {row.path.rpartition("/")[2]: row for row in read_shard(settings.folder, settings.fingerprint, shard)}
    bad = rows.pop("unlucky.png")
    assert (bad.error_stage, bad.error_kind, bad.error_message) == ("act", "RuntimeError", "unlucky")
    assert {row.status for row in rows.values()} == {"ok"}


def test_too_large_a_batch_is_halved_and_no_label_changes(shard, settings):
    label(shard, settings)
    expected = [row.tags for row in read_shard(settings.folder, settings.fingerprint, shard)]
    roomless = Settings(settings.folder, "1" * 16, batch_size=8)
    outcome, _ = label(shard, roomless, "fakes:cramped")
    assert (outcome.images, outcome.failed) == (9, 0)
    assert [row.tags for row in read_shard(roomless.folder, roomless.fingerprint, shard)] == expected


def blank(count):
    images = [rasa.Image(np.full((4, 4, 3), i, np.uint8), name=str(i)) for i in range(count)]
    return images, [Result(image.name, image.size) for image in images]


def test_the_limit_is_remembered_and_grows_again(fakes):
    stage = fakes.Limited(3)
    halving = InHalves(stage)
    images, results = blank(8)
    assert [result.name for result in halving(images, results)] == [str(i) for i in range(8)]
    assert stage.taken == [2, 2, 2, 2]  # 8 and 4 were too many
    halving(images, results)
    assert stage.taken[4:] == [2, 2, 2, 2]
    stage.most = 100
    for _ in range(40):
        halving(images, results)
    assert max(stage.taken) == 8


def test_a_single_image_that_is_too_large_is_an_error(fakes):
    with pytest.raises(MemoryError, match="1 images are too many"):
        InHalves(fakes.Limited(0))(*blank(4))


def test_other_errors_are_not_tried_again(fakes):
    stage = fakes.Limited(3, error=ValueError)
    with pytest.raises(ValueError, match="4 images are too many"):
        InHalves(stage)(*blank(4))
    assert stage.taken == []


def test_a_stage_that_loses_images_is_found_out():
    with pytest.raises(ContractError, match="gave 0 results for 4 images"):
        InHalves(lambda images, results: [])(*blank(4))


def test_the_memory_errors_of_pytorch_are_known():
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def save(path, image):
    import PIL.Image

    PIL.Image.fromarray(image.pixels).save(path)

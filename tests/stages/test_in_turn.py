"""Models that take turns on a small device."""

import threading

import numpy as np
import pytest

from rasa.pipeline import Pipeline
from rasa.protocols import Movable
from rasa.stages import Detect, InTurn, Segment, Tag
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, check_stage, sample_image
from rasa.types import Result

IMAGE = sample_image(height=30, width=40)


class Device:
    """What is on it now, and what has been there together."""

    def __init__(self):
        self.now, self.most, self.visits = set(), 0, []

    def move(self, model, device):
        if device == "cpu":
            self.now.discard(model)
        else:
            self.now.add(model)
            self.visits.append((model, device))
        self.most = max(self.most, len(self.now))


def movable(kind, device, name, *arguments):
    """A fake model of ``kind`` that says where it is."""

    class Moving(kind):
        def to(self, where):
            device.move(name, where)
            return self

    return Moving(*arguments)


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def stages(device):
    turn = threading.Lock()
    tagger = movable(FakeTagger, device, "tagger", ["cat", "mat"])
    detector, segmenter = movable(FakeDetector, device, "detector"), movable(FakeSegmenter, device, "segmenter")
    parts = [(Tag(tagger), tagger), (Detect(detector), detector), (Segment(segmenter), segmenter)]
    return [InTurn(stage, model, "cuda:1", turn=turn) for stage, model in parts]


def test_only_one_model_is_on_the_device_at_a_time(device, stages):
    Pipeline(*stages)([IMAGE, IMAGE, IMAGE], batch_size=2)
    assert device.most == 1
    assert not device.now
    order = ["tagger", "detector", "segmenter"]
    assert device.visits == [(name, "cuda:1") for name in order * 2]  # once per batch, not per image


def test_also_when_two_threads_share_the_pipeline(device, stages):
    pipeline = Pipeline(*stages)
    threads = [threading.Thread(target=pipeline, args=([IMAGE] * 20,), kwargs={"batch_size": 1}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(device.visits) == 3 * 20 * 3
    assert device.most == 1


def test_the_answers_and_the_provenance_are_those_of_the_stages(stages):
    there, moved = Pipeline(*(stage.stage for stage in stages)), Pipeline(*stages)
    plain, found = there(IMAGE), moved(IMAGE)
    assert found.tags == plain.tags or found.tags.names == plain.tags.names
    assert found.instances.labels == plain.instances.labels
    np.testing.assert_array_equal(found.instances.boxes, plain.instances.boxes)
    np.testing.assert_array_equal(found.instances.masks, plain.instances.masks)
    assert found.provenance["stages"] == plain.provenance["stages"]
    assert list(found.timings) == list(plain.timings)
    assert repr(moved) == repr(there)


def test_a_stage_whose_answer_is_given_does_not_move_its_model(device, stages):
    result = Pipeline(*stages)(IMAGE, tags=["cup"])
    assert result.provenance["given"] == ["tags"]
    assert {name for name, _ in device.visits} == {"detector", "segmenter"}


def test_it_keeps_the_promises_of_a_stage(stages):
    check_stage(stages[0])


def test_a_model_goes_home_when_its_stage_fails(device):
    class Broken(FakeTagger):
        def to(self, where):
            device.move("broken", where)

        def tag(self, images):
            raise RuntimeError("no luck")

    tagger = Broken(["a"])
    with pytest.raises(RuntimeError, match="no luck"):
        InTurn(Tag(tagger), tagger, "cuda")([IMAGE], [Result(IMAGE.name, IMAGE.size)])
    assert device.visits == [("broken", "cuda")]
    assert not device.now


def test_a_model_is_movable_by_its_method():
    assert isinstance(movable(FakeTagger, Device(), "a", ["x"]), Movable)
    assert not isinstance(FakeTagger(["x"]), Movable)


def test_a_function_can_be_the_stage(device):
    def shout(images, results):
        return list(results)

    stage = InTurn(shout, movable(FakeTagger, device, "a", ["x"]), "cuda")
    assert (stage.name, stage.provides, stage.describe()) == ("shout", None, {})

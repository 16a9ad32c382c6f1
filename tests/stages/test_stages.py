"""Stages one by one: thresholds obeyed, promises of models checked, arguments untouched."""

import numpy as np
import pytest

from rasa import Detect, Filter, Instances, Masks, Result, Segment, Suppress, Tag, Tags
from rasa.errors import ContractError, InputError
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, check_stage, sample_image, sample_images

IMAGE = sample_image(height=100, width=200)


def found(boxes, scores, labels):
    return Result(IMAGE.name, IMAGE.size, instances=Instances(boxes, scores, labels))


def through(stage, result):
    return stage([IMAGE], [result])[0].instances


BOXES = [[0, 0, 50, 50], [0, 0, 3, 5], [10, 10, 60, 60], [0, 0, 4, 4]]
FOUR = found(BOXES, [0.9, 0.8, 0.3, 0.7], ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("stage", "labels"),
    [
        (Filter(), "acd"),
        (Filter(min_area=0), "abcd"),
        (Filter(min_area=17), "ac"),
        (Filter(box_threshold=0.3, min_area=0), "abcd"),
        (Filter(box_threshold=0.31), "ad"),
        (Filter(box_threshold=1), ""),
        (Filter(min_area=0, max_instances=2), "ab"),
        (Filter(max_instances=0), ""),
    ],
)
def test_filter_obeys_every_number(stage, labels):
    assert "".join(through(stage, FOUR).labels) == labels


def test_a_score_equal_to_the_threshold_passes():
    for threshold in (0.1, 0.3, 0.7, 0.9):
        equal = found([[0, 0, 9, 9]], np.array([threshold], np.float32), ("a",))
        assert len(through(Filter(box_threshold=threshold), equal)) == 1


SAME = found(
    [[0, 0, 100, 100], [0, 0, 100, 95], [0, 0, 100, 60], [1, 0, 100, 100]],
    [0.6, 0.9, 0.5, 0.7],
    ("dog", "dog", "dog", "puppy"),
)


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        (Suppress(), [1]),
        (Suppress(merge_threshold=1), [1, 3]),
        (Suppress(nms_threshold=0.7), [1, 2]),
        (Suppress(nms_threshold=1, merge_threshold=1), [0, 1, 2, 3]),
        (Suppress(nms_threshold=1), [0, 1, 2]),
    ],
)
def test_suppress_obeys_both_thresholds(stage, kept):
    np.testing.assert_array_equal(through(stage, SAME).boxes, SAME.instances.boxes[kept])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Suppress(nms_threshold=1.5), r"nms_threshold must be a number in \[0, 1\], got 1.5"),
        (lambda: Suppress(merge_threshold=float("nan")), "merge_threshold"),
        (lambda: Filter(box_threshold=True), "box_threshold"),
        (lambda: Filter(min_area=-1), "at least 0 square pixels, got -1"),
        (lambda: Filter(min_area=float("nan")), "at least 0 square pixels"),
        (lambda: Filter(max_instances=-1), "at least 0 or None"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_boxes_are_cut_to_the_image():
    class Overreaching:
        def detect(self, images, tags):
            return [Instances([[-3, -1, 999, 50.5]], [0.5], ("cat",)) for _ in images]

    seeded = Result(IMAGE.name, IMAGE.size, tags=Tags.of(["cat"]))
    np.testing.assert_array_equal(through(Detect(Overreaching()), seeded).boxes, [[0, 0, 200, 50.5]])


class Rogue:
    """A model of every role that answers what it is told to."""

    def __init__(self, answers):
        self.answers = answers

    def tag(self, images):
        return self.answers

    def detect(self, images, tags):
        return self.answers

    def segment(self, images, boxes):
        return self.answers


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Tag(Rogue([])), "Rogue gave 0 answers for 1 images"),
        (Tag(Rogue([["cat"]])), "must answer with rasa.Tags, got list"),
        (Detect(Rogue([Instances([[0, 0, 1, 1]], [1], ("cow",))])), "'cow', which is none of the tags asked for"),
        (Detect(Rogue([None])), "must answer with rasa.Instances, got NoneType"),
        (Segment(Rogue([Masks(np.zeros((2, 100, 200), bool))])), "4 instances but got 2 masks"),
        (Segment(Rogue([Masks(np.zeros((4, 10, 10), bool))])), r"\(100, 200\), got \(10, 10\)"),
    ],
)
def test_models_that_break_their_role_are_named(stage, message):
    with pytest.raises((ContractError, InputError), match=message):
        stage([IMAGE], [FOUR])


@pytest.mark.parametrize(
    "stage", [Tag(FakeTagger()), Detect(FakeDetector()), Filter(), Suppress(), Segment(FakeSegmenter())]
)
def test_every_stage_keeps_the_promises(stage):
    images = sample_images()
    tagged = [Result(image.name, image.size, tags=Tags.of(["cat", "dog", "sky"])) for image in images]
    check_stage(stage, images=images, results=Detect(FakeDetector())(images, tagged))

"""Stages one by one: thresholds obeyed, promises of models checked, arguments untouched."""

import numpy as np
import pytest

from rasa import Detect, DetectAndSegment, Filter, Instances, Masks, Result, Segment, Suppress, Tag, Tags
from rasa.errors import ContractError, InputError
from rasa.testing import (
    FakeDetector,
    FakeDetectorSegmenter,
    FakeSegmenter,
    FakeTagger,
    check_stage,
    sample_image,
    sample_images,
)

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


ASKED = Result(IMAGE.name, IMAGE.size, tags=Tags.of(["left", "middle", "right"]))


def test_detect_and_segment_gives_boxes_with_their_masks():
    found = through(DetectAndSegment(FakeDetectorSegmenter()), ASKED)
    assert found.labels == ("left", "middle", "right")
    expected = FakeSegmenter().segment([IMAGE], [found.boxes])[0]
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_array_equal(found.mask_scores, expected.scores)


def test_what_drops_a_box_drops_its_mask():
    found = through(DetectAndSegment(FakeDetectorSegmenter()), ASKED)
    kept = through(Filter(max_instances=2), Result(IMAGE.name, IMAGE.size, instances=found))
    np.testing.assert_array_equal(kept.masks, found.masks[:2])
    same = Instances(found.boxes[[0, 0, 1]], [0.5, 0.9, 0.5], ("a", "a", "a"), masks=found.masks[[2, 0, 1]])
    kept = through(Suppress(), Result(IMAGE.name, IMAGE.size, instances=same))
    np.testing.assert_array_equal(kept.masks, found.masks[[0, 1]])


class Stray(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return super().detect_and_segment(images, [["zebra"] for _ in images])


class NoMasks(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return [Instances() for _ in images]


class Small(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return [Instances(np.zeros((1, 4)), [1], ("left",), masks=np.zeros((1, 5, 5), bool)) for _ in images]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Stray(), ContractError, "Stray gave the label 'zebra', which is none of the tags asked for"),
        (NoMasks(), ContractError, "NoMasks must give masks with its boxes, also for no boxes"),
        (Small(), InputError, r"must have the size of the image, \(100, 200\), got \(5, 5\)"),
    ],
)
def test_detect_and_segment_checks_its_model(model, error, message):
    with pytest.raises(error, match=message):
        through(DetectAndSegment(model), ASKED)


def test_detect_and_segment_keeps_the_promises_of_a_stage():
    images = sample_images()
    tags = [(), ("a",), ("a", "b")]
    before = [Result(image.name, image.size, tags=Tags.of(tags[i % 3])) for i, image in enumerate(images)]
    check_stage(DetectAndSegment(FakeDetectorSegmenter()), images=images, results=before)


MIXED = Tags(("dog", "beach", "run", "red", "it"), np.ones(5), kinds=("object", "scene", "action", "attribute", ""))


@pytest.mark.parametrize(("objects_only", "asked"), [(True, {"dog", "it"}), (False, set(MIXED.names))])
@pytest.mark.parametrize(
    "lift", [lambda **o: Detect(FakeDetector(), **o), lambda **o: DetectAndSegment(FakeDetectorSegmenter(), **o)]
)
def test_only_tags_that_can_have_a_box_are_asked_for(lift, objects_only, asked):
    stage, before = lift(objects_only=objects_only), Result(IMAGE.name, IMAGE.size, tags=MIXED)
    after = stage([IMAGE], [before])[0]
    assert set(after.instances.labels) == asked
    assert after.tags is MIXED
    assert stage.describe()["objects_only"] is objects_only
    check_stage(stage, images=[IMAGE], results=[before])


def test_tags_of_no_known_kind_are_asked_for():
    after = Detect(FakeDetector())([IMAGE], [Result(IMAGE.name, IMAGE.size, tags=Tags.of(MIXED.names))])[0]
    assert set(after.instances.labels) == set(MIXED.names)

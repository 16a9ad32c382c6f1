"""Values: checked once, read-only, and JSON without loss."""

import json

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa import Image, Instances, Masks, Result, Tags
from rasa.errors import FormatError, InputError
from rasa.types import KINDS, Failure

unit = st.floats(0, 1, width=32)
names = st.text(min_size=1, max_size=12).filter(str.strip)


@st.composite
def results(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    tags = draw(st.lists(names, unique=True, max_size=4))
    count = draw(st.integers(0, 4))
    corners = np.sort(draw(st.lists(st.floats(0, 1e4, width=32), min_size=4 * count, max_size=4 * count)))
    boxes = np.array(corners, np.float32).reshape(count, 4)[:, [0, 1, 2, 3]]
    seed = draw(st.integers(0, 2**32 - 1))
    masked = draw(st.booleans())
    random = np.random.default_rng(seed)
    return Result(
        name=draw(st.text(max_size=10)),
        size=(height, width),
        tags=Tags(
            tuple(tags),
            np.array([draw(unit) for _ in tags], np.float32),
            draw(st.sampled_from([None, np.arange(len(tags))])),
            draw(
                st.none() | st.lists(st.sampled_from([*KINDS, ""]), min_size=len(tags), max_size=len(tags)).map(tuple)
            ),
        ),
        instances=Instances(
            boxes,
            np.array([draw(unit) for _ in range(count)], np.float32),
            tuple(draw(names) for _ in range(count)),
            masks=random.random((count, height, width)) < random.random() if masked else None,
            mask_scores=random.random(count, dtype=np.float32) if masked and draw(st.booleans()) else None,
        ),
        timings={"tag": draw(st.floats(0, 1e3))},
        provenance={"versions": {"rasa": "0"}},
        failure=draw(st.sampled_from([None, Failure("decode", "ImageError", "über")])),
    )


def same(left, right):
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and np.array_equal(left, right)


@given(results())
@settings(max_examples=200, deadline=None)
def test_json_round_trip_loses_nothing(result):
    back = Result.from_json(result.to_json())
    assert (back.name, back.size, back.timings, back.provenance, back.failure) == (
        result.name, result.size, result.timings, result.provenance, result.failure,
    )  # fmt: skip
    assert back.tags.names == result.tags.names
    assert back.instances.labels == result.instances.labels
    assert same(back.tags.scores, result.tags.scores)
    assert same(back.tags.ids, result.tags.ids)
    assert back.tags.kinds == result.tags.kinds
    for attribute in ("boxes", "scores", "masks", "mask_scores"):
        assert same(getattr(back.instances, attribute), getattr(result.instances, attribute)), attribute


def test_json_is_one_line_of_plain_values():
    text = Result("a\nb.jpg", (2, 2), Tags.of(["狗"])).to_json()
    assert "\n" not in text
    assert "狗" in text
    assert json.loads(text)["schema"] == "rasa.result/1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "coco"}, "expected 'rasa.result/1'"),
        ({"size": [2]}, "not enough values"),
        ({"tags": {"names": ["a"], "scores": [], "ids": None}}, r"shape \(1\), got \(0,\)"),
        ({"tags": None}, "TypeError"),
        ({"failure": {"stage": "x"}}, "TypeError"),
        (
            {"instances": {"boxes": [[0] * 4], "scores": [2], "labels": ["a"], "masks": None, "mask_scores": None}},
            r"must be in \[0, 1\]",
        ),
        (
            {
                "instances": {
                    "boxes": [[0, 0, 1, 1]], "scores": [1], "labels": ["a"], "mask_scores": None,
                    "masks": [{"size": [9, 9], "counts": [81]}],
                }
            },
            r"mask of size \[9, 9\] in an image of size \[2, 2\]",
        ),
    ],
)  # fmt: skip
def test_malformed_json_is_a_typed_error(change, message):
    data = {**Result("a.jpg", (2, 2)).to_dict(), **change}
    with pytest.raises(FormatError, match=message):
        Result.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"])
def test_no_json_at_all(text):
    with pytest.raises(FormatError, match="not a rasa result"):
        Result.from_json(text)


def test_values_are_read_only_and_the_callers_arrays_stay_writable():
    boxes = np.zeros((1, 4), np.float32)
    found = Instances(boxes, np.ones(1, np.float32), ("a",))
    with pytest.raises(ValueError, match="read-only"):
        found.boxes[0] = 1
    boxes[0] = 0
    with pytest.raises(AttributeError):
        found.labels = ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image(np.zeros((2, 2), np.uint8)), r"must have shape \(any, any, 3\), got \(2, 2\)"),
        (lambda: Image(np.zeros((2, 2, 3))), "must be uint8, got float64"),
        (lambda: Image(np.zeros((0, 2, 3), np.uint8), "a.png"), "'a.png' has no pixels"),
        (lambda: Tags(("a", "a"), [1, 1]), "'a' more than once"),
        (lambda: Tags(("a",), [np.nan]), r"must be in \[0, 1\]"),
        (lambda: Tags("cat", [1, 1, 1]), "the single string 'cat'"),
        (lambda: Tags((" ",), [1]), "non-empty strings, got ' '"),
        (lambda: Tags((3,), [1]), "non-empty strings, got 3"),
        (
            lambda: Instances(np.zeros((4, 12)), np.ones(12), ("a",) * 12),
            r"shape \(12, 4\), got \(4, 12\); pass one xyxy",
        ),
        (lambda: Instances([[5, 0, 1, 1]], [1], ("a",)), "reversed"),
        (lambda: Instances([[np.nan, 0, 1, 1]], [1], ("a",)), "NaN or infinity"),
        (lambda: Instances([[0, 0, 1, 1]], [1], ("a",), mask_scores=[1]), "mask_scores without masks"),
        (lambda: Instances([[0, 0, 1, 1]], ["x"], ("a",)), "scores must be float32 values"),
        (
            lambda: Result("a", (5, 5), instances=Instances([[0, 0, 1, 1]], [1], ("a",), np.zeros((1, 2, 2), bool))),
            r"size of the image, \(5, 5\), got \(2, 2\)",
        ),
        (lambda: Result("a", (5, 5)).with_masks(Masks(np.zeros((1, 5, 5), bool))), "0 instances but got 1 masks"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_empty_is_normal():
    empty = Instances()
    assert (empty.boxes.shape, empty.scores.shape, empty.labels, len(Tags())) == ((0, 4), (0,), (), 0)
    assert len(Instances([], [], ())) == 0
    assert empty.take([]).boxes.shape == (0, 4)
    assert Result("a", (3, 4)).with_masks(Masks(np.zeros((0, 3, 4), bool))).instances.masks.shape == (0, 3, 4)


@pytest.mark.parametrize("index", [[1, 0], [False, True, True], np.array([2]), [], np.zeros(3, bool)])
def test_take(index):
    found = Instances(
        np.arange(12).reshape(3, 4), [0.1, 0.2, 0.3], ("a", "b", "c"), np.zeros((3, 2, 2), bool), [0, 0, 1]
    )
    chosen = found.take(index)
    expected = np.arange(3)[np.array(index, dtype=None if len(index) else int)]
    assert chosen.labels == tuple("abc"[i] for i in expected)
    np.testing.assert_array_equal(chosen.boxes, found.boxes[expected])
    assert chosen.masks.shape == (len(expected), 2, 2)


def test_detections_speak_supervision():
    masks = np.zeros((3, 5, 5), bool)
    masks[0, :2] = True
    found = Instances([[0, 0, 5, 2]] * 3, [0.9, 0.8, 0.7], ("dog", "cat", "dog"), masks, [0.5, 0.6, 0.7])
    detections = Result("a", (5, 5), instances=found).detections
    assert isinstance(detections, sv.Detections)
    assert detections["class_name"].tolist() == ["dog", "cat", "dog"]
    assert detections.class_id.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(detections.mask, masks)
    np.testing.assert_allclose(detections.data["mask_score"], [0.5, 0.6, 0.7])
    assert len(Result("a", (5, 5)).detections) == 0
    # Their tools work on it: same boxes, same class, so NMS keeps the best of each.
    unmasked = Result("a", (5, 5), instances=Instances(found.boxes, found.scores, found.labels)).detections
    assert unmasked.with_nms(0.5).confidence.tolist() == pytest.approx([0.9, 0.8])


def test_two_images_of_equal_pixels_are_two_keys():
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert len({Image(pixels), Image(pixels)}) == 2


def test_kinds_of_tags_say_what_can_have_a_box():
    tags = Tags(
        ("dog", "beach", "run", "red", "thing"), np.ones(5), kinds=["object", "scene", "action", "attribute", ""]
    )
    assert tags.kinds == ("object", "scene", "action", "attribute", "")
    assert tags.objects == ("dog", "thing")
    assert Tags.of(["dog", "beach"]).objects == ("dog", "beach")
    assert Tags().objects == ()


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("object",), r"tag kinds must be 2 strings, one per tag, got \('object',\)"),
        ("os", "tag kinds must be 2 strings, one per tag, got 'os'"),
        (("object", "thing"), "must be of object, scene, action, attribute, or \"\" if not known, got 'thing'"),
        (("object", None), 'or "" if not known, got None'),
    ],
)
def test_kinds_are_checked(kinds, message):
    with pytest.raises(InputError, match=message):
        Tags(("dog", "beach"), np.ones(2), kinds=kinds)


def test_results_without_kinds_are_read():
    data = Result("a.jpg", (4, 5), tags=Tags.of(["dog"])).to_dict()
    del data["tags"]["kinds"]
    assert Result.from_dict(data).tags.kinds is None
    data["tags"]["kinds"] = 7
    with pytest.raises(FormatError, match="malformed rasa result"):
        Result.from_dict(data)

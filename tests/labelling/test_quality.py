"""Filters and merging, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa import Instances, Result, Tags
from rasa.errors import InputError
from rasa.labelling.quality import Keep, Merge, apply_changes

LABELS = ("dog", "puppy", "cat")
SYNONYMS = {"puppy": "dog"}


def result_of(boxes, scores, labels, *, masks=None, tags=None, mask_scores=None, size=(12, 12)):
    found = Instances(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), labels, masks, mask_scores
    )
    return Result("a.jpg", size, tags or Tags.of(labels), found)


@st.composite
def results(draw, masks=None):
    count = draw(st.integers(0, 6))
    grid = st.integers(0, 11)
    boxes = []
    for _ in range(count):
        x1, y1 = draw(grid), draw(grid)
        boxes.append([x1, y1, draw(st.integers(x1, 12)), draw(st.integers(y1, 12))])
    scores = [draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])) for _ in range(count)]
    labels = tuple(draw(st.sampled_from(LABELS)) for _ in range(count))
    stack = None
    if draw(st.booleans()) if masks is None else masks:
        stack = np.zeros((count, 12, 12), np.bool_)
        for mask, (x1, y1, x2, y2) in zip(stack, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
            mask[draw(grid), draw(grid)] ^= True
    tags = Tags(LABELS, np.array([0.9, 0.5, 0.1], np.float32), kinds=("object", "scene", ""))
    return result_of(boxes, scores, labels, masks=stack, tags=tags)


def brute_iou(found, one, other):
    if found.masks is not None:
        a, b = (set(zip(*np.nonzero(found.masks[i]), strict=True)) for i in (one, other))
    else:
        a, b = (
            set(itertools.product(range(int(x1), int(x2)), range(int(y1), int(y2))))
            for x1, y1, x2, y2 in found.boxes[[one, other]]
        )
    return len(a & b) / len(a | b) if a | b else 0.0


def brute_merge(found, same, other):
    """The definition, without any shortcut: an object stays if no better one that stays covers it."""
    kept = []
    for i in sorted(range(len(found)), key=lambda i: (-found.scores[i], i)):
        limits = [
            same
            if SYNONYMS.get(found.labels[i], found.labels[i]) == SYNONYMS.get(found.labels[k], found.labels[k])
            else other
            for k in kept
        ]
        if all(np.float32(brute_iou(found, k, i)) <= np.float32(limit) for k, limit in zip(kept, limits, strict=True)):
            kept.append(i)
    return sorted(kept)


@settings(max_examples=200, deadline=None)
@given(result=results(), same=st.sampled_from([0.0, 0.3, 0.5, 1.0]), other=st.sampled_from([0.0, 0.5, 0.85, 1.0]))
def test_merging_is_what_its_definition_says(result, same, other):
    merged = Merge(same_iou=same, other_iou=other, classes=SYNONYMS)(result)
    expected = result.instances.take(brute_merge(result.instances, same, other))
    np.testing.assert_array_equal(merged.instances.boxes, expected.boxes)
    assert merged.instances.labels == expected.labels
    assert merged.tags.names == result.tags.names
    again = Merge(same_iou=same, other_iou=other, classes=SYNONYMS)(merged)
    assert len(again.instances) == len(merged.instances)


def test_synonyms_are_one_object_sooner_than_other_labels():
    boxes, scores = [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 6]], [0.9, 0.8, 0.7]  # IoU 0.6 with the first
    result = result_of(boxes, scores, ("dog", "puppy", "cat"))
    assert Merge(classes=SYNONYMS)(result).instances.labels == ("dog", "cat")
    assert Merge(other_iou=0.5)(result).instances.labels == ("dog",)
    assert Merge()(result).instances.labels == ("dog", "puppy")  # cat lies on puppy alone


def test_masks_decide_where_boxes_would_merge():
    masks = np.zeros((2, 12, 12), np.bool_)
    masks[0, ::2], masks[1, 1::2] = True, True
    result = result_of([[0, 0, 12, 12]] * 2, [0.9, 0.8], ("zebra", "zebra"), masks=masks, tags=Tags.of(["zebra"]))
    assert len(Merge()(result).instances) == 2
    assert len(Merge()(result_of([[0, 0, 12, 12]] * 2, [0.9, 0.8], ("zebra", "zebra"), tags=Tags())).instances) == 1


def test_a_label_that_goes_stays_a_tag():
    result = result_of([[0, 0, 9, 9]] * 2, [0.9, 0.75], ("dog", "puppy"), tags=Tags.of(["dog"]))
    merged = Merge(classes=SYNONYMS)(result)
    assert (merged.instances.labels, merged.tags.names) == (("dog",), ("dog", "puppy"))
    assert merged.tags.scores.tolist() == [1.0, 0.75]


@settings(deadline=None)
@given(
    result=results(),
    score=st.sampled_from([0.0, 0.25, 0.7]),
    area=st.integers(0, 40),
    drop=st.sets(st.sampled_from(LABELS)),
)
def test_what_stays_is_what_passes(result, score, area, drop):
    kept = Keep(min_score=score, min_area=area, min_tag_score=score, kinds=("object",), drop=frozenset(drop))(result)
    found = result.instances
    pixels = [
        int((b[2] - b[0]) * (b[3] - b[1])) if found.masks is None else int(found.masks[i].sum())
        for i, b in enumerate(found.boxes)
    ]
    wanted = [
        i
        for i, label in enumerate(found.labels)
        if label not in drop | {"puppy"} and found.scores[i] >= score and pixels[i] >= area
    ]
    np.testing.assert_array_equal(kept.instances.boxes, found.boxes[wanted])
    assert set(kept.tags.names) == {n for n, s in zip(LABELS, (0.9, 0.5, 0.1), strict=True) if s >= score} - drop - {
        "puppy"
    }
    assert kept.size == result.size


def test_a_score_equal_to_the_limit_stays():
    result = result_of(
        [[0, 0, 2, 2]], [0.7], ("dog",), masks=np.ones((1, 12, 12), np.bool_), mask_scores=np.array([0.7])
    )
    assert len(Keep(min_score=0.7, min_mask_score=0.7)(result).instances) == 1
    assert len(Keep(min_mask_score=0.71)(result).instances) == 0


def test_nothing_asked_changes_nothing():
    result = result_of([[0, 0, 2, 2]], [0.0], ("dog",))
    assert Keep()(result) is result
    assert apply_changes(result, []) is result
    empty = Result("b", (3, 3))
    assert apply_changes(empty, [Keep(min_score=0.5, kinds=()), Merge()]).instances.labels == ()


def test_changes_are_applied_in_order():
    result = result_of([[0, 0, 9, 9]] * 2, [0.9, 0.75], ("dog", "cat"))
    assert apply_changes(result, [Keep(drop=frozenset({"dog"})), Merge()]).instances.labels == ("cat",)
    assert apply_changes(result, [Merge(), Keep(drop=frozenset({"dog"}))]).instances.labels == ()


def test_the_steps_describe_themselves():
    assert Keep(drop=frozenset({"b", "a"}), kinds=("scene",)).describe() == {
        "step": "keep",
        "min_score": 0.0,
        "min_mask_score": 0.0,
        "min_area": 0.0,
        "min_tag_score": 0.0,
        "kinds": ["scene"],
        "drop": ["a", "b"],
    }
    assert Merge(classes=SYNONYMS).describe()["classes"] == SYNONYMS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Keep(min_score=1.5), "min_score must be .*1.5"),
        (lambda: Keep(min_area=float("nan")), "min_area must be a number of pixels, got nan"),
        (lambda: Keep(kinds=("thing",)), "kinds must be of object, scene, action, attribute, got 'thing'"),
        (lambda: Merge(same_iou=-0.1), "same_iou must be"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

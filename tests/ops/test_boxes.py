"""Boxes and masks on plain arrays, against supervision and by hand."""

import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa.ops.boxes import box_areas, box_coverage, box_iou, clip_boxes
from rasa.ops.masks import mask_areas, mask_iou, masks_to_boxes
from rasa.ops.nms import nms


@st.composite
def some_boxes(draw, most=12):
    count = draw(st.integers(0, most))
    corners = np.array(draw(st.lists(st.integers(0, 40), min_size=4 * count, max_size=4 * count)), np.float32)
    low, high = corners.reshape(count, 2, 2).min(1), corners.reshape(count, 2, 2).max(1) + 1
    return np.concatenate([low, high], axis=1).reshape(count, 4)


@given(some_boxes(), some_boxes())
@settings(deadline=None)
def test_iou_equals_supervision(boxes, others):
    expected = sv.box_iou_batch(boxes, others) if len(boxes) and len(others) else np.zeros((len(boxes), len(others)))
    np.testing.assert_allclose(box_iou(boxes, others), expected, atol=1e-6)


def test_areas_coverage_and_clipping_by_hand():
    boxes = np.array([[0, 0, 4, 2], [-5, 1, 2, 99], [50, 50, 60, 60]], np.float32)
    np.testing.assert_array_equal(box_areas(boxes[:1]), [8])
    np.testing.assert_array_equal(clip_boxes(boxes, (10, 20)), [[0, 0, 4, 2], [0, 1, 2, 10], [20, 10, 20, 10]])
    np.testing.assert_allclose(box_coverage(boxes[:1], np.array([[2, 0, 9, 9]], np.float32)), [[0.5]])


def test_empty_boxes_have_no_overlap():
    empty = np.array([[3, 3, 3, 3]], np.float32)
    assert box_iou(empty, empty) == 0
    assert box_coverage(empty, empty) == 0


@given(some_boxes(most=20), st.data())
@settings(deadline=None)
def test_class_aware_nms_equals_supervision(boxes, data):
    scores = np.array(data.draw(st.permutations(range(len(boxes)))), np.float32) / 20
    labels = [data.draw(st.sampled_from(["a", "b"])) for _ in boxes]
    classes = np.array([label == "b" for label in labels], np.float32)
    if not len(boxes):
        assert len(nms(boxes, scores, labels, nms_threshold=0.5)) == 0
        return
    predictions = np.column_stack([boxes, scores, classes])
    expected = np.flatnonzero(sv.box_non_max_suppression(predictions, iou_threshold=0.5))
    np.testing.assert_array_equal(nms(boxes, scores, labels, nms_threshold=0.5), expected)


def test_thresholds_within_and_across_labels_are_apart():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9.5]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    labels = ["dog", "dog", "puppy"]
    assert nms(boxes, scores, labels, nms_threshold=1, merge_threshold=1).tolist() == [0, 1, 2]
    assert nms(boxes, scores, labels, nms_threshold=0.5, merge_threshold=1).tolist() == [0, 2]
    assert nms(boxes, scores, labels, nms_threshold=1, merge_threshold=0.8).tolist() == [0, 1]
    assert nms(boxes, scores, labels, nms_threshold=0, merge_threshold=0).tolist() == [0]


def test_ties_keep_the_first():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    assert nms(boxes, np.array([0.5, 0.5], np.float32), ["a", "a"], nms_threshold=0.5).tolist() == [0]


@pytest.mark.parametrize("count", [0, 3])
def test_mask_geometry(count):
    masks = np.zeros((count, 6, 8), np.bool_)
    if count:
        masks[0, 2, 3] = True
        masks[1, 1:5, 2:8] = True
    np.testing.assert_array_equal(mask_areas(masks), [1, 24, 0][:count])
    np.testing.assert_array_equal(
        masks_to_boxes(masks), [[3, 2, 4, 3], [2, 1, 8, 5], [0, 0, 0, 0]][:count] or np.zeros((0, 4))
    )
    ious = mask_iou(masks, masks)
    assert ious.shape == (count, count)
    if count:
        np.testing.assert_allclose(ious, [[1, 1 / 24, 0], [1 / 24, 1, 0], [0, 0, 0]], rtol=1e-6)

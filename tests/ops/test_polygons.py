"""Polygons against scikit-image's components and pycocotools' filling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco
from skimage.measure import label

from rasa.errors import InputError
from rasa.ops.polygons import Polygon, fill_rings, mask_to_polygons, outlines_iou, polygons_to_mask

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
# pycocotools 2.0.11 decodes through an __array__ without NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def signed_area(ring):
    """Shoelace formula; positive where the ring goes clockwise on the screen, whose y points down."""
    x, y = ring.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def by_pycocotools(rings, size):
    rles = coco.frPyObjects([np.ravel(ring).tolist() for ring in rings], *size)
    return coco.decode(coco.merge(rles)).astype(bool)


@given(masks)
@settings(max_examples=300, deadline=None)
def test_round_trip(mask):
    np.testing.assert_array_equal(polygons_to_mask(mask_to_polygons(mask), mask.shape), mask)


@given(masks)
@settings(max_examples=200, deadline=None)
def test_parts_and_holes_are_the_components(mask):
    polygons = mask_to_polygons(mask)
    parts = label(mask, connectivity=1)
    background = label(~np.pad(mask, 1), connectivity=2)
    assert len(polygons) == parts.max()
    assert sum(len(polygon.holes) for polygon in polygons) == background.max() - 1
    for number, polygon in enumerate(polygons, 1):
        # Each by itself is one component with its own holes, and the parts come row by row.
        np.testing.assert_array_equal(polygons_to_mask([polygon], mask.shape), parts == number)


@given(masks)
@settings(max_examples=200, deadline=None)
def test_rings_turn_and_only_at_corners(mask):
    for polygon in mask_to_polygons(mask):
        assert signed_area(polygon.outer) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)
        for ring in (polygon.outer, *polygon.holes):
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert (steps[:, 0] == 0).tolist() in ([False, True] * (len(ring) // 2), [True, False] * (len(ring) // 2))


@given(masks.filter(np.any))
@settings(max_examples=200, deadline=None)
def test_pycocotools_fills_the_same_pixels(mask):
    outer = [polygon.outer for polygon in mask_to_polygons(mask)]
    expected = polygons_to_mask([Polygon(ring) for ring in outer], mask.shape)
    np.testing.assert_array_equal(by_pycocotools(outer, mask.shape), expected)


@given(masks.filter(np.any))
@settings(max_examples=100, deadline=None)
def test_the_iou_of_outlines(mask):
    polygons = mask_to_polygons(mask)
    filled = by_pycocotools([polygon.outer for polygon in polygons], mask.shape)
    assert outlines_iou(mask, polygons) == (mask & filled).sum() / (mask | filled).sum()


def test_by_hand():
    mask = np.array([[0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [1, 0, 0, 0, 0]], np.bool_)
    ring, corner = mask_to_polygons(mask)
    assert ring.outer.tolist() == [[1, 0], [4, 0], [4, 3], [1, 3]]
    assert [hole.tolist() for hole in ring.holes] == [[[2, 1], [2, 2], [3, 2], [3, 1]]]
    assert corner.outer.tolist() == [[0, 3], [1, 3], [1, 4], [0, 4]]
    assert corner.holes == ()
    assert outlines_iou(mask, [ring, corner]) == 9 / 10


def test_a_gap_that_opens_by_a_corner_is_no_hole():
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.bool_)
    (polygon,) = mask_to_polygons(mask)
    assert polygon.holes == ()
    np.testing.assert_array_equal(polygons_to_mask([Polygon(polygon.outer)], mask.shape), mask)


def test_parts_within_holes():
    y, x = np.indices((41, 41))
    distance = np.hypot(y - 20, x - 20)
    mask = (distance < 20) & ~(distance < 15) | (distance < 11) & ~(distance < 6) | (distance < 2)
    polygons = mask_to_polygons(mask)
    assert [len(polygon.holes) for polygon in polygons] == [1, 1, 0]


def test_nothing_and_everything():
    assert mask_to_polygons(np.zeros((3, 4), np.bool_)) == []
    assert outlines_iou(np.zeros((3, 4), np.bool_), []) == 1.0
    assert polygons_to_mask([], (3, 4)).tolist() == [[False] * 4] * 3
    (polygon,) = mask_to_polygons(np.ones((3, 4), np.bool_))
    assert polygon.outer.tolist() == [[0, 0], [4, 0], [4, 3], [0, 3]]
    assert mask_to_polygons(np.zeros((0, 4), np.bool_)) == []


def test_lines_of_one_pixel_keep_their_pixels():
    """A contour through centres has no area here, and every pixel would be lost."""
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 1:8] = mask[1:8, 4] = mask[0, 0] = True
    rings = [polygon.outer for polygon in mask_to_polygons(mask)]
    np.testing.assert_array_equal(by_pycocotools(rings, mask.shape), mask)


# Filling what others drew

points = st.tuples(st.floats(-5, 30), st.floats(-5, 30))


@given(st.lists(points, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_ring_fills_centres_by_the_even_odd_rule(ring):
    filled = fill_rings([ring], (20, 24))
    y, x = np.indices((20, 24)) + 0.5
    inside = np.zeros((20, 24), np.bool_)
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        crosses = (y1 <= y) != (y2 <= y)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inside ^= crosses & (x >= x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    # A centre on the line itself may fall to either side by the last bit.
    assert (filled != inside).sum() <= 2


def test_a_smooth_polygon_is_close_to_that_of_pycocotools():
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.stack([50.3 + 40 * np.cos(angles), 40.7 + 30 * np.sin(angles)], axis=1)
    ours, theirs = fill_rings([ring], (80, 100)), by_pycocotools([ring], (80, 100))
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.98
    assert abs(ours.sum() - np.pi * 40 * 30) < 0.01 * ours.sum()


@pytest.mark.parametrize("ring", [[[0, float("nan")]], [[1, 2, 3]], [1, 2], [["a", "b"]], [[0, 1], [2]]])
def test_no_ring(ring):
    with pytest.raises(InputError, match="a ring must be"):
        fill_rings([ring], (4, 4))


def test_no_mask():
    with pytest.raises(InputError, match=r"must have shape \(height, width\), got \(4,\)"):
        mask_to_polygons(np.zeros(4, np.bool_))

"""Run lengths against the peer that defines them, pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from rasa.errors import FormatError, InputError
from rasa.ops.rle import mask_to_rle, rle_area, rle_to_mask

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(masks)
@settings(max_examples=200, deadline=None)
def test_encoding_equals_pycocotools(mask):
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert mask_to_rle(mask) == {"size": list(mask.shape), "counts": expected["counts"].decode()}


@given(masks)
@settings(max_examples=200, deadline=None)
def test_round_trip_and_area(mask):
    rle = mask_to_rle(mask)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)
    assert rle_area(rle) == mask.sum()


# pycocotools 2.0.11 decodes through an __array__ without NumPy 2's copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_long_runs_need_several_groups():
    mask = np.zeros((3000, 2000), np.bool_)
    mask[5:2900, 7:1900] = True
    rle = mask_to_rle(mask)
    np.testing.assert_array_equal(coco.decode({**rle, "counts": rle["counts"].encode()}).astype(bool), mask)
    np.testing.assert_array_equal(rle_to_mask(rle), mask)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_masks_without_pixels(shape):
    assert rle_to_mask(mask_to_rle(np.zeros(shape, np.bool_))).shape == shape


def test_uncompressed_counts():
    np.testing.assert_array_equal(rle_to_mask({"size": [2, 2], "counts": [1, 2, 1]}), [[False, True], [True, False]])


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "do not fill"),
        ({"size": [2, 2], "counts": [-1, 5]}, "do not fill"),
        ({"size": [2, 2], "counts": [2**62, 2**62]}, "do not fill"),
        ({"size": [-1, 2], "counts": []}, "impossible size"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "impossible size"),
        ({"size": [2, 2], "counts": "\x01"}, "does not use"),
        ({"size": [2, 2], "counts": "é"}, "does not fill|do not fill|does not use"),
        ({"size": [2, 2], "counts": "o"}, "middle of a number"),
        ({"size": [2, 2], "counts": "o" * 20 + "0"}, "more than 60 bits"),
    ],
)
def test_made_up_run_lengths_are_refused(rle, message):
    with pytest.raises(FormatError, match=message):
        rle_to_mask(rle)


@given(st.text(max_size=30), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_no_text_does_worse_than_a_typed_error(text, height, width):
    try:
        mask = rle_to_mask({"size": [height, width], "counts": text})
    except FormatError:
        return
    assert mask.shape == (height, width)


def test_a_stack_of_masks_is_no_mask():
    with pytest.raises(InputError, match=r"\(height, width\), got \(1, 2, 2\)"):
        mask_to_rle(np.zeros((1, 2, 2), np.bool_))

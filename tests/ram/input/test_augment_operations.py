"""RandAugment's operations against Pillow's and OpenCV's, with the published constants written out here."""

import cv2
import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance, ImageOps

from rasa.errors import InputError
from rasa_ram.data.augment_operations import OPERATIONS, apply_change, draw_operations, strength, to_change
from tests.ram.input.pictures import picture

SIDE = 64


def changed(name, amount, pixels):
    source = PIL.Image.fromarray(pixels)
    change = to_change(name, amount, source)
    return np.asarray(source if change is None else apply_change(source, change))


PICTURES = {
    "blocks": picture(1, (SIDE, SIDE)),
    "narrow": (picture(2, (SIDE, SIDE)) // 4 + 60).astype(np.uint8),
    "one value": np.full((SIDE, SIDE, 3), 77, np.uint8),
    "two values": np.where(picture(3, (SIDE, SIDE)) > 128, 200, 20).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    "nearly one value": np.eye(SIDE, dtype=np.uint8)[..., None].repeat(3, 2) * 9,
}


@pytest.mark.parametrize("pixels", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize(("name", "peer"), [("AutoContrast", ImageOps.autocontrast), ("Equalize", ImageOps.equalize)])
def test_histogram_operations_are_pillows(name, peer, pixels):
    np.testing.assert_array_equal(changed(name, 0, pixels), np.asarray(peer(PIL.Image.fromarray(pixels))))


@pytest.mark.parametrize("amount", [0.1, 0.64, 1.0, 1.9])
def test_brightness_scales_and_cuts(amount):
    pixels = PICTURES["noise"]
    expected = (pixels.astype(np.float64) * amount).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(changed("Brightness", amount, pixels), expected)


@pytest.mark.parametrize("amount", [0.1, 1.0, 1.9])
def test_sharpness_is_pillows(amount):
    source = PIL.Image.fromarray(PICTURES["blocks"])
    expected = np.asarray(ImageEnhance.Sharpness(source).enhance(amount))
    np.testing.assert_array_equal(changed("Sharpness", amount, PICTURES["blocks"]), expected)


def forward(name, amount):
    """The published map of pixels, 2 x 3, as OpenCV takes it."""
    if name == "Rotate":
        return cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), amount, 1)
    values = {
        "ShearX": [[1, amount, 0], [0, 1, 0]], "ShearY": [[1, 0, 0], [amount, 1, 0]],
        "TranslateX": [[1, 0, -amount], [0, 1, 0]], "TranslateY": [[1, 0, 0], [0, 1, -amount]],
    }  # fmt: skip
    return np.float32(values[name])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_geometry_is_that_of_the_published_warp(name, sign):
    amount, pixels = sign * strength(name, 5), PICTURES["blocks"]
    ours = changed(name, amount, pixels).astype(int)
    warp = forward(name, amount)
    theirs = cv2.warpAffine(pixels, warp, (SIDE, SIDE), borderValue=(128, 128, 128)).astype(int)
    # A picture of ones with zeros around it tells where OpenCV blends with the fill.
    inside = cv2.warpAffine(np.full((SIDE, SIDE), 255, np.uint8), warp, (SIDE, SIDE))
    assert (inside == 255).mean() > 0.7
    assert (inside == 0).any()
    assert np.abs(ours - theirs)[inside == 255].max() <= 2
    np.testing.assert_array_equal(ours[inside == 0], 128)
    edge = (inside > 0) & (inside < 255)
    assert edge.mean() < 0.05


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_a_change_means_the_same_at_any_size(name):
    large = PIL.Image.fromarray(picture(4, (128, 128)))
    small = large.resize((64, 64), PIL.Image.Resampling.BOX)
    change = to_change(name, strength(name, 10), large)
    first = np.asarray(apply_change(large, change).resize((64, 64), PIL.Image.Resampling.BOX)).astype(int)
    second = np.asarray(apply_change(small, change)).astype(int)
    filled = (np.abs(first - 128).max(axis=2) < 2) | (np.abs(second - 128).max(axis=2) < 2)
    assert np.abs(first - second)[~filled].mean() < 2


def test_the_published_magnitude():
    published = {name: strength(name, 5) for name in OPERATIONS}
    assert published == {
        "Identity": 0, "AutoContrast": 0, "Brightness": 1.0, "Sharpness": 1.0, "Equalize": 0, "ShearX": 0.15,
        "ShearY": 0.15, "TranslateX": 5.0, "TranslateY": 5.0, "Rotate": 15.0,
    }  # fmt: skip


def test_brightness_and_sharpness_do_nothing_at_the_published_magnitude():
    for name in ("Identity", "Brightness", "Sharpness"):
        assert to_change(name, strength(name, 5), PIL.Image.fromarray(PICTURES["noise"])) is None


def test_operations_are_drawn_evenly_and_applied_half_of_the_time():
    rng, count = np.random.default_rng(0), 8000
    drawn = [draw_operations(rng, 2, 5) for _ in range(count)]
    lengths = np.bincount([len(operations) for operations in drawn], minlength=3) / count
    np.testing.assert_allclose(lengths, [0.25, 0.5, 0.25], atol=0.02)
    flat = [operation for operations in drawn for operation in operations]
    shares = [sum(name == wanted for name, _ in flat) / len(flat) for wanted in OPERATIONS]
    np.testing.assert_allclose(shares, 0.1, atol=0.012)
    signs = [amount > 0 for name, amount in flat if name in {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}]
    assert 0.47 < np.mean(signs) < 0.53
    # With replacement: a pair is of one kind with 1 in 10.
    pairs = [operations for operations in drawn if len(operations) == 2]
    assert 0.07 < np.mean([first[0] == second[0] for first, second in pairs]) < 0.13


def test_an_unknown_operation_is_refused():
    with pytest.raises(InputError, match="unknown operation 'Cutout'; there are Identity, AutoContrast"):
        strength("Cutout", 5)

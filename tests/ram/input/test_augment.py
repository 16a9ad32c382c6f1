"""Views: the crop's distribution against torchvision, the same crop for both networks, and what is drawn from where."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.data.augment import Views, draw_crop, evaluation_view, make_view, training_view
from rasa_ram.preprocess import INFERENCE, ORIGINAL_TRAINING, preprocess
from tests.ram.input.pictures import coordinates, picture


def values(pixels, normalisation):
    """Undo the normalisation: float ``(3, S, S)`` in [0, 255]."""
    mean, std = (np.array(part)[:, None, None] for part in (normalisation.mean, normalisation.std))
    return (pixels * std + mean) * 255


def shrink(pixels, factor):
    channels, side, _ = pixels.shape
    return pixels.reshape(channels, side // factor, factor, side // factor, factor).mean(axis=(2, 4))


def views_of(image, seed, **settings):
    view = training_view(image, Views(**settings), np.random.default_rng(seed))
    return values(view.pixels, INFERENCE), values(view.teacher_pixels, ORIGINAL_TRAINING)


@pytest.mark.parametrize("seed", range(8))
def test_both_networks_see_the_same_crop(seed):
    # Red and green say where a pixel comes from, so the corners of both views must come from the same places.
    image = Image(coordinates())
    student, teacher = views_of(image, seed, size=128, teacher_size=64, operations=0)
    for channel in range(2):
        inside = shrink(student, 2)[channel, 2:-2, 2:-2]
        np.testing.assert_allclose(inside, teacher[channel, 2:-2, 2:-2], atol=1.01)
    assert np.ptp(student[0]) > 80


def test_both_networks_see_the_same_changes():
    image = Image(picture(5, (200, 260)))
    errors = {
        crops: [
            np.abs(shrink(student, 2) - teacher)[:, 4:-4, 4:-4].mean()
            for student, teacher in (
                views_of(image, seed, size=128, teacher_size=64, crops=crops, operations=4, magnitude=8)
                for seed in range(40)
            )
        ]
        for crops in ("same", "independent")
    }
    # What is left is that of resampling twice here, at the border of what was turned or shifted most of all.
    assert max(errors["same"]) < 6
    assert np.median(errors["same"]) < 1.5
    assert np.median(errors["independent"]) > 15


@pytest.mark.parametrize("seed", range(4))
def test_the_teachers_view_is_resampled_once(seed):
    """It is what a student of its size would see, to the bit: not a picture of the student's picture."""
    image, settings = Image(picture(3, (150, 200))), {"operations": 0, "normalisation": "clip"}
    view = training_view(image, Views(size=96, teacher_size=56, **settings), np.random.default_rng(seed))
    alone = training_view(image, Views(size=56, **settings), np.random.default_rng(seed))
    np.testing.assert_array_equal(view.teacher_pixels, alone.pixels)


def test_one_size_means_one_picture():
    view = training_view(Image(picture()), Views(size=32, teacher_size=32), np.random.default_rng(3))
    student, teacher = values(view.pixels, INFERENCE), values(view.teacher_pixels, ORIGINAL_TRAINING)
    np.testing.assert_array_equal(student.round(), teacher.round())


def test_the_student_does_not_depend_on_the_teacher():
    image = Image(picture())
    alone = training_view(image, Views(size=32), np.random.default_rng(4))
    for crops in ("same", "independent"):
        settings = Views(size=32, teacher_size=16, crops=crops)
        beside = training_view(image, settings, np.random.default_rng(4))
        np.testing.assert_array_equal(alone.pixels, beside.pixels)


@pytest.mark.parametrize(("crops", "alike"), [("same", True), ("independent", False)])
def test_independent_crops_are_there_by_name(crops, alike):
    image = Image(coordinates())
    student, teacher = views_of(image, 7, size=64, teacher_size=64, crops=crops, operations=0)
    assert (np.abs(student - teacher).max() < 1e-3) == alike


def test_without_changes_the_view_is_torchvisions_crop_and_resize():
    """The same rectangle through torchvision's own functional gives the same pixels."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    image, settings = Image(picture(2, (90, 120))), Views(size=40, flip=0, operations=0)
    left, top, right, bottom = draw_crop(np.random.default_rng(9), image.size, settings)
    view = training_view(image, settings, np.random.default_rng(9))
    import PIL.Image

    expected = functional.resized_crop(
        PIL.Image.fromarray(image.pixels), top, left, bottom - top, right - left, [40, 40], InterpolationMode.BICUBIC
    )
    np.testing.assert_array_equal(values(view.pixels, INFERENCE).round(), np.asarray(expected).transpose(2, 0, 1))


def test_crops_are_distributed_as_torchvisions():
    settings, count, (height, width) = Views(), 3000, (300, 400)
    rng = np.random.default_rng(0)
    ours = np.array([draw_crop(rng, (height, width), settings) for _ in range(count)], dtype=float)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blank = torch.zeros(1, height, width)
        theirs = np.array(
            [RandomResizedCrop.get_params(blank, list(settings.scale), list(settings.ratio)) for _ in range(count)]
        )
    w, h = ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]
    pairs = [
        (w * h, theirs[:, 2] * theirs[:, 3]), (w / h, theirs[:, 3] / theirs[:, 2]),
        (ours[:, 0], theirs[:, 1]), (ours[:, 1], theirs[:, 0]),
    ]  # fmt: skip
    for mine, other in pairs:
        assert stats.ks_2samp(mine, other).pvalue > 0.01
    assert w.max() <= width
    assert h.max() <= height
    assert 0.19 < (w * h).min() / (height * width) < 0.25


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1), (3, 100)])
def test_long_pictures_fall_back_as_torchvision(size):
    settings = Views(scale=(1.0, 1.0))
    left, top, right, bottom = draw_crop(np.random.default_rng(0), size, settings)
    with torch.random.fork_rng():
        i, j, h, w = RandomResizedCrop.get_params(torch.zeros(1, *size), [1.0, 1.0], list(settings.ratio))
    assert (top, left, bottom - top, right - left) == (i, j, max(1, h), max(1, w))
    assert training_view(Image(picture(0, size)), settings, np.random.default_rng(0)).pixels.shape == (3, 224, 224)


def test_half_of_the_views_are_flipped():
    image = Image(coordinates())
    settings, rng = Views(size=8, operations=0), np.random.default_rng(1)
    flipped = [values(training_view(image, settings, rng).pixels, INFERENCE)[0] for _ in range(600)]
    share = np.mean([red[0, 0] > red[0, -1] for red in flipped])
    assert 0.44 < share < 0.56  # 3 standard deviations


def test_one_generator_is_all_there_is_of_chance():
    image, settings = Image(picture()), Views(size=32, teacher_size=16)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (training_view(image, settings, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.teacher_pixels, second.teacher_pixels)
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("name", "normalisation"), [("imagenet", INFERENCE), ("clip", ORIGINAL_TRAINING)])
def test_evaluation_sees_what_inference_sees(name, normalisation):
    image, rng = Image(picture()), np.random.default_rng(0)
    settings = Views(size=40, teacher_size=24, augment=False, normalisation=name)
    view = make_view(image, settings, rng)
    np.testing.assert_array_equal(view.pixels, preprocess([image], 40, normalisation=normalisation)[0])
    np.testing.assert_array_equal(view.teacher_pixels, preprocess([image], 24, normalisation=ORIGINAL_TRAINING)[0])
    np.testing.assert_array_equal(rng.random(3), np.random.default_rng(0).random(3))
    assert evaluation_view(image, Views(size=40)).teacher_pixels is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"teacher_size": 0}, "teacher_size must be at least 1"),
        ({"operations": -1}, "operations must be at least 0"),
        ({"scale": (0.0, 1.0)}, r"scale must be two numbers in \(0, 1.0\]"),
        ({"scale": (0.5, 0.2)}, "the lesser first"),
        ({"ratio": (2.0, 1.0)}, "ratio must be two numbers"),
        ({"flip": 1.1}, r"flip must be in \[0, 1\], got 1.1"),
        ({"magnitude": 11}, r"magnitude must be in \[0, 10\]"),
        ({"crops": "both"}, "crops must be one of same, independent, got 'both'"),
        ({"normalisation": "none"}, "normalisation must be one of imagenet, clip"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Views(**settings)

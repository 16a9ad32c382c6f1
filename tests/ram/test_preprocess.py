"""The image transform, against the published one and by properties."""

import hashlib
import json

import numpy as np
import PIL.Image
import pytest

from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.preprocess import ORIGINAL_TRAINING, preprocess, resize
from tests.ram import reference


def open_golden_image(golden, index, mode):
    """The stored image as any reader would give it: alpha dropped, palette looked up."""
    opened = PIL.Image.fromarray(golden[f"img{index}_uint8"], mode if mode != "P" else "L")
    if mode == "P":
        opened = PIL.Image.fromarray(golden[f"img{index}_palette"][golden[f"img{index}_uint8"]])
    return Image(np.asarray(opened.convert("RGB")), name=f"img{index}")


def test_golden_preprocess_matches_the_published_transform():
    golden = reference.load_npz(reference.reference_folder() / "golden_preprocess.npz")
    info = json.loads(str(golden["info"]))
    assert info
    for index, facts in enumerate(info):
        image = open_golden_image(golden, index, facts["mode"])
        assert image.size == (facts["height"], facts["width"])
        sizes = [int(key) for key in facts if key.isdigit()]
        assert sizes
        for size in sizes:
            check_against(facts[str(size)], image, size)
        small = golden[f"img{index}_out64"]
        np.testing.assert_allclose(preprocess([image], small.shape[-1])[0], small, rtol=0, atol=1e-6)


def check_against(facts, image, size):
    assert hashlib.sha256(resize(image, size).tobytes()).hexdigest() == facts["sha256_of_resized_uint8_hwc"]
    planes = preprocess([image], size)[0].astype(np.float64)
    np.testing.assert_allclose(planes.mean(axis=(1, 2)), facts["mean"], atol=1e-6)
    np.testing.assert_allclose(planes.std(axis=(1, 2)), facts["std"], atol=1e-6)
    np.testing.assert_allclose(planes[:, 0, 0], facts["corner"], atol=1e-6)
    np.testing.assert_allclose(planes[:, size // 2, size // 2], facts["centre"], atol=1e-6)
    # Sums of up to 442,368 values: each may be 1e-6 off.
    np.testing.assert_allclose(
        [planes.sum(), np.abs(planes).sum()], [facts["sum"], facts["abs_sum"]], atol=planes.size * 1e-7
    )


@pytest.fixture
def images():
    random = np.random.default_rng(5)
    shapes = ((1, 1, 3), (40, 7, 3), (16, 16, 3), (200, 90, 3))
    return [Image(random.integers(0, 256, size=shape, dtype=np.uint8)) for shape in shapes]


def test_a_batch_equals_its_images_one_by_one(images):
    batch = preprocess(images, 16)
    assert batch.shape == (4, 3, 16, 16)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, np.concatenate([preprocess([image], 16) for image in images]))


def test_an_image_of_the_right_size_is_only_normalised(images):
    pixels = images[2].pixels
    np.testing.assert_array_equal(resize(images[2], 16), pixels)
    # By hand, from the definition, in float64.
    expected = (pixels[3, 5] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(preprocess([images[2]], 16)[0, :, 3, 5], expected, atol=1e-6)


def test_the_original_training_normalises_otherwise(images):
    pixels = images[2].pixels
    # CLIP's numbers, from section 9 of the reference README.
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = (pixels[0, 1] / 255 - mean) / std
    planes = preprocess([images[2]], 16, normalisation=ORIGINAL_TRAINING)[0]
    np.testing.assert_allclose(planes[:, 0, 1], expected, atol=1e-6)


def test_no_images_make_an_empty_batch():
    assert preprocess([], 24).shape == (0, 3, 24, 24)


def test_a_size_below_one_is_refused(images):
    with pytest.raises(InputError, match="size must be at least 1 pixel, got 0"):
        preprocess(images, 0)

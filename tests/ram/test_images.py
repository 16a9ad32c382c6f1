"""The reader of folders; tests/io is about decoding, which is that of inference."""

import os
import pickle

import numpy as np
import PIL.Image
import pytest

import rasa
from rasa.errors import ImageError
from rasa_ram.images import ImageFolder
from tests.ram.input.pictures import jpeg, picture


def test_a_folder_gives_what_inference_reads(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(jpeg(picture(), exif=exif.tobytes()))
    image = pickle.loads(pickle.dumps(ImageFolder(tmp_path)))("a/x.bin")
    assert image.size == (64, 48)
    np.testing.assert_array_equal(image.pixels, rasa.to_image(tmp_path / "a" / "x.bin").pixels)
    assert image.name == os.fspath(tmp_path / "a" / "x.bin")


def test_an_absolute_path_is_read_as_it_stands(tmp_path):
    (tmp_path / "x.jpg").write_bytes(jpeg(picture()))
    assert ImageFolder("elsewhere")(os.fspath(tmp_path / "x.jpg")).size == (48, 64)


def test_the_limit_can_be_chosen(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    assert ImageFolder(tmp_path, max_pixels=48 * 64)("a.jpg").size == (48, 64)
    with pytest.raises(ImageError, match=r"is 64 x 48 = 0\.0 megapixels, more than the limit of 0\.0"):
        ImageFolder(tmp_path, max_pixels=48 * 64 - 1)("a.jpg")


@pytest.mark.parametrize(("name", "message"), [("none.jpg", "does not exist"), (".", "is a folder"), ("a\0b", "null")])
def test_files_that_cannot_be_read_are_named(name, message, tmp_path):
    with pytest.raises(ImageError, match=message):
        ImageFolder(tmp_path)(name)

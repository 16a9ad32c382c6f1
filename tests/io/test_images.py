"""Images in: every source, every mode, and a folder of hostile files."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageOps
from PIL.PngImagePlugin import PngInfo

from rasa.errors import ImageError, InputError
from rasa.io.images import MAX_PIXELS, find_images, image_size, to_image
from rasa.types import Image

FORMATS = ["AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]
LOSSLESS = ["BMP", "PNG", "TIFF"]


@pytest.fixture(scope="module")
def picture():
    """A gradient with a bright mark in one corner: no two orientations look the same."""
    rows, columns = np.mgrid[0:24, 0:40]
    pixels = np.stack([rows * 10, columns * 6, 200 - rows * 3 - columns * 2], axis=-1).astype(np.uint8)
    pixels[:6, :9] = (255, 250, 240)
    return pixels


def encode(image, kind, **options):
    buffer = io.BytesIO()
    (PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, *, bit_depth=8, color_type=2, data=b"", extra=()):
    """A PNG written chunk by chunk, so that its header may lie."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    body = [chunk(b"IHDR", header), *(chunk(*item) for item in extra), chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def as_orientation(pixels, orientation, kind="JPEG", **options):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encode(pixels, kind, exif=exif, **options)


# Sources


def test_every_source_gives_the_same_pixels(picture, tmp_path):
    torch = pytest.importorskip("torch")
    data = encode(picture, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    tensor = torch.from_numpy(picture.copy())
    with path.open("rb") as file, PIL.Image.open(path) as opened:
        sources = [
            path, str(path), data, bytearray(data), memoryview(data), file, io.BytesIO(data), opened, picture,
            tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1).contiguous(),
        ]  # fmt: skip
        images = [to_image(source) for source in sources]
    for image in images:
        np.testing.assert_array_equal(image.pixels, picture)
        assert image.pixels.flags.c_contiguous
        assert not image.pixels.flags.writeable
    assert [image.name for image in images[:2]] == [str(path)] * 2
    assert images[5].name == str(path)
    assert images[7].name == str(path)
    assert {images[i].name for i in (2, 3, 4, 6, 8, 9, 10, 11)} == {"image"}


def test_an_image_comes_back_as_it_is(picture):
    image = Image(picture, name="mine")
    assert to_image(image) is image
    assert to_image(image, name="yours").name == "yours"
    assert to_image(picture, name="given").name == "given"


def test_contiguous_rgb_is_not_copied(picture):
    assert np.shares_memory(to_image(picture).pixels, picture)
    np.testing.assert_array_equal(to_image(picture[..., ::-1]).pixels, picture[..., ::-1])


@pytest.mark.parametrize("channels", [None, 1])
def test_grey_arrays_become_rgb(picture, channels):
    grey = picture[..., 0] if channels is None else picture[..., :1]
    pixels = to_image(grey).pixels
    assert (pixels == picture[..., :1]).all()
    assert pixels.shape == (24, 40, 3)


def test_rgba_arrays_lie_on_white():
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 128]]], np.uint8)
    np.testing.assert_array_equal(to_image(rgba).pixels, [[[200, 100, 0], [255, 255, 255], [127, 127, 127]]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"must be uint8, got float32; if its range is 0 to 1, pass \(x \* 255\)"),
        (np.zeros((4, 4), np.uint16), r"must be uint8, got uint16; if its range is 0 to 65535, pass \(x // 257\)"),
        (np.zeros((4, 4), bool), r"got bool; if it is a mask, pass \(mask \* 255\)"),
        (np.zeros((4, 4), np.int64), "got int64; if its range is 0 to 255"),
        (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\); channels come last: pass array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"got \(2, 4, 5, 3\); pass one image of the batch"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros(7, np.uint8), r"got \(7,\)"),
        (None, "cannot read NoneType 'image' as an image; pass a path"),
        (17, "cannot read int"),
        ([[0, 1]], "cannot read list"),
        (io.StringIO("text"), r"read\(\) gave str; open the file with mode 'rb'"),
    ],
)
def test_what_is_no_image_is_refused_with_the_remedy(array, message):
    with pytest.raises(InputError, match=message):
        to_image(array)


def test_tensors_are_never_guessed():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        with pytest.raises(
            InputError, match=r"uint8 tensor, got .*float.*; .*\(x \* 255\).round\(\).to\(torch.uint8\)"
        ):
            to_image(torch.zeros(3, 4, 5, dtype=dtype))
    with pytest.raises(InputError, match="channels first or last"):
        to_image(torch.zeros(3, 4, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"such as tensor\[0\]"):
        to_image(torch.zeros(1, 3, 4, 5, dtype=torch.uint8))


def test_a_file_is_read_from_where_it_stands_and_may_be_a_pipe(picture):
    data = encode(picture, "PNG")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as out:
        out.write(data)  # fits the pipe's buffer
    with os.fdopen(reader, "rb") as file:
        np.testing.assert_array_equal(to_image(file).pixels, picture)
    file = io.BytesIO(b"header" + data)
    file.seek(6)
    np.testing.assert_array_equal(to_image(file).pixels, picture)
    with pytest.raises(ImageError, match="empty"):
        to_image(file)
    file.close()
    with pytest.raises(ImageError, match="cannot be read: I/O operation on closed file"):
        to_image(file)


# Formats and modes


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(picture, kind):
    pixels = to_image(encode(picture, kind)).pixels
    if kind in LOSSLESS:
        np.testing.assert_array_equal(pixels, picture)
    else:
        assert np.abs(pixels.astype(int) - picture).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, kind, orientation):
    data = as_orientation(picture, orientation, kind)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        opened.load()
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = to_image(data)
    np.testing.assert_array_equal(image.pixels, expected)
    np.testing.assert_array_equal(to_image(PIL.Image.open(io.BytesIO(data))).pixels, expected)
    assert image.size == ((24, 40) if orientation < 5 else (40, 24))
    assert image_size(io.BytesIO(data), name="x") == image.size


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_is_turned_once(picture, compression):
    data = as_orientation(picture, 6, "TIFF", compression=compression)
    np.testing.assert_array_equal(to_image(data).pixels, np.rot90(picture, -1))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\6\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",
        b"garbage",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_corrupt_exif_turns_nothing_and_warns_of_nothing(picture, exif, kind):
    expected = to_image(encode(picture, kind)).pixels
    np.testing.assert_array_equal(to_image(encode(picture, kind, exif=exif)).pixels, expected)


def test_orientation_that_the_caller_has_set_counts(picture):
    opened = PIL.Image.fromarray(picture)
    opened.getexif()[0x0112] = 8
    np.testing.assert_array_equal(to_image(opened).pixels, np.rot90(picture))
    assert opened.size == (40, 24)


def test_16_bits_are_scaled_not_clipped():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(every / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(to_image(encode(every, kind)).pixels[..., 1], expected)
    for mode in ("I;16", "I;16B", "I"):
        image = PIL.Image.new(mode, (2, 1))
        image.putpixel((1, 0), 65535)
        np.testing.assert_array_equal(to_image(image).pixels[..., 0], [[0, 255]])


def test_16_bit_colour_keeps_its_range():
    rows = b"".join(b"\0" + struct.pack(">9H", *[value] * 3, 0, 65535, value, *[65535] * 3) for value in (0, 257 * 90))
    pixels = to_image(png(3, 2, bit_depth=16, data=rows)).pixels
    assert pixels.tolist() == [[[v] * 3, [0, 255, v], [255] * 3] for v in (0, 90)]


def test_16_bit_transparency_is_white():
    data = png(
        2, 1, bit_depth=16, color_type=0, data=b"\0" + struct.pack(">2H", 1000, 2000), extra=[(b"tRNS", b"\x03\xe8")]
    )
    assert to_image(data).pixels[0, :, 0].tolist() == [255, 8]


def test_values_beyond_16_bits_and_floats_are_refused():
    with pytest.raises(ImageError, match="holds values from 0 to 70000; scale them"):
        to_image(PIL.Image.fromarray(np.array([[0, 70000]], np.int32)))
    floats = encode(PIL.Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="holds F values"):
        to_image(floats, name="depth.tif")


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_opaque_modes_match_pillow(picture, mode):
    image = PIL.Image.fromarray(picture).convert(mode)
    np.testing.assert_array_equal(to_image(image).pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparent_modes_lie_on_white(mode):
    rgba = PIL.Image.new("RGBA", (3, 1), (60, 60, 60, 255))
    rgba.putpixel((1, 0), (60, 60, 60, 0))
    image = (
        rgba.convert("P").convert("PA") if mode == "PA" else rgba.convert("LA" if mode == "La" else mode).convert(mode)
    )
    if mode == "PA":
        image.putalpha(rgba.getchannel("A"))
    assert to_image(image).pixels[0, :2].tolist() == [[60] * 3, [255] * 3]


def test_palette_and_key_transparency_lie_on_white():
    palette = PIL.Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30, 200, 0, 0])
    palette.putpixel((1, 0), 2)
    for transparency in (2, bytes([255, 255, 0])):
        pixels = to_image(encode(palette, "PNG", transparency=transparency)).pixels
        assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    keyed = PIL.Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (9, 9, 9))
    assert to_image(encode(keyed, "PNG", transparency=(9, 9, 9))).pixels.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    assert to_image(encode(palette, "GIF", transparency=1)).pixels.tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_cmyk_jpeg_is_not_inverted():
    red = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = to_image(encode(red, "JPEG", quality=95)).pixels
    assert pixels[8, 8, 0] > 240
    assert pixels[8, 8, 1:].max() < 15


def test_ycck_jpeg_is_converted():
    """Adobe's marker with transform 2 turns a CMYK file into YCCK; the colours are then those libjpeg computes."""
    grey = encode(PIL.Image.new("CMYK", (16, 16), (128, 128, 128, 0)), "JPEG", quality=95)
    at = grey.index(b"Adobe")
    ycck = grey[: at + 11] + b"\2" + grey[at + 12 :]
    with PIL.Image.open(io.BytesIO(ycck)) as opened:
        assert opened.info["adobe_transform"] == 2
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(to_image(ycck).pixels, expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_picture_of_many_counts(kind):
    red, blue = (PIL.Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    pixels = to_image(encode(red, kind, save_all=True, append_images=[blue, blue])).pixels
    assert pixels[8, 8, 0] > 240
    assert pixels[8, 8, 2] < 15


def test_a_colour_profile_is_ignored(picture):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(to_image(encode(picture, "PNG", icc_profile=profile)).pixels, picture)


# The guard


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(30_000, 30_000))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(
        ImageError, match=r"bomb.png' is 30000 x 30000 = 900.0 megapixels, more than the limit of 200.0"
    ):
        to_image(path)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.05
    assert peak < 2e6


def bomb_gif():
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 60_000, 60_000, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0)
        + b"\2\2D\1\0;"
    )


def bomb_bmp():
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def tiff(entries, data=b""):
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    start = 8 + 2 + len(body) + 4
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + body.replace(b"DATA", struct.pack("<I", start))
        + bytes(4)
        + data
    )


def bomb_tiff():
    return tiff({256: 50_000, 257: 50_000, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 50_000, 279: 10})


def bomb_tiles():
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 324: 200, 325: 10}
    return tiff(tags, b"x" * 300)


def bomb_webp():
    # VP8X: flags, then width and height minus one in 24 bits each.
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_383).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas


def bomb_jpeg():
    small = encode(PIL.Image.new("RGB", (16, 16)), "JPEG")
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", 60_000, 60_000) + small[at + 4 :]


@pytest.mark.parametrize("make", [bomb_gif, bomb_bmp, bomb_tiff, bomb_tiles, bomb_webp, bomb_jpeg])
def test_bombs_of_every_format_are_refused_at_once(make):
    data = make()
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"too large|megapixels|tiles of size"):
        to_image(data)
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("make", [bomb_gif, bomb_bmp, bomb_tiff, bomb_webp, bomb_jpeg])
def test_a_header_tells_a_bomb(make):
    with pytest.raises(ImageError, match=r"'x' .*(megapixels|too large)"):
        image_size(io.BytesIO(make()), name="x")


def test_the_cap_is_an_argument(picture):
    data = encode(picture, "PNG")
    assert to_image(data, max_pixels=24 * 40).size == (24, 40)
    for source in (data, picture, Image(picture), PIL.Image.fromarray(picture)):
        with pytest.raises(ImageError, match=r"40 x 24 = 0.0 megapixels"):
            to_image(source, max_pixels=24 * 40 - 1)
    for wrong in (0, -1, 1.5, True, None):
        with pytest.raises(InputError, match="max_pixels must be a whole number"):
            to_image(data, max_pixels=wrong)
    assert MAX_PIXELS == 200_000_000


@pytest.mark.parametrize("kind", FORMATS)
def test_between_pillows_limit_and_ours_nothing_warns(picture, kind, monkeypatch):
    data = encode(picture, kind)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    with pytest.warns(PIL.Image.DecompressionBombWarning):
        PIL.Image.open(io.BytesIO(data))
    assert to_image(data).size == (24, 40)  # warnings are errors in this run


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "WEBP"])
def test_beyond_pillows_error_limit_our_cap_decides(picture, kind, monkeypatch):
    data = encode(picture, kind)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PIL.Image.DecompressionBombError):
        PIL.Image.open(io.BytesIO(data))
    assert to_image(data).size == (24, 40)


@pytest.mark.slow
def test_a_picture_of_196_megapixels_is_read():
    data = encode(PIL.Image.new("1", (14_000, 14_000), 1), "PNG")
    pixels = to_image(data).pixels
    assert pixels.shape == (14_000, 14_000, 3)
    assert pixels[::1000, ::1000].min() == 255


def test_pillows_settings_are_left_alone():
    code = """if True:
        import io, warnings, numpy, PIL.Image, PIL.ImageFile
        before = PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
        import rasa.io.images
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (9, 9)).save(buffer, "PNG")
        rasa.io.images.to_image(buffer.getvalue())
        assert before == (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
        assert before[:2] == (89478485, False)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_fifty_decodes_in_eight_threads(picture):
    data = {kind: encode(picture, kind) for kind in FORMATS} | {
        "corrupt": encode(picture, "JPEG", exif=b"Exif\0\0II*\0\xff")
    }
    expected = {kind: to_image(blob).pixels for kind, blob in data.items()}
    kinds = [list(data)[i % len(data)] for i in range(50)]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda kind: to_image(data[kind]), kinds))
    for kind, image in zip(kinds, images, strict=True):
        np.testing.assert_array_equal(image.pixels, expected[kind])
    assert list(warnings.filters) == filters


# The hostile folder


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_an_error_or_whole_never_half(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    data = encode(noise, kind)
    expected = to_image(data).pixels
    refused = 0
    for cut in [*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 12, len(data))]:
        try:
            pixels = to_image(data[:cut], name="cut").pixels
        except ImageError as error:
            assert "'cut'" in str(error)  # noqa: PT017
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, expected)  # only what follows the pixels was missing
    assert refused >= 60


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bytes_never_raise_anything_else(picture, kind):
    data = bytearray(encode(picture, kind))
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may warn of damaged metadata
        for _ in range(150):
            broken = data.copy()
            for at in rng.integers(0, min(len(data), 400), 3):
                broken[at] = rng.integers(0, 256)
            try:
                to_image(broken, max_pixels=10**7)
            except ImageError:
                continue


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is a note about a dog\n" * 5, "it looks like text"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page, perhaps of a failed download"),
        (b"\xef\xbb\xbf\n<svg xmlns='http://www.w3.org/2000/svg'/>", "it looks like SVG"),
        (b"%PDF-1.7\n", "it looks like a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it looks like a Git LFS pointer"),
        (bytes(500), "it begins with zeros"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it looks like HEIC"),
        (b"SIMPLE  =                    T", "it looks like text"),  # FITS, the format of Pillow's CVE-2026-40192
        (b"\x00\x00\x01\x00\x01\x00\x10\x10", "its first bytes are 00 00 01 00 01 00 10 10"),
        (b"\xff\xd8\xff\xe0rest", "is broken or cut off"),
        (b"BMW is a maker of cars", "is broken or cut off"),
        (b"\x89PNG\r\n\x1a\n", "is broken or cut off"),
        (png(0, 0), "is broken or cut off"),
        (png(5, 0), "is broken or cut off"),
        (png(4, 4, data=b"\0" * 5), "is broken or cut off"),
        (png(4, 4, bit_depth=7), "is broken or cut off"),
        (tiff({256: 4, 257: 4}), "is broken or cut off"),
        (tiff({256: 0, 257: 0, 258: 8, 262: 1, 273: 8, 277: 1, 279: 1}), "is broken or cut off"),
    ],
)
def test_what_is_no_image_says_so_and_names_the_file(tmp_path, content, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"photo.jpg'.*{message}"):
        to_image(path)


def test_a_text_chunk_bomb_is_refused():
    text = zlib.compress(b"a" * 80_000_000)  # Pillow decompresses at most 1 MB of text
    data = png(1, 1, data=bytes(4), extra=[(b"zTXt", b"key\0\0" + text)])
    with pytest.raises(ImageError, match=r"broken.*Decompressed data too large"):
        to_image(data)
    info = PngInfo()
    info.add_text("note", "short", zip=True)
    assert to_image(encode(PIL.Image.new("RGB", (1, 1)), "PNG", pnginfo=info)).size == (1, 1)


def test_the_cause_is_chained(picture):
    with pytest.raises(ImageError) as caught:
        to_image(encode(picture, "PNG")[:100])
    assert isinstance(caught.value.__cause__, OSError | SyntaxError)


def test_paths_that_are_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    cases = {
        tmp_path: "is a folder; pass its files",
        tmp_path / "pipe.jpg": "is a pipe or device",
        Path("/dev/zero"): "is a pipe or device",
        tmp_path / "loop.jpg": "Too many levels of symbolic links",
        tmp_path / "dangling.jpg": "does not exist; check the path",
        tmp_path / "missing.jpg": "does not exist; check the path",
        tmp_path / ("x" * 300): "File name too long",
        Path("nul\0byte.jpg"): "cannot be opened: embedded null byte",
        "": "does not exist|is a folder",
    }
    for path, message in cases.items():
        with pytest.raises(ImageError, match=message):
            in_time(lambda path=path: to_image(path))


def in_time(call):
    """Run ``call`` in a thread, so that one that hangs fails instead."""
    caught = []

    def run():
        try:
            call()
        except Exception as error:  # noqa: BLE001  (raised again below)
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "hangs"
    if caught:
        raise caught[0]


def test_a_file_that_may_not_be_read(tmp_path, picture):
    path = tmp_path / "secret.png"
    path.write_bytes(encode(picture, "PNG"))
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # the kernel lets root read everything
    try:
        with pytest.raises(ImageError, match=r"secret.png' may not be read"):
            to_image(path)
    finally:
        if root:
            os.seteuid(0)


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    path = tmp_path / "huge.webp"
    with path.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBP")
        file.truncate(2**32)  # sparse: takes no space
    with pytest.raises(ImageError, match=r"huge.webp' has 4294967296 bytes"):
        to_image(path)


@pytest.mark.parametrize("address", ["http://example.org/a.jpg", "https://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_nothing_is_fetched(address):
    with pytest.raises(ImageError, match="is an address; rasa fetches nothing"):
        to_image(address)


def test_names_that_are_no_utf_8_stay_printable(tmp_path, picture):
    path = os.fsencode(tmp_path) + b"/caf\xe9\n.png"
    Path(os.fsdecode(path)).write_bytes(encode(picture, "PNG"))
    image = to_image(os.fsdecode(path))
    assert image.name.encode("utf-8").endswith(b"caf\\udce9\n.png")
    with pytest.raises(ImageError, match=r"caf\\\\udce9\\n.png' is 40 x 24") as caught:
        to_image(os.fsdecode(path), max_pixels=1)
    assert str(caught.value).isprintable()


# find_images


@pytest.fixture
def album(tmp_path):
    for name in (
        "img10.jpg",
        "img2.JPG",
        "img1.png",
        "notes.txt",
        ".hidden.jpg",
        "sub/b.webp",
        "sub/deep/a.tif",
        "sub2/c.gif",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(found, root):
    return [path.relative_to(root).as_posix() for path in found]


def test_folders_are_listed_in_natural_order(album):
    expected = ["img1.png", "img2.JPG", "img10.jpg", "sub/b.webp", "sub/deep/a.tif", "sub2/c.gif"]
    assert names(find_images([album]), album) == expected
    assert names(find_images(album), album) == expected
    assert names(find_images([str(album)], recursive=False), album) == expected[:3]


def test_named_files_are_taken_as_given_in_their_order(album):
    given = [album / "notes.txt", album / "img10.jpg", album / "img1.png", album / "img10.jpg"]
    assert find_images(given) == given[:3]
    assert find_images([album / "img10.jpg", album])[0] == album / "img10.jpg"
    assert len(find_images([album, album, album / "sub"])) == 6


def test_patterns_are_expanded(album):
    assert names(find_images([f"{album}/img*"]), album) == ["img1.png", "img2.JPG", "img10.jpg"]
    assert names(find_images([f"{album}/**/*.tif"]), album) == ["sub/deep/a.tif"]
    assert names(find_images([f"{album}/sub*"]), album) == ["sub/b.webp", "sub/deep/a.tif", "sub2/c.gif"]
    bracketed = album / "a[1].jpg"
    bracketed.write_bytes(b"x")
    assert find_images([bracketed]) == [bracketed]


def test_links_are_followed_once_and_loops_end(album):
    (album / "sub" / "up").symlink_to(album, target_is_directory=True)
    (album / "again").symlink_to(album / "sub", target_is_directory=True)
    (album / "broken.jpg").symlink_to("nowhere")
    (album / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(album / "pipe.png")
    found = find_images([album])
    assert names(found, album)[-3:] == ["pipe.png", "self.jpg", "sub2/c.gif"]
    assert sum(path.name == "b.webp" for path in found) == 1
    assert album / "broken.jpg" in found


@pytest.mark.parametrize(
    "missing", ["nowhere", "nowhere/*.jpg", "nul\0.jpg", "nul\0*.jpg", "", "http://example.org/a.jpg"]
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    if missing == "":
        assert find_images([missing]) == [Path("a.jpg")]  # the working folder, as pathlib reads it
        return
    with pytest.raises(InputError, match="does not exist; check the path"):
        find_images(["a.jpg", missing])


def test_nothing_found_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no images in .*; looked for the suffixes .avif, .bmp"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="no images in an empty list of paths"):
        find_images([])


def test_a_folder_that_may_not_be_read_is_named(album):
    (album / "sub").chmod(0)
    album.parent.chmod(0o755)
    root = os.geteuid() == 0
    parents = [p for p in album.parents if p.stat().st_uid == os.getuid() and "pytest" in p.name]
    modes = {p: p.stat().st_mode for p in [album, *parents]}
    try:
        for path in modes:
            path.chmod(0o755)
        if root:
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"sub' cannot be read: Permission denied"):
            find_images([album])
    finally:
        if root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
        (album / "sub").chmod(0o755)

"""Decode untrusted image bytes with Pillow, behind a guard of our own.

Pillow's guard is a process-wide setting that warns, and the one way to silence a
warning is process-wide too, which threads must not touch. So the plugin is
chosen here by the first bytes, and the size that the header states is checked
before a pixel is decoded; ``PIL.Image.open``, its setting and its warnings take
no part.
"""

from __future__ import annotations

import struct
from typing import IO

import PIL.Image
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from rasa.errors import ImageError

# Of a 200-megapixel phone camera (16320 x 12240); such a photo takes 0.6 GB as RGB.
MAX_PIXELS = 200_000_000
# Some decoders read a file whole; 200 megapixels of uncompressed 16-bit RGBA are 1.6e9 bytes.
MAX_FILE_BYTES = 2**31
FORMATS = "AVIF, BMP, GIF, JPEG, PNG, TIFF and WebP"

_ORIENTATION = 0x0112  # EXIF 2.3, table 4
_TRANSPOSE = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block is not parsed on opening: Pillow only wants its dpi, and warns where it is corrupt."""

    def getexif(self) -> PIL.Image.Exif:
        return PIL.Image.Exif()


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF whose canvas is made here, because Pillow's own warns again from 89 megapixels."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = PIL.Image.new(self.mode, self._tile_size).im
        super().load_prepare()


def decode_image(file: IO[bytes], *, name: str, max_pixels: int) -> PIL.Image.Image:
    """Decode the first picture of ``file``, upright but in its own mode.

    Args:
        file: A seekable binary file, at its start.
        name: What errors call the image.
        max_pixels: Refuse an image whose header states more, before decoding it.

    Raises:
        ImageError: If the format is refused, the image too large, broken or cut off.
    """
    plugin = _plugin_for(file, name)
    file.seek(0)
    try:
        image = plugin(file)
        check_pixels(image.size, name=name, max_pixels=max_pixels)
        _check_tiles(image, name=name, max_pixels=max_pixels)
        image.load()
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise _broken(name, error) from error
    # A TIFF was turned upright by Pillow while it was loaded.
    return image if isinstance(image, _TiffFile) else turn_upright(image, _orientation(image))


def file_format(file: IO[bytes], *, name: str) -> tuple[str, int]:
    """Read the header of an image file, and no pixels.

    Args:
        file: A seekable binary file, at its start.
        name: What errors call the image.

    Returns:
        Pillow's name of the format, such as ``"JPEG"``, and the EXIF orientation, 1 where none is stated.

    Raises:
        ImageError: If the format is refused or the header broken.
    """
    kind, _, turn = _header(file, name)
    return kind, turn


def upright_size(file: IO[bytes], *, name: str) -> tuple[int, int]:
    """``(height, width)`` in pixels that a decoded image will have, from its header alone.

    Raises:
        ImageError: If the format is refused or the header broken.
    """
    kind, (width, height), turn = _header(file, name)
    # Pillow gives the size of a TIFF as it will be upright.
    return (width, height) if turn in range(5, 9) and kind != "TIFF" else (height, width)


def _header(file: IO[bytes], name: str) -> tuple[str, tuple[int, int], int]:
    """Format, ``(width, height)`` as Pillow states it, and orientation."""
    plugin = _plugin_for(file, name)
    file.seek(0)
    try:
        with plugin(file) as image:
            turn = image.tag_v2.get(_ORIENTATION, 1) if isinstance(image, _TiffFile) else _orientation(image)
            return str(image.format), image.size, turn if isinstance(turn, int) else 1
    except Exception as error:  # as in decode_image
        raise _broken(name, error) from error


def check_pixels(size_wh: tuple[int, int], *, name: str, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels``.

    Raises:
        ImageError: If it is larger.
    """
    width, height = size_wh
    if width * height > max_pixels:
        raise ImageError(
            f"image {name!r} is {width} x {height} = {width * height / 1e6:.1f} megapixels, more than the limit of "
            f"{max_pixels / 1e6:.1f}; scale it down, or pass a larger max_pixels if you trust it"
        )


def load_pillow(image: PIL.Image.Image, *, name: str, max_pixels: int) -> PIL.Image.Image:
    """Decode an image that the caller opened, and turn it upright by its EXIF data.

    Raises:
        ImageError: If it is too large, broken or cut off.
    """
    check_pixels(image.size, name=name, max_pixels=max_pixels)
    try:
        image.load()
    except Exception as error:  # as in decode_image
        raise _broken(name, error) from error
    return turn_upright(image, _stated_orientation(image))


def turn_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Undo the EXIF ``orientation``, 1 to 8; any other number changes nothing."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 where there is none or the block is corrupt.

    Pillow's reader warns about corrupt blocks, which are common and do no harm.

    Source:
        TIFF 6.0, section 2: header, then entries of tag, type, count and value.
    """
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", data, start + 2 + 12 * i)
            if tag == _ORIENTATION:
                return int(value) if kind == 3 else 1  # 3 is SHORT, the type that EXIF prescribes
    except struct.error:
        pass
    return 1


def _orientation(image: PIL.Image.Image) -> int:
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and exif:
        return exif_orientation(exif)
    return _stated_orientation(image)


def _stated_orientation(image: PIL.Image.Image) -> int:
    # Pillow also knows the orientation in XMP, in old PNG text, and that which the caller has set.
    try:
        stated = PIL.Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  (metadata that cannot be read turns nothing)
        return 1
    return stated if isinstance(stated, int) else 1


def _check_tiles(image: PIL.Image.Image, *, name: str, max_pixels: int) -> None:
    # libtiff allocates a whole tile, which may be far larger than the image that it is part of.
    if isinstance(image, _TiffFile):
        tile_wh = tuple(image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        if not all(isinstance(length, int) for length in tile_wh) or tile_wh[0] * tile_wh[1] > max_pixels:
            raise ImageError(f"image {name!r} is a TIFF with tiles of size {tile_wh}; the limit is {max_pixels} pixels")


def _plugin_for(file: IO[bytes], name: str) -> type[ImageFile.ImageFile]:
    head = file.read(64)
    # The general brands of HEIF may hold either; what follows them says which.
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:]):
        return AvifImagePlugin.AvifImageFile
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    signatures: dict[bytes, type[ImageFile.ImageFile]] = {
        b"\xff\xd8\xff": _JpegFile,
        b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
        b"GIF87a": GifImagePlugin.GifImageFile,
        b"GIF89a": GifImagePlugin.GifImageFile,
        b"II*\0": _TiffFile,
        b"MM\0*": _TiffFile,
        b"II+\0": _TiffFile,
        b"MM\0+": _TiffFile,
        b"BM": BmpImagePlugin.BmpImageFile,
    }
    for signature, plugin in signatures.items():
        if head.startswith(signature):
            return plugin
    raise ImageError(f"{name!r} is not an image that rasa reads: {_looks_like(head)}; convert it to one of {FORMATS}")


def _looks_like(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if not head.strip(b"\0"):
        return "it begins with zeros, as a file does whose copy was cut off"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "it looks like HEIC"
    known = {
        b"<!doctype html": "an HTML page, perhaps of a failed download",
        b"<html": "an HTML page",
        b"%pdf": "a PDF",
    }
    known |= {
        b"<?xml": "XML or SVG",
        b"<svg": "SVG",
        b"pk\3\4": "a zip archive",
        b"version https://git-lfs": "a Git LFS pointer",
    }
    for signature, meaning in known.items():
        if text.startswith(signature):
            return f"it looks like {meaning}"
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "it looks like text" if printable else f"its first bytes are {head[:8].hex(' ')}"


def _broken(name: str, error: Exception) -> ImageError:
    if isinstance(error, PIL.Image.DecompressionBombError):
        return ImageError(f"image {name!r} is too large for Pillow: {error} Scale it down")
    detail = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {detail[0][:200]}" if detail else type(error).__name__
    return ImageError(f"image {name!r} is broken or cut off ({why}); fetch or export it again")

"""Label maps of Pascal VOC as PNG: a palette for up to 254 values, RGB by the same rule beyond."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image

from rasa.arrays import ByteArray, IntArray
from rasa.errors import FormatError, ImageError
from rasa.formats._folder import read_bounded
from rasa.io._decode import MAX_PIXELS, decode_image

VOID = 255
"""Value of a palette that VOC gives to the borders of objects; never written, and background when read."""

MAX_VALUE = 2**24 - 1
"""Largest value that has a colour of its own."""


def colours_of(values: IntArray) -> ByteArray:
    """Colours of label values, uint8 ``(..., 3)``: bits 0, 3, 6 ... of a value are red, highest first, and so on.

    Source:
        ``VOCdevkit/VOCcode/VOClabelcolormap.m``, which gives the first 256.
    """
    colours = np.zeros((*values.shape, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[..., channel] |= (((values >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def colour_of(value: int) -> tuple[int, int, int]:
    """Red, green and blue of one label value, each in [0, 255]."""
    red, green, blue = colours_of(np.array(value, np.int64)).tolist()
    return red, green, blue


def write_map(path: Path, values: IntArray, *, count: int) -> None:
    """Write label values ``(H, W)`` of 0 to ``count`` as a PNG; parents are made."""
    path.parent.mkdir(exist_ok=True)
    if count < VOID:
        image = PIL.Image.fromarray(values.astype(np.uint8))
        image.putpalette(colours_of(np.arange(256)).tobytes())
    else:
        image = PIL.Image.fromarray(colours_of(values))
    image.save(path, format="PNG")


def read_map(path: Path) -> IntArray:
    """Label values ``(H, W)`` of a PNG with a palette, of grey, or of RGB by the rule; void is 0.

    Raises:
        FormatError: If it is no such PNG.
        ImageError: If it cannot be read.
    """
    try:
        image = decode_image(io.BytesIO(read_bounded(path)), name=str(path), max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise FormatError(f"{path} is no label map: {error}") from error
    if image.mode in {"P", "L"}:
        values = np.asarray(image).astype(np.int64)
        values[values == VOID] = 0
        return values
    if image.mode != "RGB":
        raise FormatError(f"{path} is no label map: its mode is {image.mode}, expected P, L or RGB")
    return _values_of(np.asarray(image))


def _values_of(colours: ByteArray) -> IntArray:
    values = np.zeros(colours.shape[:2], np.int64)
    for bit in range(8):
        for channel in range(3):
            values |= ((colours[..., channel].astype(np.int64) >> (7 - bit)) & 1) << (3 * bit + channel)
    return values

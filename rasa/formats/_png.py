"""PNG files whose pixels are labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePath

import PIL.Image

from rasa.errors import FormatError, ImageError, InputError
from rasa.formats._folder import read_bounded
from rasa.io._decode import MAX_PIXELS, decode_image
from rasa.ops.colors import Color
from rasa.ops.label_maps import LabelMap


def png_name(file_name: str) -> str:
    """Name of the map of an image, which has its stem."""
    return f"{PurePath(file_name).stem}.png"


def map_picture(values: LabelMap, colors: Sequence[Color]) -> PIL.Image.Image:
    """A label map as an image.

    Args:
        values: ``(H, W)``, 0 for background.
        colors: Of the values from 1 on.

    Returns:
        uint8: mode ``P``, with the colours as palette and black for 0. uint16: mode ``I;16``, without a palette.
    """
    image = PIL.Image.fromarray(values)
    if values.itemsize == 1:
        image.putpalette([channel for color in [(0, 0, 0), *colors] for channel in color])
    return image


def write_png(path: Path, image: PIL.Image.Image) -> None:
    """Write an image that is not there yet; parents are made.

    Raises:
        InputError: If there is a file of that name.
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            image.save(file, format="PNG")
    except FileExistsError as error:
        raise InputError(f"two images have the map {path.name!r}; give them stems of their own") from error


def read_png(path: Path, size: tuple[int, int], *, modes: set[str]) -> PIL.Image.Image:
    """Read a map.

    Args:
        path: PNG file.
        size: ``(height, width)`` that it must have.
        modes: Of Pillow that it may have.

    Raises:
        FormatError: If it is not there, broken, or has another size or mode.
    """
    try:
        image = decode_image(io.BytesIO(read_bounded(path)), name=str(path), max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise FormatError(f"{path} is no label map: {error}") from error
    if image.size[::-1] != size or image.mode not in modes:
        expected = f"{size} and {' or '.join(sorted(modes))}"
        raise FormatError(f"{path} has size {image.size[::-1]} and mode {image.mode}, expected {expected}")
    return image

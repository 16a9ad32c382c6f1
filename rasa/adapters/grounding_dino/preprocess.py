"""Images to what the network reads, as the authors' own code resizes and normalises them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image

# Of ImageNet (torchvision's documentation).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a resized image.

    Attributes:
        short: Length of the short side in pixels, unless the long one would be too long.
        long: Length in pixels that the long side has at most, give or take a rounding.

    Raises:
        InputError: If one is below 1, or ``long`` below ``short``.
    """

    short: int
    long: int

    def __post_init__(self) -> None:
        if not 1 <= self.short <= self.long:
            raise InputError(f"image sizes must be 1 <= short <= long pixels, got {self.short} and {self.long}")


# GroundingDINO, groundingdino/util/inference.py.
PUBLISHED_LIMITS = Limits(800, 1333)


def resized_size(size: tuple[int, int], limits: Limits = PUBLISHED_LIMITS) -> tuple[int, int]:
    """``(height, width)`` after resizing, with the authors' roundings.

    Where the long side would be too long they round the short side first and take the long one from it, so that it
    comes out a few pixels off the limit; transformers does not.

    >>> resized_size((480, 640)), resized_size((1436, 91))
    ((800, 1066), (1325, 84))

    Source:
        GroundingDINO, groundingdino/datasets/transforms.py, get_size_with_aspect_ratio.
    """
    small, large = sorted(size)
    short = limits.short
    if large / small * short > limits.long:
        short = max(1, round(limits.long * small / large))
    long = short if small == large else int(short * large / small)
    if short == 1:  # of images so thin that the rule would leave nothing, or make the long side endless
        long = min(long, limits.long)
    return (short, long) if size[0] <= size[1] else (long, short)


def preprocess(image: Image, limits: Limits = PUBLISHED_LIMITS) -> FloatArray:
    """Resize with Pillow's bilinear filter, which shrinks without aliasing, and normalise.

    Returns:
        float32 ``(3, h, w)``, (value / 255 - mean) / std; h and w are :func:`resized_size`.
    """
    height, width = resized_size(image.size, limits)
    pixels = image.pixels
    if image.size != (height, width):
        picture = PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
    planes = np.empty((3, height, width), np.float32)
    for channel, table in enumerate(_TABLES):
        np.take(table, pixels[:, :, channel], out=planes[channel])
    return planes


def _tables() -> FloatArray:
    """The 256 values of each channel, normalised: float32 ``(3, 256)``."""
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    return np.asarray((values - mean) / std, np.float32)


_TABLES = _tables()

"""The one image transform: what training, evaluation and tagging all feed the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from rasa.arrays import ByteArray, FloatArray
from rasa.errors import InputError
from rasa.types import Image


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of the red, green and blue channel, for values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Of ImageNet (torchvision's documentation): what the published models are run with.
INFERENCE = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Of CLIP's training data (openai/CLIP, clip.py): what the published models were trained with.
ORIGINAL_TRAINING = Normalisation(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


def preprocess(images: Sequence[Image], size: int, *, normalisation: Normalisation = INFERENCE) -> FloatArray:
    """Resize images to squares, ignoring their aspect ratio, and normalise them.

    Args:
        images: Images of any sizes.
        size: S, the side of the square in pixels.
        normalisation: ``INFERENCE``, or ``ORIGINAL_TRAINING`` to repeat the published training.

    Returns:
        float32 ``(B, 3, S, S)``, (value / 255 - mean) / std.

    Raises:
        InputError: If ``size`` is not positive.

    Source:
        The published inference transform, github.com/xinyu1205/recognize-anything, at 7cb804a.
    """
    if size < 1:
        raise InputError(f"size must be at least 1 pixel, got {size}")
    batch = np.empty((len(images), 3, size, size), dtype=np.float32)
    table = _lookup(normalisation)
    for planes, image in zip(batch, images, strict=True):
        resized = resize(image, size)
        for channel in range(3):
            np.take(table[channel], resized[:, :, channel], out=planes[channel])
    return batch


def resize(image: Image, size: int) -> ByteArray:
    """Resize to a square with Pillow's bilinear filter, which widens its support to shrink without aliasing.

    Args:
        image: An image of any size.
        size: S, the side of the square in pixels.

    Returns:
        uint8 ``(S, S, 3)``.
    """
    if image.size == (size, size):
        return image.pixels
    return np.asarray(PIL.Image.fromarray(image.pixels).resize((size, size), PIL.Image.Resampling.BILINEAR))


def _lookup(normalisation: Normalisation) -> FloatArray:
    """Normalise each of the 256 values once per channel: float32 ``(3, 256)``."""
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    mean = np.array(normalisation.mean, dtype=np.float32)[:, None]
    std = np.array(normalisation.std, dtype=np.float32)[:, None]
    return np.asarray((values - mean) / std, dtype=np.float32)

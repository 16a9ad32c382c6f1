"""Synthetic pictures of awkward sizes, made on the spot."""

from __future__ import annotations

import numpy as np

from rasa.types import Image


def sample_image(*, height: int = 96, width: int = 128, seed: int = 0) -> Image:
    """A bright disc on a dark, noisy ground; the same pixels for the same arguments.

    Args:
        height: In pixels, at least 1.
        width: In pixels, at least 1.
        seed: Chooses the noise and the colour.
    """
    noise = np.random.default_rng(seed)
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 <= (min(height, width) / 3) ** 2
    pixels = noise.integers(0, 60, (height, width, 3))
    pixels[inside] += noise.integers(80, 195, 3)
    return Image(pixels.astype(np.uint8), name=f"sample-{height}x{width}-{seed}")


def sample_images() -> list[Image]:
    """Seven pictures that find the usual faults: mixed sizes, 1 x 1, very wide, very tall, flat."""
    sizes = [(96, 128), (128, 96), (96, 128), (1, 1), (8, 600), (600, 8)]
    pictures = [sample_image(height=h, width=w, seed=i) for i, (h, w) in enumerate(sizes)]
    return [*pictures, Image(np.full((64, 64, 3), 127, np.uint8), name="flat")]

"""Images for models that see every image as a square, whatever its proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rasa.types import Image


@dataclass(frozen=True, slots=True)
class Squash:
    """Resize to a square and normalise, by PyTorch alone: the answer depends on no version of torchvision.

    Bilinear, and antialiased where the image shrinks.

    Attributes:
        side: Height and width of the square, in pixels.
        mean: Of red, green and blue in [0, 1].
        std: Of red, green and blue in [0, 1].
        whole_levels: Whether the resized image has whole levels of 256, as where the resize is done on bytes.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    whole_levels: bool = False

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """The input of the model, float32 ``(B, 3, side, side)`` on the CPU."""
        pixels = torch.cat([self._resized(image) for image in images]) if images else torch.zeros(0, 3, 1, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    def frame(self, size: tuple[int, int]) -> None:
        """None, as an image of any ``size`` fills the square."""

    def _resized(self, image: Image) -> Tensor:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1)[None]
        pixels = pixels if self.whole_levels else pixels.float() / 255
        pixels = F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        return pixels.float() / 255 if self.whole_levels else pixels

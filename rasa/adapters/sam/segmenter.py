"""SamSegmenter: a mask for every box, by Segment Anything or SAM-HQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from rasa._torch.box_segmenter import BoxSegmenter, Embedding
from rasa._torch.prompts import Frame
from rasa.adapters.sam.network import SamNetwork
from rasa.types import Image

__all__ = ["Embedding", "Padded", "SamSegmenter", "preprocess"]

# Of RGB values 0 to 255 (build_sam.py of segment-anything 1.0).
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class SamSegmenter(BoxSegmenter):
    """Gives boxes masks; a :class:`rasa.protocols.Segmenter`.

    Args:
        network: On its device and in its dtype.
        options: Keywords of :class:`rasa._torch.box_segmenter.BoxSegmenter`, such as ``multimask``.

    Raises:
        InputError: If an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Kirillov et al., "Segment Anything", arXiv:2304.02643; ``SamPredictor`` of segment-anything 1.0.
    """

    def __init__(self, network: SamNetwork, **options: Any) -> None:
        facts = {"model": network.architecture.name, "backend": network.backend}
        super().__init__(network, Padded(network.architecture.side), facts=facts, **options)


@dataclass(frozen=True, slots=True)
class Padded:
    """Images as SAM sees them; a :class:`rasa._torch.box_segmenter.View`.

    Attributes:
        side: Height and width of the square, in pixels.
    """

    side: int

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """Float32 ``(B, 3, side, side)``; see :func:`preprocess`."""
        return torch.stack([preprocess(image, self.side) for image in images])

    def frame(self, size: tuple[int, int]) -> Frame:
        """Where an image of ``size`` lies in the square: at the upper left, its longer side filling it."""
        return Frame.around(size, self.side)


def preprocess(image: Image, side: int) -> Tensor:
    """Resize an image so that its longer side fits, normalise it, and pad it with zeros at the right and bottom.

    Returns:
        float32 ``(3, side, side)``.

    Source:
        ``ResizeLongestSide.apply_image`` and ``Sam.preprocess`` of segment-anything 1.0.
    """
    height, width = Frame.around(image.size, side).resized
    resized = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    padded = torch.zeros(3, side, side)
    padded[:, :height, :width] = (pixels - mean) / std
    return padded

"""EfficientNet-Lite: an ImageNet classifier that also says where in the photo it sees each class.

Source: Tan and Le, "EfficientNet", arXiv:1905.11946; the Lite variants drop squeeze-and-excite and
use ReLU6 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa.adapters.lite._layers import BATCH_NORM_EPS, SameConv2d, fold_batch_norm
from rasa.arrays import ByteArray
from rasa.errors import FormatError, InputError

STRIDE = 32  # pixels of the input per cell of a class map
CLASS_COUNT = 1000
_HEAD_CHANNELS = 1280
_STEM_CHANNELS = 32


@dataclass(frozen=True)
class LiteVariant:
    """What distinguishes one EfficientNet-Lite from the next.

    Attributes:
        width: Factor on the channels of the blocks.
        depth: Factor on the repeats of the middle stages.
        size: Side in pixels of the square input it was trained on.
    """

    width: float
    depth: float
    size: int


VARIANTS = {"lite0": LiteVariant(1.0, 1.0, 224), "lite2": LiteVariant(1.1, 1.2, 260)}


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Table 1 of the paper.
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the names of its parts are those of the checkpoint."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.expands = expansion != 1
        self.adds_input = stride == 1 and channels_in == channels_out
        if self.expands:
            self._expand_conv = SameConv2d(channels_in, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=BATCH_NORM_EPS)
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=BATCH_NORM_EPS)
        self._project_conv = SameConv2d(middle, channels_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y

    def fold(self) -> None:
        """Merge the batch norms into the convolutions."""
        fold_batch_norm(self, {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"})


class EfficientNetLite(nn.Module):
    """The classifier; the names of its parts are those of the checkpoint, so it loads strictly.

    Args:
        variant: Key of :data:`VARIANTS`.
    """

    def __init__(self, variant: str = "lite0") -> None:
        super().__init__()
        config = _config_of(variant)
        self.size = config.size
        self._conv_stem = SameConv2d(3, _STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM_CHANNELS, eps=BATCH_NORM_EPS)
        self._blocks = nn.ModuleList(_build_blocks(config))
        channels = _round_channels(_STAGES[-1].channels * config.width)
        self._conv_head = SameConv2d(channels, _HEAD_CHANNELS, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD_CHANNELS, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(_HEAD_CHANNELS, CLASS_COUNT)

    def features(self, x: Tensor) -> Tensor:
        """Map pixels ``(B, 3, H, W)`` to ``(B, 1280, H / 32, W / 32)``, rounded up."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))

    def class_map(self, x: Tensor) -> Tensor:
        """Logits at each place, ``(B, 1000, H / 32, W / 32)``; their mean over places is ``forward``."""
        return F.conv2d(self.features(x), self._fc.weight[:, :, None, None], self._fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 1000)`` of pixels ``(B, 3, H, W)`` made by :func:`to_input`."""
        return self._fc(self.features(x).mean((2, 3)))

    def fold(self) -> None:
        """Merge the batch norms into the convolutions: the same answers, about 1.3 times as fast."""
        fold_batch_norm(self, {"_conv_stem": "_bn0", "_conv_head": "_bn1"})
        for block in self._blocks:
            block.fold()


def to_input(pixels: ByteArray) -> Tensor:
    """Scale uint8 RGB ``(H, W, 3)`` to float32 ``(1, 3, H, W)`` as the network was trained on: (x - 127) / 128."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return planes[None].float().sub_(127).div_(128)


def load_efficientnet(path: Path | str, variant: str) -> EfficientNetLite:
    """Read a checkpoint, ready to use: evaluation mode, batch norms folded, no gradients.

    Args:
        path: A state dict saved by PyTorch.
        variant: Key of :data:`VARIANTS`.

    Raises:
        InputError: If there is no such variant.
        FormatError: If the file is no state dict of this variant.
    """
    model = EfficientNetLite(variant)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} is no checkpoint of efficientnet-{variant}: {error}") from error
    model.eval()
    model.fold()
    return model.requires_grad_(False)


def _config_of(variant: str) -> LiteVariant:
    if variant not in VARIANTS:
        raise InputError(f"unknown EfficientNet variant {variant!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def _build_blocks(config: LiteVariant) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    channels = _STEM_CHANNELS
    for i, stage in enumerate(_STAGES):
        channels_out = _round_channels(stage.channels * config.width)
        # The Lite variants leave the first and the last stage at their depth.
        repeats = stage.repeats if i in (0, len(_STAGES) - 1) else math.ceil(stage.repeats * config.depth)
        for j in range(repeats):
            stride = stage.stride if j == 0 else 1
            blocks.append(
                InvertedResidual(channels, channels_out, kernel=stage.kernel, stride=stride, expansion=stage.expansion)
            )
            channels = channels_out
    return blocks


def _round_channels(channels: float) -> int:
    # Multiples of 8, never more than a tenth below what was asked for; from the reference implementation.
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded

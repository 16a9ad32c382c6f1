"""SSD-MobileNetV2: finds the 80 kinds of objects of COCO.

Source: Liu et al., "SSD", arXiv:1512.02325; Sandler et al., "MobileNetV2", arXiv:1801.04381; the
configuration ``ssd_mobilenet_v2_coco_2018_03_29`` of the TensorFlow object detection model zoo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rasa.adapters.lite._layers import BATCH_NORM_EPS, SameConv2d
from rasa.adapters.lite.frozen_graph import read_constants
from rasa.arrays import ByteArray
from rasa.errors import FormatError

SIZE = 300  # pixels: side of the square input it was trained on
CLASS_COUNT = 91  # 0 is the background; 80 of the 90 others are in use

# (expansion, channels, repeats, stride): table 2 of the MobileNetV2 paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS, _TOP_CHANNELS = 32, 1280
_FIRST_MAP_BLOCK = 13  # the block whose expanded input is the finest map, stride 16
_EXTRA_CHANNELS = ((256, 512), (128, 256), (128, 256), (64, 128))
# Anchors: side relative to the photo, and width over height, from the zoo's configuration.
_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_FIRST_SIDES, _FIRST_RATIOS = (0.1, 0.2, 0.2), (1.0, 2.0, 0.5)
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
_CENTRE_VARIANCE, _SIZE_VARIANCE = 10.0, 5.0  # box coder of the same configuration


class _Conv(SameConv2d):
    """A convolution with the batch norm of the checkpoint folded in."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, *, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=kwargs.get("groups", 1))
        self.activates = kwargs.get("activates", True)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.relu6(x) if self.activates else x


def _depthwise(channels: int, *, stride: int) -> _Conv:
    return _Conv(channels, channels, 3, stride=stride, groups=channels)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.adds_input = stride == 1 and channels_in == channels_out
        self.expand = _Conv(channels_in, middle) if expansion != 1 else nn.Identity()
        self.depthwise = _depthwise(middle, stride=stride)
        self.project = _Conv(middle, channels_out, activates=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the expanded input."""
        expanded = self.expand(x)
        y = self.project(self.depthwise(expanded))
        return (x + y if self.adds_input else y), expanded


class SSDMobileNetV2(nn.Module):
    """The detector, without a non-maximum suppression of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList()
        channels = _STEM_CHANNELS
        for expansion, channels_out, repeats, first_stride in _STAGES:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                self.blocks.append(_Block(channels, channels_out, stride=stride, expansion=expansion))
                channels = channels_out
        first_map_channels = self.blocks[_FIRST_MAP_BLOCK].depthwise.in_channels
        self.top = _Conv(channels, _TOP_CHANNELS)
        self.extras = nn.ModuleList(_build_extras())
        map_channels = [first_map_channels, _TOP_CHANNELS, *(out for _, out in _EXTRA_CHANNELS)]
        counts = [len(sides) for sides in _anchor_sides()]
        self.class_heads = nn.ModuleList(
            SameConv2d(int(c), n * CLASS_COUNT, 3) for c, n in zip(map_channels, counts, strict=True)
        )
        self.box_heads = nn.ModuleList(SameConv2d(int(c), n * 4, 3) for c, n in zip(map_channels, counts, strict=True))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The six feature maps, finest first, of pixels ``(B, 3, H, W)``."""
        maps = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x, expanded = block(x)
            if i == _FIRST_MAP_BLOCK:
                maps.append(expanded)
        maps.append(self.top(x))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and class scores of every anchor.

        Args:
            x: ``(B, 3, 300, 300)`` in [-1, 1], made by :func:`to_input`.

        Returns:
            ``boxes_norm`` float32 ``(B, N, 4)``, xyxy in [0, 1]; scores float32 ``(B, N, 91)``,
            independent sigmoids.
        """
        maps = self.maps(x)
        logits = torch.cat([_flat(head(m), CLASS_COUNT) for head, m in zip(self.class_heads, maps, strict=True)], 1)
        codes = torch.cat([_flat(head(m), 4) for head, m in zip(self.box_heads, maps, strict=True)], 1)
        anchors = _build_anchors([(m.shape[-2], m.shape[-1]) for m in maps]).to(codes.device)
        return _decode(codes.float(), anchors), logits.float().sigmoid()


def to_input(pixels: ByteArray) -> Tensor:
    """Scale uint8 RGB ``(H, W, 3)`` to float32 ``(1, 3, H, W)`` in [-1, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return planes[None].float().mul_(2 / 255).sub_(1)


def load_ssd(path: Path | str) -> SSDMobileNetV2:
    """Read the frozen graph, ready to use: evaluation mode, no gradients.

    Args:
        path: ``frozen_inference_graph.pb`` of ``ssd_mobilenet_v2_coco_2018_03_29``.

    Raises:
        FormatError: If the file is no frozen graph of this detector.
    """
    model = SSDMobileNetV2()
    constants = read_constants(path)
    state: dict[str, Tensor] = {}
    try:
        for target, source in conversion_table().items():
            state |= _convert(target, source, constants)
        model.load_state_dict(state, strict=True)
    except KeyError as error:
        raise FormatError(f"{path} is no SSD-MobileNetV2: the graph has no constant {error}") from error
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{path} is no SSD-MobileNetV2: {error}") from error
    return model.eval().requires_grad_(False)


def conversion_table() -> dict[str, str]:
    """Name of each convolution of :class:`SSDMobileNetV2` to its name in the graph."""
    root = "FeatureExtractor/MobilenetV2/"
    table = {"stem": f"{root}Conv", "top": f"{root}Conv_1"}
    for i in range(sum(repeats for _, _, repeats, _ in _STAGES)):
        block = f"{root}expanded_conv" + (f"_{i}" if i else "")
        parts = ("expand", "depthwise", "project") if i else ("depthwise", "project")
        table |= {f"blocks.{i}.{part}": f"{block}/{part}" for part in parts}
    for i, (narrow, wide) in enumerate(_EXTRA_CHANNELS):
        wide_name = f"{root}layer_19_2_Conv2d_{i + 2}_3x3_s2_{wide}"
        names = (f"{root}layer_19_1_Conv2d_{i + 2}_1x1_{narrow}", f"{wide_name}_depthwise", wide_name)
        table |= {f"extras.{i}.{j}": name for j, name in enumerate(names)}
    for i in range(len(_EXTRA_CHANNELS) + 2):
        table[f"class_heads.{i}"] = f"BoxPredictor_{i}/ClassPredictor"
        table[f"box_heads.{i}"] = f"BoxPredictor_{i}/BoxEncodingPredictor"
    return table


def _convert(target: str, source: str, constants: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    if f"{source}/depthwise_weights" in constants:
        # rows, columns, channels, 1 -> channels, 1, rows, columns
        weight = constants[f"{source}/depthwise_weights"].transpose(2, 3, 0, 1)
    else:
        # rows, columns, in, out -> out, in, rows, columns
        weight = constants[f"{source}/weights"].transpose(3, 2, 0, 1)
    if f"{source}/biases" in constants:
        bias = constants[f"{source}/biases"]
    else:
        gamma, beta, mean, variance = (
            constants[f"{source}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        gain = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        weight, bias = weight * gain[:, None, None, None], beta - mean * gain
    tensors = {f"{target}.weight": weight, f"{target}.bias": bias}
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in tensors.items()}


def _build_extras() -> list[nn.Module]:
    extras: list[nn.Module] = []
    channels = _TOP_CHANNELS
    for narrow, wide in _EXTRA_CHANNELS:
        extras.append(nn.Sequential(_Conv(channels, narrow), _depthwise(narrow, stride=2), _Conv(narrow, wide)))
        channels = wide
    return extras


def _flat(x: Tensor, width: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)  # (B, N, width), anchors innermost


def _anchor_sides() -> list[list[tuple[float, float]]]:
    """Height and width of the anchors of each map, relative to the photo."""
    sides = [[(s / math.sqrt(r), s * math.sqrt(r)) for s, r in zip(_FIRST_SIDES, _FIRST_RATIOS, strict=True)]]
    for scale, next_scale in pairwise(_SCALES[1:]):
        between = math.sqrt(scale * next_scale)
        sides.append([(scale / math.sqrt(r), scale * math.sqrt(r)) for r in _RATIOS] + [(between, between)])
    return sides


def _build_anchors(shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Centre y, centre x, height, width of every anchor: float32 ``(N, 4)``, relative to the photo."""
    anchors = []
    for (rows, columns), sides in zip(shapes, _anchor_sides(), strict=True):
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        centres = np.stack([y, x], -1).reshape(-1, 1, 2).repeat(len(sides), 1)
        sizes = np.broadcast_to(np.array(sides)[None], centres.shape)
        anchors.append(np.concatenate([centres, sizes], -1).reshape(-1, 4))
    return torch.from_numpy(np.concatenate(anchors).astype(np.float32))


def _decode(codes: Tensor, anchors: Tensor) -> Tensor:
    centres = codes[..., :2] / _CENTRE_VARIANCE * anchors[:, 2:] + anchors[:, :2]
    halves = (codes[..., 2:] / _SIZE_VARIANCE).exp() * anchors[:, 2:] / 2
    corners = torch.cat([centres - halves, centres + halves], -1)
    return corners[..., [1, 0, 3, 2]].clamp(0, 1)  # yxyx -> xyxy

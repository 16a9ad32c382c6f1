"""What the two backends have in common: an image encoder, and a decoder of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.dense import Dense, use_dense
from rasa._torch.fill import check_fit
from rasa._torch.loading import torch_device, torch_dtype
from rasa.adapters.sam.architecture import SamArchitecture
from rasa.adapters.sam.attention import RelativeAttention

Features = tuple[Tensor, ...]


class SamNetwork(Protocol):
    """What :class:`rasa.adapters.sam.SamSegmenter` runs."""

    backend: str
    architecture: SamArchitecture

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder and the decoder; box coordinates are encoded in float32 always."""
        ...

    def to(self, device: torch.device) -> None:
        """Move all weights, in place."""
        ...

    def encode(self, pixels: Tensor) -> Features:
        """Image features of ``pixels``, ``(B, 3, side, side)``, normalised and padded.

        Returns:
            The embedding ``(B, C, h, w)``; SAM-HQ adds what refines masks.
        """
        ...

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """Masks of N boxes of one image.

        Args:
            features: Of one image, B = 1.
            boxes: float32 ``(N, 4)``, xyxy in pixels of the padded input.
            multimask: Three masks a box instead of one.

        Returns:
            Logits ``(N, M, 4 h, 4 w)`` and predicted intersection over union ``(N, M)``.
        """
        ...


def fill_model(model: nn.Module, tensors: Mapping[str, Tensor], *, device: str, dtype: str, file: str) -> None:
    """Give a model of unset weights its tensors, strictly; the encoder of prompts stays float32.

    Raises:
        CheckpointError: If a name is missing or unknown, a shape differs, or a number is not finite.
        InputError: If the device or dtype is unknown.
    """
    where, kind = torch_device(device), torch_dtype(dtype)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_fit(expected, tensors, name=file)
    moved = {}
    for name, tensor in tensors.items():
        prompts = name.startswith(("prompt_encoder.", "shared_image_embedding."))
        # Half types hold 8 or 11 bits of a coordinate, of which a photo of 1024 pixels needs more.
        moved[name] = tensor.to(where, torch.float32 if prompts else kind, copy=True)
    model.load_state_dict(moved, strict=True, assign=True)
    model.requires_grad_(requires_grad=False).to(where).eval()


def speed_up(model: nn.Module, layers: Iterable[nn.Module], kind: type[RelativeAttention], *, heads: int) -> None:
    """Swap in what computes the same faster, with the weights as they are; dense layers in all of ``model``."""
    for layer in layers:
        old = layer.attn
        layer.attn = kind(old.qkv, old.proj, rel_pos_h=old.rel_pos_h, rel_pos_w=old.rel_pos_w, heads=heads)
        layer.mlp = _DenseBlock(layer.mlp.lin1, layer.mlp.lin2)
    use_dense(model)


class _DenseBlock(nn.Module):
    """Two dense layers with a GELU between them, which oneDNN does in the first one's pass."""

    def __init__(self, lin1: nn.Module, lin2: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2 = lin1, lin2

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lin1.gelu(x) if isinstance(self.lin1, Dense) else F.gelu(self.lin1(x))
        return self.lin2(hidden)

"""What the two backends have in common: an image encoder, and a decoder of boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.box_segmenter import BoxNetwork
from rasa._torch.dense import Dense, use_dense
from rasa._torch.fill import fill_module
from rasa.adapters.sam.architecture import SamArchitecture
from rasa.adapters.sam.attention import RelativeAttention

# Half types hold 8 or 11 bits of a coordinate, of which a photo of 1024 pixels needs more.
_EXACT = ("prompt_encoder", "shared_image_embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamWeights:
    """Weights of a model, and where they go.

    Attributes:
        architecture: Sizes.
        tensors: By published names.
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        file: What errors call the weights.
    """

    architecture: SamArchitecture
    tensors: Mapping[str, Tensor]
    device: str
    dtype: str
    file: str

    def fill(self, make: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> Any:
        """A module that ``make`` builds, with ``tensors`` by its own names.

        Raises:
            CheckpointError: If the tensors do not fit.
            InputError: If the device or dtype is unknown.
        """
        return fill_module(make, tensors, name=self.file, device=self.device, dtype=self.dtype, exact=_EXACT)


class SamNetwork(BoxNetwork):
    """What :class:`rasa.adapters.sam.SamSegmenter` runs; each package's modules are one kind of it.

    ``encode`` gives the embedding ``(B, C, h, w)``, to which SAM-HQ adds what refines masks; ``decode`` gives logits
    of ``4 h`` and ``4 w``. Boxes are encoded in float32 always.

    Args:
        architecture: Sizes.
        model: Of a package, with a ``mask_decoder``.
        positions: ``(1, C, h, w)``, where the embedding's values lie in the image.
    """

    backend: ClassVar[str]

    def __init__(self, architecture: SamArchitecture, model: Any, positions: Tensor) -> None:
        self.architecture, self._model = architecture, model
        self._positions = positions.to(self.dtype)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        where: torch.device = self._model.mask_decoder.iou_token.weight.device
        return where

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder and the decoder."""
        kind: torch.dtype = self._model.mask_decoder.iou_token.weight.dtype
        return kind

    def to(self, device: torch.device) -> None:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.to`."""
        self._model.to(device)
        self._positions = self._positions.to(device)


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

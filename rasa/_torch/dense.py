"""Dense layers that take the faster of PyTorch's two float32 paths on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dense(nn.Linear):
    """A dense layer; the same numbers as ``nn.Linear``, by oneDNN where that is possible.

    PyTorch multiplies float32 matrices on a CPU by MKL, which is slow on processors of other makers: on one core of
    an AMD EPYC with AVX-512, oneDNN took half its time (178 against 87 GFLOP/s at 9216 x 192 x 768, torch 2.15). Its
    entry point is the one that ``torch.compile`` uses. Gradients, other types and devices, and export go the usual
    way, and ``torch.backends.mkldnn.enabled = False`` sends everything there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x``, ``(..., C)``, and add the bias: ``(..., D)``."""
        return self._onednn(x, "none") if _takes_onednn(x) else F.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of ``self(x)``, in one pass where that is possible."""
        return self._onednn(x, "gelu") if _takes_onednn(x) else F.gelu(F.linear(x, self.weight, self.bias))

    def _onednn(self, x: Tensor, activation: str) -> Tensor:
        # The last argument is read for "gelu" alone: "none" means erf, not tanh.
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "none")  # noqa: SLF001


def _takes_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def use_dense(module: nn.Module) -> None:
    """Turn every ``nn.Linear`` inside ``module`` into a ``Dense``, with its parameters and names as they are."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Dense  # same state; timm's Swin has no argument for the kind of its dense layers


def multiply(x: Tensor, other: Tensor) -> Tensor:
    """Return the product of ``x``, ``(N, C)``, and the transpose of ``other``, ``(M, C)``: ``(N, M)``.

    By oneDNN where that is possible, as in :class:`Dense`.
    """
    if _takes_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, other, None, "none", [], "none")  # noqa: SLF001
    return F.linear(x, other)

"""Dense layers that take the faster of PyTorch's two float32 paths on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Rows of a product over many rows that oneDNN takes at once: at 25088 x 128 x 512 the whole took 69 ms on one core of
# an AMD EPYC, parts of 1024 rows 31 ms, MKL 40 ms (torch 2.15).
ROWS_AT_ONCE = 1024


class Dense(nn.Linear):
    """A dense layer; the same numbers as ``nn.Linear``, by oneDNN where that is possible.

    PyTorch multiplies float32 matrices on a CPU by MKL, which is slow on processors of other makers: on one core of
    an AMD EPYC with AVX-512, oneDNN took half its time (178 against 87 GFLOP/s at 9216 x 192 x 768, torch 2.15), for
    the gradients as well. Its entry point is the one that ``torch.compile`` uses. Other types and devices, gradients
    of gradients, and export go the usual way, and ``torch.backends.mkldnn.enabled = False`` sends everything there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x``, ``(..., C)``, and add the bias: ``(..., D)``."""
        if not _takes_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return _Linear.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of ``self(x)``, in one pass where that is possible."""
        if torch.is_grad_enabled() or not _takes_onednn(x, self.weight):
            return F.gelu(self(x))
        # The last argument is read for "gelu" alone: "none" means erf, not tanh.
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")  # noqa: SLF001


class _Linear(torch.autograd.Function):
    """A product by oneDNN whose gradients are products by oneDNN."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        wants_x, wants_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.t(), None) if wants_x else None,
            _outer(rows, x.reshape(-1, x.shape[-1])) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "none")  # noqa: SLF001


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """The transpose of ``left``, ``(N, D)``, times ``right``, ``(N, C)``: ``(D, C)``."""
    parts = zip(left.split(ROWS_AT_ONCE), right.split(ROWS_AT_ONCE), strict=True)
    first, *others = (_product(some.t(), same.t(), None) for some, same in parts)
    for other in others:
        first += other
    return first


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: what follows cannot be compiled
        and not torch.jit.is_tracing()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001  (they ask for a rule of their own)
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
    if torch.is_grad_enabled() or not _takes_onednn(x, other):
        return F.linear(x, other)
    return _product(x, other, None)

"""Give a module the weights of a file: all of them, of the right shapes, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from rasa._torch.loading import torch_device, torch_dtype, without_init
from rasa.errors import CheckpointError

Module = TypeVar("Module", bound=nn.Module)


def fill_module(
    make: Callable[[], Module],
    tensors: Mapping[str, Tensor],
    *,
    name: str,
    device: str,
    dtype: str,
    exact: tuple[str, ...] = (),
) -> Module:
    """Make a module without drawing random weights, and load it strictly, in evaluation mode and without gradients.

    Args:
        make: Builds the module.
        tensors: All parameters and persistent buffers of the module by its own names; they are copied.
        name: What errors call the weights: their file.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        exact: Children of the module that are float32 whatever the dtype.

    Raises:
        CheckpointError: If a key is missing, unknown or of a wrong shape, or a weight is not of finite
            floating-point numbers.
        InputError: If the device or the dtype is unknown.
    """
    where, kind = torch_device(device), torch_dtype(dtype)
    with without_init():
        module = make()
    check_fit({key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}, tensors, name=name)
    return assign(module, tensors, device=where, dtype=kind, exact=exact).requires_grad_(requires_grad=False)


def assign(
    module: Module,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    exact: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
) -> Module:
    """Give a module of unset weights tensors that fit it; return it in evaluation mode.

    Args:
        module: Whose weights are replaced.
        tensors: All of its parameters and persistent buffers; copied.
        device: Where they go.
        dtype: Their type.
        exact: Children of the module that are float32 whatever the dtype.
        aliases: Names of parameters that are the same as others: alias to canonical name.
    """
    same = aliases or {}
    moved = {
        key: tensor.to(device, torch.float32 if key.partition(".")[0] in exact else dtype, copy=True)
        for key, tensor in tensors.items()
        if key not in same
    }
    module.load_state_dict(moved | {alias: moved[name] for alias, name in same.items()}, strict=True, assign=True)
    for alias, name in same.items():
        part, _, leaf = alias.rpartition(".")
        # One parameter, not two views of one tensor: an optimizer must see it once.
        setattr(module.get_submodule(part), leaf, module.get_parameter(name))
    # What moves now are the buffers that no file holds; positions are computed in the dtype of the module.
    module.to(device)
    for key, child in module.named_children() if exact else [("", module)]:
        if key not in exact:
            child.to(dtype)
    return module.eval()


def check_fit(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Check that ``tensors`` are what a module of the shapes ``expected`` needs.

    Raises:
        CheckpointError: If they are not; it names the first key that is wrong, and how many are.
    """
    for what, keys in (("lacks", expected.keys() - tensors.keys()), ("has the unknown", tensors.keys() - expected)):
        if keys:
            first, more = sorted(keys)[0], f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f'{name} {what} key "{first}"{more}; it is of another model, or damaged')
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != expected[key]:
            got = tuple(tensor.shape)
            raise CheckpointError(f'{name}: "{key}" must have shape {expected[key]}, got {got}; it is of another model')
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f'{name}: "{key}" must hold finite floating-point numbers; fetch it again')

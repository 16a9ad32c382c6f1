"""Devices, dtypes, and modules that are made to be given their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rasa.errors import InputError

_DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}

# What the initialisers of torch, timm and transformers write into parameters with.
_FILLING = frozenset({
    "add_", "clamp_", "constant_", "copy_", "erfinv_", "fill_", "kaiming_normal_", "kaiming_uniform_", "mul_",
    "normal_", "uniform_", "zero_",
})  # fmt: skip


def torch_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        InputError: If torch knows no such device.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f'unknown device "{name}"; give one of torch, such as "cpu" or "cuda"') from error


def torch_dtype(name: str) -> torch.dtype:
    """The floating-point type called ``name``.

    Raises:
        InputError: If it is none of float64, float32, bfloat16 and float16.
    """
    if name not in _DTYPES:
        raise InputError(f'unknown dtype "{name}"; give one of {", ".join(_DTYPES)}')
    return _DTYPES[name]


@contextmanager
def without_init() -> Iterator[None]:
    """Make modules whose parameters hold whatever the memory held; load every one of them afterwards.

    Drawing random weights of a large model takes seconds, and would move the caller's random numbers on.
    """
    with _SkipInit(), torch.random.fork_rng(devices=[]):
        yield


class _SkipInit(TorchFunctionMode):
    """Leave new parameters of this thread as the allocator gives them; untouched memory costs neither time nor room."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")  # torch.nn.init passes its only by name
        if isinstance(target, nn.Parameter) and getattr(func, "__name__", "") in _FILLING:
            return target
        return func(*args, **kwargs)

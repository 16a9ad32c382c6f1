"""What tells models apart: hashes of weights and of settings, and where weights are from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rasa.weights import checkpoints
from rasa_ram.published import PUBLISHED


def weights_hash(module: nn.Module) -> str:
    """sha256 of the names, shapes, types and values of all parameters and buffers, wherever they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        # As bytes, for NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def json_hash(value: Any) -> str:
    """sha256 of plain JSON values; the order of keys makes no difference."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Provenance:
    """Where a model is from, as plain JSON values that tell it from others with other weights.

    Args:
        model: Its weights must not change afterwards. One that is no torch module has to be told apart by ``given``.
        given: What is known of it.
    """

    def __init__(self, model: object, given: Mapping[str, Any] | None) -> None:
        self._model, self._given = model, dict(given or {})

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What was given and, unless that has a ``sha256``, the hash of the weights: half a second a gigabyte."""
        if "sha256" in self._given or not isinstance(self._model, nn.Module):
            return self._given
        # Of the values in use, not of their file, which may have been written anew since.
        return {**self._given, "weights": weights_hash(self._model)}


def provenance_of(source: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The name of what was loaded, and for a published model the sha256 of its file.

    Args:
        source: As :func:`rasa_ram.load` takes it.
    """
    if isinstance(source, str) and source in PUBLISHED:
        return {"checkpoint": source, "sha256": checkpoints()[source].sha256}
    return {"checkpoint": Path(source).name}

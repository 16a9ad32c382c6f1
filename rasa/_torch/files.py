"""Files of tensors from the internet: pickles and safetensors, read as data."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rasa.errors import CheckpointError

Shape = tuple[int, ...]

# What torch.load raises on a damaged file, depending on where the damage is.
_DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open file of weights.

    Attributes:
        path: Where it lies.
        tensors: By the names in the file; memory-mapped where the format allows.
        metadata: Of a safetensors file; empty for a pickle.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes by the names in the file."""
        return {key: tuple(tensor.shape) for key, tensor in self.tensors.items()}


def model_files(folder: Path) -> tuple[Path, Path]:
    """``config.json`` and ``model.safetensors`` of a model's folder.

    Raises:
        CheckpointError: If one of them is missing.
    """
    config, weights = folder / "config.json", folder / "model.safetensors"
    for part in (config, weights):
        if not part.is_file():
            raise CheckpointError(
                f"{folder} lacks {part.name}; a model's folder holds config.json and model.safetensors"
            )
    return config, weights


def source_hash(source: Path) -> str:
    """sha256 of a file of weights, or of a model's folder: the weights and all that is read beside them.

    Two models of one name must not pass for each other. It takes half a second a gigabyte.

    Raises:
        CheckpointError: If a file cannot be read.
    """
    if not source.is_dir():
        return _file_hash(source)
    decisive = {".safetensors", ".json", ".txt"}
    files = sorted(file for file in source.iterdir() if file.suffix in decisive and file.is_file())
    lines = [f"{file.name} {_file_hash(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}") from error


def read_settings(path: Path, *, cure: str = "fetch it again") -> dict[str, Any]:
    """Read a JSON object of a model's folder, such as ``config.json``.

    Args:
        path: The file.
        cure: What the user can do if it cannot be read; the end of the error's text.

    Raises:
        CheckpointError: If the file is missing or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); {cure}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(values).__name__}; {cure}")
    return values


def open_tensors(path: Path) -> TensorFile:
    """Open a ``.pth`` with ``weights_only``, or a safetensors file, told apart by their first bytes.

    Raises:
        CheckpointError: If the file is absent, unreadable, damaged, would run code, or holds no state dict.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}") from error
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return _open_safetensors(path)
    loaded = _load_pickle(path, zipped=head.startswith(b"PK"))
    return TensorFile(path, _state_dict(loaded, path), {})


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file; empty if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, *_DAMAGE):
        return {}


def _open_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
            return TensorFile(path, tensors, file.metadata() or {})
    except (SafetensorError, OSError, *_DAMAGE) as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}); fetch or convert it again") from error


def _load_pickle(path: Path, *, zipped: bool) -> Any:
    try:
        # Files from before torch 1.6 are no archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        reason = _short_reason(error)
        if re.search("global|instance|function|REDUCE|callable", reason, re.IGNORECASE):
            raise CheckpointError(
                f"{path} is refused: it holds more than tensors, and reading it could run code ({reason}); "
                "fetch the weights from their publisher"
            ) from error
        raise CheckpointError(f"{path} is no file of weights, or damaged ({reason}); fetch it again") from error
    except (OSError, zipfile.BadZipFile, *_DAMAGE) as error:
        raise CheckpointError(
            f"{path} is truncated or no file of weights ({_short_reason(error)}); fetch it again"
        ) from error


def _short_reason(error: BaseException) -> str:
    """The telling line of torch's long messages."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error:\s*([^\n]+?)(?:\. Please use|$)", text, re.MULTILINE)
    return (found[1] if found else text.partition("\n")[0]).strip()[:200] or type(error).__name__


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    # Training also writes `optimizer`, `config` and `epoch`, which are no weights.
    state = loaded["model"] if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f'{path} holds no state dict, neither under "model" nor by itself, but {type(state)}')
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {key!r} must name a tensor, got {type(value).__name__}")
    return {key: value.detach() for key, value in state.items()}

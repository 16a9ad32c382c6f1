"""Files of tensors: the published pickles and safetensors, read as data, and the slim safetensors that we write."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rasa.errors import CheckpointError, ConfigError, OutputError
from rasa_ram._names import Shape
from rasa_ram.config import RamConfig, SwinConfig, TextConfig

SCHEMA = "rasa-ram/1"

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

    @property
    def config(self) -> RamConfig | None:
        """The configuration that the file carries, if it is one of ours.

        Raises:
            CheckpointError: If it is malformed.
        """
        if self.metadata.get("schema") != SCHEMA or "config" not in self.metadata:
            return None
        return config_from_json(self.metadata["config"], name=str(self.path))


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


def write_slim(
    path: Path, shapes: Sequence[tuple[str, Shape]], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file of float32 tensors, holding one of them in memory at a time.

    The file appears whole or not at all. The same tensors and metadata give the same bytes.

    Args:
        path: The file; replaced if it exists.
        shapes: Names and shapes, in the order of ``tensors``.
        tensors: The same names with their values, any floating-point type.
        metadata: Texts for the header.

    Raises:
        OutputError: If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(_header(shapes, metadata))
            for (name, shape), (given, tensor) in zip(shapes, tensors, strict=True):
                _write_tensor(file, tensor, expected=(name, shape), given=given)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose a folder with room") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _header(shapes: Sequence[tuple[str, Shape]], metadata: Mapping[str, str]) -> bytes:
    # https://huggingface.co/docs/safetensors: length of the header, the header, the tensors without gaps.
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, shape in shapes:
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: BinaryIO, tensor: Tensor, *, expected: tuple[str, Shape], given: str) -> None:
    if (given, tuple(tensor.shape)) != expected:
        raise ValueError(f"tensors must come in the order of shapes: expected {expected}, got {given}")
    array = tensor.detach().to(torch.float32).contiguous().numpy()
    file.write((array if sys.byteorder == "little" else array.astype("<f4")).reshape(-1).data)


def config_to_json(config: RamConfig) -> str:
    """Return a configuration as one line of JSON."""
    return json.dumps(asdict(config), sort_keys=True)


def config_from_json(text: str, *, name: str) -> RamConfig:
    """Read :func:`config_to_json`; absent fields have their defaults.

    Raises:
        CheckpointError: If it is no JSON, or a field is unknown, missing or wrong; ``name`` says where.
    """
    try:
        values = _fields(RamConfig, json.loads(text))
        values["vision"] = SwinConfig(**{k: _tuple(v) for k, v in _fields(SwinConfig, values["vision"]).items()})
        if values.get("text") is not None:
            values["text"] = TextConfig(**_fields(TextConfig, values["text"]))
        return RamConfig(**values)
    except (ValueError, TypeError, KeyError, ConfigError) as error:
        raise CheckpointError(
            f"{name} carries a malformed configuration: {error}; convert the weights again"
        ) from error


def _fields(cls: type, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise TypeError(f"{cls.__name__} must be a table, got {values!r}")
    if unknown := values.keys() - {field.name for field in fields(cls)}:
        raise TypeError(f'unknown key "{min(unknown)}"')
    return dict(values)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

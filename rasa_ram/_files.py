"""The slim safetensors files that we write, and the configuration in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from rasa._files import write_atomically
from rasa._torch.files import TensorFile
from rasa.errors import CheckpointError, ConfigError
from rasa_ram._names import Shape
from rasa_ram.config import RamConfig, SwinConfig, TextConfig

SCHEMA = "rasa-ram/1"


def config_in(opened: TensorFile) -> RamConfig | None:
    """The configuration that a file carries, if it is one of ours.

    Raises:
        CheckpointError: If it is malformed.
    """
    if opened.metadata.get("schema") != SCHEMA or "config" not in opened.metadata:
        return None
    return config_from_json(opened.metadata["config"], name=str(opened.path))


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
    with write_atomically(path, sync=True, make_folder=True) as file:
        file.write(_header(shapes, metadata))
        for (name, shape), (given, tensor) in zip(shapes, tensors, strict=True):
            _write_tensor(file, tensor, expected=(name, shape), given=given)


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


def _write_tensor(file: IO[bytes], tensor: Tensor, *, expected: tuple[str, Shape], given: str) -> None:
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

"""Reads the weights out of an ONNX file, without the onnx package and without running the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rasa.adapters.lite._protobuf import VARINT, fields, text, varints
from rasa.arrays import FloatArray
from rasa.errors import FormatError

# Field numbers of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_NAME = 1, 3
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_FLOAT32 = 1
_ANONYMOUS = "onnx::"


def read_onnx_weights(path: Path) -> dict[str, FloatArray]:
    """Every float32 initialiser of an ONNX model, by name.

    An exporter folds some weights and calls them ``onnx::MatMul_1966``; such a weight is named
    after the first node that reads it, as in ``/encoder/layer.0/mlp/fc1/MatMul``.

    Args:
        path: The ``.onnx`` file, with its weights inside.

    Returns:
        Read-only arrays over one copy of the file; initialisers of other types are left out.

    Raises:
        FormatError: If the file is no ONNX model, or an initialiser's size and shape disagree.
    """
    weights: dict[str, FloatArray] = {}
    readers: dict[str, str] = {}
    for number, _, graph in fields(memoryview(path.read_bytes())):
        if number != _MODEL_GRAPH:
            continue
        for part, _, message in fields(graph):
            if part == _GRAPH_INITIALIZER:
                weights.update(_read_tensor(message))
            elif part == _GRAPH_NODE:
                node, inputs = _read_node(message)
                for name in inputs:
                    readers.setdefault(name, node)
    if not weights:
        raise FormatError(f"{path.name} holds no float32 weights; it is not the ONNX file that was expected")
    return {readers.get(name, name) if name.startswith(_ANONYMOUS) else name: w for name, w in weights.items()}


def _read_node(message: memoryview) -> tuple[str, list[str]]:
    name, inputs = "", []
    for number, _, value in fields(message):
        if number == _NODE_INPUT:
            inputs.append(text(value))
        elif number == _NODE_NAME:
            name = text(value)
    return name, inputs


def _read_tensor(message: memoryview) -> dict[str, FloatArray]:
    name, kind, data = "", 0, memoryview(b"")
    shape: list[int] = []
    for number, wire_type, value in fields(message):
        if number == _TENSOR_DIMS:
            shape.extend([value] if wire_type == VARINT else varints(value))
        elif number == _TENSOR_TYPE:
            kind = value
        elif number == _TENSOR_NAME:
            name = text(value)
        elif number in (_TENSOR_RAW, _TENSOR_FLOATS):  # a packed list of floats is laid out as raw bytes are
            data = value
    if kind != _FLOAT32:
        return {}
    if len(data) != 4 * int(np.prod(shape)):
        raise FormatError(f"ONNX initialiser {name!r} of shape {shape} has {len(data)} bytes; weights kept elsewhere?")
    return {name: np.frombuffer(data, "<f4").reshape(shape)}

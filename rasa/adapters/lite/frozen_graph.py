"""Reads the constants of a TensorFlow-1 frozen graph, without TensorFlow.

Source: tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.adapters.lite._protobuf import BYTES, VARINT, fields, text, varints
from rasa.errors import FormatError

_DTYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 9: np.int64}

# Field numbers of the messages, by message.
_GRAPH_NODE = 1
_NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 5
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_TENSOR = 8
_TENSOR_DTYPE, _TENSOR_SHAPE, _TENSOR_CONTENT, _TENSOR_FLOATS, _TENSOR_INTS = 1, 2, 4, 5, 7
_SHAPE_DIMENSION, _DIMENSION_SIZE = 2, 1


def read_constants(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read every numeric constant of a frozen graph.

    Args:
        path: A serialised ``GraphDef``, usually called ``frozen_inference_graph.pb``.

    Returns:
        Node name to array; constants of text and other types are left out.

    Raises:
        FormatError: If the file is no such graph or is cut off.
    """
    constants = {}
    graph = memoryview(Path(path).read_bytes())
    try:
        for number, wire_type, node in fields(graph):
            if number == _GRAPH_NODE and wire_type == BYTES:
                name, tensor = _read_node(node)
                array = None if tensor is None else _read_tensor(tensor)
                if array is not None:
                    constants[name] = array
    except FormatError as error:
        raise FormatError(f"{path} is no frozen graph: {error}") from error
    return constants


def _read_node(node: memoryview) -> tuple[str, memoryview | None]:
    name, operation, tensor = "", "", None
    for number, wire_type, value in fields(node):
        if wire_type != BYTES:
            continue
        if number == _NODE_NAME:
            name = text(value)
        elif number == _NODE_OP:
            operation = text(value)
        elif number == _NODE_ATTRIBUTE:
            tensor = _read_value_attribute(value) or tensor
    return name, tensor if operation == "Const" else None


def _read_value_attribute(entry: memoryview) -> memoryview | None:
    parts = {number: value for number, wire_type, value in fields(entry) if wire_type == BYTES}
    if _ENTRY_VALUE not in parts or text(parts.get(_ENTRY_KEY, b"")) != "value":
        return None
    return {number: value for number, wire, value in fields(parts[_ENTRY_VALUE]) if wire == BYTES}.get(_VALUE_TENSOR)


def _read_tensor(tensor: memoryview) -> NDArray[Any] | None:
    dtype: type[np.generic] | None = np.float32
    shape: list[int] = []
    values: NDArray[Any] | None = None
    for number, wire_type, value in fields(tensor):
        if number == _TENSOR_DTYPE and wire_type == VARINT:
            dtype = _DTYPES.get(value)
        elif number == _TENSOR_SHAPE and wire_type == BYTES:
            shape = _read_shape(value)
        elif number == _TENSOR_CONTENT and wire_type == BYTES and dtype is not None:
            values = _from_bytes(value, dtype)
        elif number == _TENSOR_FLOATS and wire_type == BYTES:
            values = _from_bytes(value, np.float32)
        elif number == _TENSOR_INTS and wire_type == BYTES:
            values = np.array(varints(value), np.uint64).astype(np.int64)
    if dtype is None or values is None:
        return None
    return _shaped(values.astype(dtype, copy=False), shape)


def _read_shape(message: memoryview) -> list[int]:
    sizes = []
    for number, wire_type, dimension in fields(message):
        if number == _SHAPE_DIMENSION and wire_type == BYTES:
            # proto3 leaves out a field that is 0.
            sizes.append({n: v for n, w, v in fields(dimension) if w == VARINT}.get(_DIMENSION_SIZE, 0))
    return sizes


def _from_bytes(content: memoryview, dtype: type[np.generic]) -> NDArray[Any]:
    if len(content) % np.dtype(dtype).itemsize:
        raise FormatError(f"{len(content)} bytes are no whole number of {np.dtype(dtype)} values")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def _shaped(values: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    if values.size == 1:  # one value stands for all
        if math.prod(shape) > 1 << 28:
            raise FormatError(f"constant of shape {tuple(shape)} is too large")
        return np.full(shape, values[0])
    if values.size != math.prod(shape):
        raise FormatError(f"{values.size} values do not fill the shape {tuple(shape)}")
    return values.reshape(shape)

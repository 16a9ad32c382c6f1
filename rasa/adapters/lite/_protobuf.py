"""Reads the protobuf wire format, so that frozen graphs and ONNX files need no package of their own.

Source: the encoding as published at https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rasa.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10  # bytes: 64 bits, seven to a byte


def fields(buffer: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield every field of one serialised message, in file order.

    Nested messages are not opened: their bytes come out as a value, to be read by another call.

    Args:
        buffer: The message, one byte per item.

    Yields:
        ``(number, wire type, value)``; the value is an unsigned int for ``VARINT`` and a view of
        ``buffer``, without copy, for ``FIXED64``, ``BYTES`` and ``FIXED32``.

    Raises:
        FormatError: If the bytes end too early or hold a wire type that proto3 does not have.
    """
    position = 0
    while position < len(buffer):
        key, position = _read_varint(buffer, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = _read_varint(buffer, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, position = _read_varint(buffer, position)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise FormatError(f"not a protobuf message: wire type {wire_type} at byte {position}")
        if size > len(buffer) - position:
            raise FormatError(f"cut protobuf message: field {number} needs {size} bytes at byte {position}")
        yield number, wire_type, buffer[position : position + size]
        position += size


def varints(buffer: memoryview) -> list[int]:
    """Read a packed list of unsigned varints.

    Raises:
        FormatError: If the last one is cut off.
    """
    values, position = [], 0
    while position < len(buffer):
        value, position = _read_varint(buffer, position)
        values.append(value)
    return values


def text(value: Any) -> str:
    """Decode a string field.

    Raises:
        FormatError: If the value is no bytes, or not UTF-8.
    """
    if isinstance(value, int):
        raise FormatError(f"expected a protobuf string, got the number {value}")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"protobuf string is not UTF-8: {error}") from error


def _read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for i, byte in enumerate(buffer[position : position + _LONGEST_VARINT]):
        result |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return result, position + i + 1
    raise FormatError(f"malformed protobuf varint at byte {position}")

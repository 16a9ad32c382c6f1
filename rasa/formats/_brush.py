"""Brush masks of Label Studio: run lengths packed to bits, four equal channels a pixel.

A header of 53 bits: number of values (32), bits of a value less 1 (5), bits of the four sizes of run lengths less 1
(4 each). Then runs: a bit that says whether one value repeats or each follows, the size that the length has (2), the
length less 1, and the value or values. Values are RGBA, row by row; alpha is the mask.

Source:
    rle-pack of thi.ng/umbrella, https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, whose bytes Label
    Studio stores as a list of whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rasa.arrays import BoolArray, ByteArray, IntArray
from rasa.errors import FormatError

_CHANNELS = 4
_VALUE_BITS = 8
# The sizes that Label Studio's own encoder uses, in bits.
_SIZES = (3, 4, 8, 16)
_LONGEST = 2 ** _SIZES[-1]
_HEADER_BITS = 53
# Half covered: brushes have soft edges.
_INSIDE = 128


def mask_to_brush(mask: BoolArray) -> list[int]:
    """Encode one mask.

    Args:
        mask: bool ``(H, W)`` with at least one pixel, and fewer than 2**30.

    Returns:
        Bytes as whole numbers in [0, 255].
    """
    lengths, values = _runs(mask.ravel())
    size = np.searchsorted([2**bits for bits in _SIZES], lengths)
    bits = np.array(_SIZES)[size]
    # One number holds a whole run: repeats, size, length less 1, value.
    tokens = ((4 + size) << bits | lengths - 1) << _VALUE_BITS | values
    header = _bits(
        np.array([mask.size * _CHANNELS, _VALUE_BITS - 1, *(size - 1 for size in _SIZES)]), [32, 5, 4, 4, 4, 4]
    )
    body = _bits(tokens, 3 + bits + _VALUE_BITS)
    return list(np.packbits(np.concatenate((header, body))).tolist())


def brush_to_mask(brush: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Decode one mask; the inverse of :func:`mask_to_brush`, and for what Label Studio itself encoded.

    Args:
        brush: Bytes as whole numbers.
        size: ``(height, width)`` in pixels.

    Returns:
        bool ``(H, W)``: where alpha is at least 128 of 255.

    Raises:
        FormatError: If the numbers are no bytes, end too early, or do not fill ``size``.
    """
    data = _bytes(brush)
    stream = np.unpackbits(data)
    if len(stream) < _HEADER_BITS:
        raise FormatError(f"a brush mask needs a header of {_HEADER_BITS} bits, got {len(stream)}")
    count, value_bits = _number(stream[:32]), _number(stream[32:37]) + 1
    sizes = [_number(stream[start : start + 4]) + 1 for start in range(37, _HEADER_BITS, 4)]
    if count != size[0] * size[1] * _CHANNELS or value_bits != _VALUE_BITS:
        raise FormatError(
            f"a brush mask of {count} values of {value_bits} bits does not fill {size} pixels of 4 x 8 bits"
        )
    values = _unpack(data.tobytes() + b"\0" * 8, stream, sizes=sizes, count=count)
    inside: BoolArray = values[_CHANNELS - 1 :: _CHANNELS].reshape(size) >= _INSIDE
    return inside


def _runs(flat: BoolArray) -> tuple[IntArray, IntArray]:
    """Lengths, cut to what one run can hold, and values of the channels."""
    ends = np.concatenate((np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    lengths = np.diff(np.concatenate(([0], ends))) * _CHANNELS
    values = np.where(flat[ends - 1], 255, 0).astype(np.int64)
    pieces = -(-lengths // _LONGEST)
    cut = np.full(int(pieces.sum()), _LONGEST, np.int64)
    last = np.cumsum(pieces) - 1
    cut[last] = lengths - (pieces - 1) * _LONGEST
    return cut, np.repeat(values, pieces)


def _bits(numbers: IntArray, widths: Sequence[int] | IntArray) -> ByteArray:
    """The lowest ``widths`` bits of each number, highest first, one after another."""
    every = np.unpackbits(numbers.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    bits: ByteArray = every[np.arange(32) >= 32 - np.asarray(widths)[:, None]]
    return bits


def _bytes(brush: Sequence[int]) -> ByteArray:
    numbers = np.asarray(brush)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer) or ((numbers < 0) | (numbers > 255)).any():
        raise FormatError("a brush mask must be a list of whole numbers from 0 to 255")
    return numbers.astype(np.uint8)


def _number(bits: ByteArray) -> int:
    return int("".join(map(str, bits.tolist())), 2)


def _unpack(data: bytes, stream: ByteArray, *, sizes: Sequence[int], count: int) -> ByteArray:
    values = np.zeros(count, np.uint8)
    at, filled = _HEADER_BITS, 0
    while filled < count:
        head = _peek(data, at, 3)
        bits = sizes[head & 3]
        length = _peek(data, at + 3, bits) + 1
        at += 3 + bits
        used = _VALUE_BITS if head & 4 else _VALUE_BITS * length
        if at + used > len(stream) or filled + length > count:
            raise FormatError("a brush mask ends in the middle of a run, or a run is longer than the mask")
        values[filled : filled + length] = np.packbits(stream[at : at + used])
        at, filled = at + used, filled + length
    return values


def _peek(data: bytes, at: int, count: int) -> int:
    """``count`` bits, at most 16, from position ``at``."""
    window = int.from_bytes(data[at >> 3 : (at >> 3) + 4], "big")
    return (window >> (32 - (at & 7) - count)) & ((1 << count) - 1)

"""COCO run-length encoding of masks, compatible byte for byte with pycocotools.

A mask is read column by column; the counts are run lengths that alternate
between background and foreground, starting with background (possibly 0). Each
count from the third on is stored as the difference to the count two before,
in little-endian groups of 5 bits with a continuation bit, offset by 48 to be
printable (the compressed format of the COCO API).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rasa.arrays import BoolArray, IntArray
from rasa.errors import FormatError, InputError

MAX_PIXELS = 2**31
"""Largest mask that is decoded, in pixels: the guard against a made-up ``size``."""


def mask_to_rle(mask: BoolArray) -> dict[str, Any]:
    """Encode one mask.

    Args:
        mask: bool ``(H, W)``.

    Returns:
        ``{"size": [H, W], "counts": str}``, as ``pycocotools.mask.encode`` gives (with text for bytes).

    Raises:
        InputError: If ``mask`` has not two axes.
    """
    if mask.ndim != 2:
        raise InputError(f"a mask must have shape (height, width), got {mask.shape}")
    flat = mask.astype(np.bool_, copy=False).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], changes)) if flat.size and not flat[0] else np.concatenate(([0, 0], changes))
    counts = np.diff(np.concatenate((starts, [flat.size]))) if flat.size else np.zeros(0, np.int64)
    height, width = mask.shape
    return {"size": [height, width], "counts": _compress(counts)}


def rle_to_mask(rle: Mapping[str, Any]) -> BoolArray:
    """Decode one mask; the inverse of :func:`mask_to_rle`.

    Args:
        rle: ``size`` as ``[H, W]`` and ``counts``, either compressed text or a list of run lengths.

    Returns:
        bool ``(H, W)``.

    Raises:
        FormatError: If the counts are no run lengths or do not fill the size.
    """
    height, width = (int(length) for length in rle["size"])
    if height < 0 or width < 0 or height * width > MAX_PIXELS:
        raise FormatError(f"run-length mask of impossible size {[height, width]}")
    counts = rle["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    runs = _decompress(counts) if isinstance(counts, str) else np.asarray(counts, np.int64).reshape(-1)
    if (runs < 0).any() or (runs > height * width).any() or int(runs.sum()) != height * width:
        raise FormatError(f"run lengths do not fill a mask of size {[height, width]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def rle_area(rle: Mapping[str, Any]) -> int:
    """Number of foreground pixels, without decoding the mask."""
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    return int(runs[1::2].sum())


def _compress(counts: IntArray) -> str:
    deltas = counts.astype(np.int64)
    deltas[3:] -= counts[1:-2]
    # Every number is written in groups of 5 bits until only sign bits remain.
    groups, rest, open_ = [], deltas.copy(), np.ones(len(deltas), np.bool_)
    while open_.any():
        low = rest & 31
        rest = rest >> 5
        more = np.where(low & 16, rest != -1, rest != 0)
        groups.append(np.where(open_, (low | (more.astype(np.int64) << 5)) + 48, 0))
        open_ = open_ & more
    if not groups:
        return ""
    characters = np.stack(groups, axis=1).ravel()
    return characters[characters > 0].astype(np.uint8).tobytes().decode("ascii")


def _decompress(text: str) -> IntArray:
    codes = np.frombuffer(text.encode("ascii", errors="replace"), np.uint8).astype(np.int64) - 48
    if ((codes < 0) | (codes > 63)).any():
        raise FormatError("run lengths hold a character that the COCO format does not use")
    if not len(codes):
        return np.zeros(0, np.int64)
    last = (codes & 32) == 0
    if not last[-1]:
        raise FormatError("run lengths end in the middle of a number")
    index = np.concatenate(([0], np.cumsum(last)[:-1]))
    first = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
    place = np.arange(len(codes)) - first[index]
    if place.max() > 11:
        raise FormatError("run lengths hold a number of more than 60 bits")
    numbers = np.zeros(int(last.sum()), np.int64)
    np.add.at(numbers, index, (codes & 31) << (5 * place))
    negative = (codes[last] & 16) != 0
    numbers[negative] -= np.int64(1) << (5 * (place[last][negative] + 1))
    # Undo the differences: odd and even positions are two running sums from position 1 and 2 on.
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs

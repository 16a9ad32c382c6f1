"""Array aliases, and the one check that guards the shape of every public array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rasa.errors import InputError

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]


def read_only(
    name: str, value: ArrayLike, *, dtype: type[np.generic], shape: tuple[int | None, ...], hint: str = ""
) -> NDArray[Any]:
    """Return ``value`` as a read-only array of ``dtype``, after checking its shape.

    No copy is made where ``value`` is such an array already: the result is then
    a view that cannot be written through, and the caller's array stays writable.

    Args:
        name: What the array is, for the error message.
        value: Anything NumPy can read.
        dtype: Type of the result; only a lossless or same-kind cast is done.
        shape: Expected length of each axis; None accepts any.
        hint: What the user should pass instead, for the error message.

    Raises:
        InputError: If the shape differs, or the values cannot be read as ``dtype``.
    """
    try:
        array = np.asarray(value)
        if array.dtype != dtype:
            # An empty list has no type of its own; NumPy calls it float64.
            casting = "unsafe" if array.size == 0 else "same_kind"
            array = array.astype(dtype, casting=casting)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be {np.dtype(dtype)} values: {error}") from error
    if array.size == 0 and _holds_nothing(shape) and array.shape in ((0,), shape):
        array = array.reshape([length or 0 for length in shape])
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        expected = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
        raise InputError(f"{name} must have shape {expected}, got {array.shape}" + (f"; {hint}" if hint else ""))
    view = array.view()
    view.flags.writeable = False
    return view


def _holds_nothing(shape: tuple[int | None, ...]) -> bool:
    return 0 in shape

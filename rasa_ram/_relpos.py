"""Relative-position tables for another window: the published rule, which spaces the old samples geometrically.

Source:
    The Swin loaders of the Recognize Anything code, commit 7cb804a8, after BEiT (arXiv:2106.08254).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rasa.errors import CheckpointError, DependencyError

# The ratio of neighbouring distances is searched for between these, to this precision.
_RATIO_MIN, _RATIO_MAX, _PRECISION = 1.01, 1.5, 1e-6


def resize_position_table(table: Tensor, side: int, *, name: str = "relative_position_bias_table") -> Tensor:
    """Interpolate a table of relative positions to another window.

    Args:
        table: ``(S * S, heads)``, S odd; row-major over the vertical, then the horizontal offset.
        side: S of the result, odd: 2w - 1 for a window of w.
        name: What errors call the table.

    Returns:
        float32 ``(side * side, heads)``; ``table`` itself where it has this side already.

    Raises:
        CheckpointError: If the table is not one of a square window, or it is of a window below 3 and to be resized.
        DependencyError: If it is to be resized and scipy is not installed.
    """
    old = math.isqrt(table.shape[0]) if table.ndim == 2 else 0
    if table.ndim != 2 or old * old != table.shape[0] or old % 2 == 0:
        raise CheckpointError(f"{name} must have an odd square number of rows, got shape {tuple(table.shape)}")
    if old == side:
        return table
    if old < 5:
        raise CheckpointError(
            f"{name} of window {(old + 1) // 2} is too small to be resized; give a model of its window"
        )
    if table.is_meta:
        return table.new_empty((side * side, table.shape[1]), dtype=torch.float32)
    return torch.from_numpy(_interpolate(table.to(torch.float64).numpy(), old, side))


def _interpolate(table: np.ndarray, old: int, side: int) -> np.ndarray:
    try:
        from scipy.interpolate import RectBivariateSpline  # noqa: PLC0415  (only for a file of another window)
    except ImportError as error:
        raise DependencyError('weights of another window need "scipy"; install the extra "ram"') from error

    known = _coordinates(old // 2, _ratio(old // 2, side // 2))
    # Beyond the outermost sample the value there counts.
    wanted = np.clip(np.arange(-(side // 2), side // 2 + 1, dtype=np.float64), known[0], known[-1])
    columns = [
        RectBivariateSpline(known, known, column.reshape(old, old))(wanted, wanted).ravel() for column in table.T
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _ratio(old_radius: int, radius: int) -> float:
    """The ratio q for which 1 + q + ... + q^(n-1), n the old radius, is the new one."""
    left, right = _RATIO_MIN, _RATIO_MAX
    ratio = left
    while right - left > _PRECISION:
        ratio = (left + right) / 2
        if (1 - ratio**old_radius) / (1 - ratio) > radius:
            right = ratio
        else:
            left = ratio
    # The last one tried, not the middle of what is left; at a border the search sticks, as published.
    return ratio


def _coordinates(radius: int, ratio: float) -> np.ndarray:
    distances = np.cumsum(ratio ** np.arange(radius, dtype=np.float64))
    return np.concatenate([-distances[::-1], [0.0], distances])

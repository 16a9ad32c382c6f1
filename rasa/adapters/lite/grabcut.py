"""GrabCut without side effects, and masks from boxes by colour alone.

Source: Rother et al., "GrabCut: interactive foreground extraction using iterated graph cuts", 2004.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from rasa.arrays import BoolArray, ByteArray

SURE_BACKGROUND, SURE_FOREGROUND, MAYBE_BACKGROUND, MAYBE_FOREGROUND = range(4)
"""Values of a trimap, those of ``cv2.GC_*``."""

_FEWEST = 16  # pixels of either side; five colours each cannot be told from fewer


def cut(pixels: ByteArray, trimap: ByteArray, *, rounds: int) -> BoolArray:
    """The foreground that GrabCut finds, the same on every call.

    OpenCV draws the first colour clusters at random. Its generator is one per thread, so a thread
    of our own with a fixed seed makes the answer repeatable and leaves the caller's generator alone.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        trimap: uint8 ``(H, W)`` of the four values above; not changed.
        rounds: Rounds of fitting colours and cutting.

    Returns:
        bool ``(H, W)``. Where there are too few pixels on either side, the guess of the trimap.
    """
    guess = (trimap == SURE_FOREGROUND) | (trimap == MAYBE_FOREGROUND)
    if min(guess.sum(), (~guess).sum()) < _FEWEST:
        return guess
    with ThreadPoolExecutor(1) as private:
        labels = private.submit(_cut, pixels, trimap.copy(), rounds).result()
    return (labels == SURE_FOREGROUND) | (labels == MAYBE_FOREGROUND)


def _cut(pixels: ByteArray, labels: ByteArray, rounds: int) -> ByteArray:
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    cv2.grabCut(bgr, labels, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    return labels


def cut_box(pixels: ByteArray, inside: BoolArray) -> BoolArray:
    """The foreground by colour alone: nothing outside the box is, anything inside may be.

    Args:
        pixels: uint8 ``(H, W, 3)``, the box with some surroundings.
        inside: bool ``(H, W)``, the box.

    Returns:
        bool ``(H, W)``, inside the box and tidied; all of the box where its surroundings are missing.
    """
    trimap = np.where(inside, MAYBE_FOREGROUND, SURE_BACKGROUND).astype(np.uint8)
    return tidy(cut(pixels, trimap, rounds=5)) & inside


def tidy(mask: BoolArray, *, smallest_part: float = 0.08, largest_hole: float = 0.02) -> BoolArray:
    """Drop specks and fill pinholes.

    Args:
        mask: bool ``(H, W)``.
        smallest_part: Connected parts below this share of the largest one are dropped.
        largest_hole: Holes below this share of the mask are filled.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= smallest_part * areas[1:].max()
    kept[0] = False
    mask = kept[labels]
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8))
    small = stats[:, cv2.CC_STAT_AREA] < largest_hole * mask.sum()
    small[0] = False
    return mask | small[labels]

"""What all promptable segmenters share: boxes in, masks at the size of the photo out, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rasa.arrays import BoolArray, FloatArray, read_only
from rasa.errors import ContractError, DependencyError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.types import Image

# Bytes of dense masks that one call may return: one byte a pixel, so 8,000 masks of a megapixel.
MAX_MASK_BYTES = 8_000_000_000
# Bytes of float32 logits that are at photo size at one time.
_WORK_BYTES = 64_000_000

_REMEDY = "keep fewer boxes (max_instances, a higher box_threshold), pass fewer images at once, or shrink them"


@dataclass(frozen=True, slots=True)
class Frame:
    """How a model saw an image that was resized with its proportions and padded at the right and bottom.

    Attributes:
        resized: ``(height, width)`` of the image inside the frame, in pixels.
        side: Height and width of the padded square, in pixels.
    """

    resized: tuple[int, int]
    side: int

    @classmethod
    def around(cls, size: tuple[int, int], side: int) -> Frame:
        """The frame of an image of ``size`` ``(height, width)`` whose longer side becomes ``side``.

        Source:
            ``ResizeLongestSide.get_preprocess_shape`` of segment-anything 1.0; a side never falls below one pixel.
        """
        scale = side / max(size)
        height, width = (max(1, int(length * scale + 0.5)) for length in size)
        return cls((height, width), side)


def check_boxes(images: Sequence[Image], boxes: Sequence[FloatArray]) -> list[FloatArray]:
    """Check the boxes of every image, and cut them to it.

    Args:
        images: B images.
        boxes: B arrays ``(N, 4)``, xyxy in pixels; N may be 0 and differs by image.

    Returns:
        B float32 ``(N, 4)``; a box wholly outside is empty, at the border.

    Raises:
        InputError: If there are not as many arrays as images, or one is not ``(N, 4)``, not finite, or reversed;
            it names the image and the row.
    """
    if len(images) != len(boxes):
        raise InputError(f"{len(images)} images need as many arrays of boxes, got {len(boxes)}")
    return [_checked(image, rows) for image, rows in zip(images, boxes, strict=True)]


def _checked(image: Image, boxes: FloatArray) -> FloatArray:
    name = f"boxes of {image.name!r}"
    boxes = read_only(name, boxes, dtype=np.float32, shape=(None, 4), hint="pass one xyxy row per box")
    broken = ~np.isfinite(boxes).all(axis=1)
    if broken.any():
        row = int(broken.argmax())
        raise InputError(f"{name}: row {row} is {_row(boxes, row)}; every number must be finite, in pixels")
    reversed_rows = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if reversed_rows.any():
        row = int(reversed_rows.argmax())
        raise InputError(f"{name}: row {row} is {_row(boxes, row)}, which is reversed; pass x1 <= x2 and y1 <= y2")
    return clip_boxes(boxes, image.size)


def _row(boxes: FloatArray, row: int) -> str:
    return "(" + ", ".join(f"{value:g}" for value in boxes[row].tolist()) + ")"


def check_mask_room(images: Sequence[Image], boxes: Sequence[FloatArray], *, limit: int = MAX_MASK_BYTES) -> None:
    """Refuse a call whose masks would not fit, before anything is computed.

    Args:
        images: B images.
        boxes: B arrays of N boxes each.
        limit: Bytes of dense masks that the call may return.

    Raises:
        InputError: If all masks together need more than ``limit`` bytes; it says which image needs most.
    """
    needs = [len(rows) * image.size[0] * image.size[1] for image, rows in zip(images, boxes, strict=True)]
    if sum(needs) > limit:
        most = int(np.argmax(needs))
        name, (height, width) = images[most].name, images[most].size
        raise InputError(
            f"masks of this call would take {sum(needs) / 1e9:.1f} GB, more than the {limit / 1e9:.1f} GB allowed: "
            f"{name!r} alone has {len(boxes[most])} boxes at {height} x {width} pixels; {_REMEDY}"
        )


def scale_boxes(boxes: FloatArray, size: tuple[int, int], new_size: tuple[int, int]) -> FloatArray:
    """Boxes of an image of ``size`` ``(height, width)`` where it has ``new_size``, float32 ``(N, 4)``."""
    down, across = new_size[0] / size[0], new_size[1] / size[1]
    # In float64, as segment-anything does it.
    scaled: FloatArray = (boxes.astype(np.float64) * [across, down, across, down]).astype(np.float32)
    return scaled


def best_masks(logits: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """Of the masks that a model offers for each box, the one it rates best; the first of equals.

    Args:
        logits: ``(N, M, h, w)``.
        quality: ``(N, M)``, the predicted intersection over union.

    Returns:
        Logits ``(N, h, w)`` and their quality ``(N,)``.
    """
    best = quality.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    return logits[rows, best], quality[rows, best]


def mask_scores(quality: Tensor, *, name: str) -> FloatArray:
    """Predicted qualities ``(N,)`` as scores: float32 in [0, 1].

    Args:
        quality: ``(N,)``; a model may predict slightly more than 1.
        name: Of the image, for the error.

    Raises:
        ContractError: If one is no number, as float16 may overflow.
    """
    scores: FloatArray = quality.float().cpu().numpy()
    if not np.isfinite(scores).all():
        cure = "use bfloat16 or float32 if it runs in float16, else check its weights"
        raise ContractError(f"the model gave a mask score that is no number on {name!r}; {cure}")
    clipped: FloatArray = scores.clip(0, 1)
    return clipped


def write_masks(masks: BoolArray, logits: Tensor, *, frame: Frame | None = None) -> None:
    """Upscale mask logits to the size of ``masks`` and write where they are above 0, a few masks at a time.

    Args:
        masks: bool ``(N, H, W)`` at photo size, written in place.
        logits: ``(N, h, w)``, any device and floating-point type; half types are upscaled in float32.
        frame: Where the photo lies in what the model saw: bilinear to the frame, cut, then bilinear to the photo.
            None: the logits show the photo alone, and are upscaled at once.

    Source:
        ``Sam.postprocess_masks`` of segment-anything 1.0; without a frame, ``SAM2Transforms`` of sam2 1.1.
    """
    height, width = masks.shape[1:]
    work = 4 * (height * width + (0 if frame is None else frame.side**2))
    step = max(1, _WORK_BYTES // work)
    for start in range(0, len(masks), step):
        part = logits[start : start + step, None]
        part = part.to(torch.promote_types(part.dtype, torch.float32))
        if frame is not None:
            part = _resize(part, (frame.side, frame.side))[..., : frame.resized[0], : frame.resized[1]]
        masks[start : start + step] = (_resize(part, (height, width))[:, 0] > 0).cpu().numpy()


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def check_cleaning(min_area: int) -> None:
    """Check that :func:`clean_masks` can run with ``min_area``.

    Raises:
        InputError: If it is negative.
        DependencyError: If it is above 0 and SciPy is not installed.
    """
    if not min_area >= 0:
        raise InputError(f"min_region must be an area in pixels, at least 0, got {min_area!r}")
    if min_area and find_spec("scipy") is None:
        raise DependencyError('cleaning masks (min_region) needs the package "scipy"; install the extra "sam"')


def clean_masks(masks: BoolArray, min_area: int) -> None:
    """Fill the holes of each mask that are smaller than an area, then drop its islands that are; in place.

    Pixels that touch at a corner belong together. The largest island always stays.

    Args:
        masks: bool ``(N, H, W)``.
        min_area: In pixels; 0 changes nothing.

    Source:
        ``remove_small_regions`` of segment-anything 1.0, in the order of its mask generator.
    """
    if min_area == 0:
        return
    # SciPy is needed for this option alone.
    from scipy import ndimage  # noqa: PLC0415

    for mask in masks:
        if mask.any():
            mask |= _small_regions(ndimage, ~mask, min_area)  # noqa: PLW2901  (in place)
            mask &= ~_small_regions(ndimage, mask, min_area, spare_largest=True)  # noqa: PLW2901  (in place)


def _small_regions(ndimage: Any, mask: BoolArray, min_area: int, *, spare_largest: bool = False) -> BoolArray:
    """Pixels of the connected regions of a mask that are smaller than ``min_area``."""
    regions, count = ndimage.label(mask, np.ones((3, 3), np.bool_))
    areas = np.bincount(regions.ravel(), minlength=count + 1)
    small = areas < min_area
    small[0] = False  # what is no region
    if spare_largest and count:
        small[1 + areas[1:].argmax()] = False
    chosen: BoolArray = small[regions]
    return chosen

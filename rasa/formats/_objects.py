"""Objects as a reader finds them, one by one, put together to the instances of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rasa.arrays import BoolArray
from rasa.errors import FormatError
from rasa.formats.samples import WriteReport
from rasa.io._decode import MAX_PIXELS
from rasa.ops.masks import mask_areas, masks_to_boxes
from rasa.types import Instances, Result, Tags

MAX_MASK_BYTES = 2**34
"""Largest stack of masks that is made for one image, in bytes of one pixel: the guard against made-up sizes."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class ReadObject:
    """One object of a file.

    Attributes:
        label: Its class.
        box: xyxy in pixels; None stands for the extent of the mask.
        paint: Sets the pixels of its mask in a bool ``(H, W)`` of the image's size that is all False; None where the
            file has no mask for it. Called after all sizes are checked.
        score: In [0, 1]; 1 where a person drew the object or the format has no scores.
        mask_score: In [0, 1]; None where there is none.
    """

    label: str
    box: Box | None = None
    paint: Callable[[BoolArray], None] | None = None
    score: float = 1.0
    mask_score: float | None = None


def instances_of(objects: Sequence[ReadObject], size: tuple[int, int]) -> Instances:
    """The objects as parallel arrays; one without a mask has an empty one where others have masks.

    Raises:
        FormatError: If the masks together are too large.
        InputError: If a score or a box is none.
    """
    masks = _stack(objects, size)
    extents = np.zeros((len(objects), 4), np.float32) if masks is None else masks_to_boxes(masks)
    boxes = [extent if found.box is None else found.box for found, extent in zip(objects, extents, strict=True)]
    mask_scores = [found.mask_score for found in objects]
    known = masks is not None and None not in mask_scores
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([found.score for found in objects], np.float32),
        labels=tuple(found.label for found in objects),
        masks=masks,
        mask_scores=np.array(mask_scores, np.float32) if known else None,
    )


def checked_size(height: object, width: object, *, where: str) -> tuple[int, int]:
    """``(height, width)`` in pixels, as a file of untrusted origin states them.

    Raises:
        FormatError: If they are no whole numbers of at least 1, or their product is too large.
    """
    try:
        size = int(str(height)), int(str(width))
    except ValueError:
        size = 0, 0
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        stated = f"{str(height)[:20]} x {str(width)[:20]}"
        raise FormatError(f"{where}: the image is stated to have {stated} pixels (height x width)")
    return size


def check_mask_bytes(count: int, size: tuple[int, int]) -> None:
    """Check that the masks of one image are not too many to be real, before they are made.

    Raises:
        FormatError: If they would take more than :data:`MAX_MASK_BYTES`.
    """
    height, width = size
    if count * height * width > MAX_MASK_BYTES:
        raise FormatError(f"{count} masks of {height} x {width} pixels take more than {MAX_MASK_BYTES} bytes")


def lose_scores(result: Result, report: WriteReport) -> None:
    """Note that a format has no place for scores of objects."""
    found = result.instances
    report.lose("scores of objects", len(found))
    lose_mask_scores(result, report)


def lose_mask_scores(result: Result, report: WriteReport) -> None:
    """Note that a format has no place for the segmenter's scores."""
    found = result.instances
    report.lose("scores of masks", 0 if found.mask_scores is None else len(found))


def lose_tags(tags: Tags, report: WriteReport, *, keeps: Sequence[str] = ()) -> None:
    """Note what a format cannot hold of tags; ``keeps`` are of names, scores, kinds."""
    if "names" not in keeps:
        report.lose("tags of images", len(tags))
        return
    report.lose("scores of tags", 0 if "scores" in keeps else len(tags))
    report.lose("kinds of tags", 0 if "kinds" in keeps else sum(map(bool, tags.kinds or ())))


def lose_boxes_of_masks(found: Instances, report: WriteReport) -> None:
    """Note the boxes that a format cannot hold because it has masks: those that are not the extent of their mask."""
    if found.masks is None:
        return
    filled = mask_areas(found.masks) > 0
    differ = (masks_to_boxes(found.masks) != found.boxes).any(axis=1)
    report.lose("boxes that are not the extent of their mask", int((filled & differ).sum()))
    report.lose("masks without a pixel", int((~filled).sum()))


def _stack(objects: Sequence[ReadObject], size: tuple[int, int]) -> BoolArray | None:
    if all(found.paint is None for found in objects):
        return None
    height, width = size
    check_mask_bytes(len(objects), size)
    masks = np.zeros((len(objects), height, width), np.bool_)
    for mask, found in zip(masks, objects, strict=True):
        if found.paint is not None:
            found.paint(mask)
    return masks

"""Masks from boxes: DINOv2 patches say what belongs together, GrabCut finds the edge.

For each box: a crop with some surroundings goes through DINOv2; a classifier trained on that crop
alone (``_patches``) tells the object's patches from the rest; GrabCut then decides the pixels of a
band along the border. Masks are made one box at a time and then settled where they overlap.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from rasa.adapters.lite import grabcut
from rasa.adapters.lite._dinov2_network import DinoV2Focus
from rasa.adapters.lite._patches import patch_logits, sigmoid
from rasa.adapters.lite.dinov2 import (
    PHOTO_SIDE,
    Features,
    crop_features,
    grid_size,
    load_dinov2,
    photo_features,
    resize,
)
from rasa.arrays import BoolArray, ByteArray, FloatArray, read_only
from rasa.errors import InputError, RasaWarning, WeightsError
from rasa.ops.boxes import box_areas, box_coverage, box_iou, clip_boxes
from rasa.types import Image, Masks
from rasa.weights import checkpoints, fetch

CHECKPOINT = "dinov2-vits14.focus"

# Chosen on 19 objects with reference masks; see benchmarks/lite_masks.py.
_SURROUNDINGS = 0.3  # of the box, on each side
_SPILL = 0.02  # of the box's longer side: how far a mask may leave a box that is too small
_WORK_SIDE = 480  # px: longest side of the crop that GrabCut sees
_BAND = 1.5  # patches: width of the band along the border in which GrabCut decides
_BIAS = 1.0  # a logit below this is background: patches on the border lean to the object
_SURE_FOREGROUND, _SURE_BACKGROUND = 2.0, -3.0  # logits, after the bias
_ROUNDS = 2
_WELL_FILLED, _BETTER_FILLED = 0.8, 0.08  # share of the box: when to try a second time, and what to gain by it

# How finely DINOv2 looks at a box; together they bound the time for a photo.
_PATCHES_PER_PHOTO = 2400
_LONGEST_SIDE, _SHORTEST_SIDE, _SMALLEST_SIDE = 518, 280, 168  # px
_LARGEST_ZOOM = 1.5  # of a small box; twice the patches beyond that find nothing new
_MOST_CROPS = 24
_FEW_BOXES = 6
_ENOUGH_PATCHES = 12  # along a box in the pass over the whole photo

_SMALLEST_BOX = 3  # px: thinner ones are filled
_FALLBACK_SURROUNDINGS, _FALLBACK_SIDE = 0.25, 400

# Overlaps.
_SAME_BOX = 0.8  # intersection over union: two names for one object, not two objects
_IN_FRONT = 0.6  # share of the smaller box inside the larger one, and largest ratio of their areas
_DEEP = 0.25  # share of a box inside the other one, from which on one of them hides the other
_LOWER = 0.1  # of the lower height: what stands lower in a photo stands nearer


@dataclass(frozen=True, slots=True, eq=False)
class _Crop:
    """A box with its surroundings. ``window`` is xyxy in whole pixels of the photo, ``box`` in its own."""

    window: tuple[int, int, int, int]
    box: FloatArray

    @property
    def size(self) -> tuple[int, int]:
        x1, y1, x2, y2 = self.window
        return y2 - y1, x2 - x1

    def cut(self, pixels: ByteArray) -> ByteArray:
        x1, y1, x2, y2 = self.window
        return pixels[y1:y2, x1:x2]

    def shrunk(self, longest: int) -> tuple[int, int]:
        """The size of the crop after shrinking it to ``longest``; it never grows."""
        scale = min(1.0, longest / max(self.size))
        return max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))

    def scaled_to(self, size: tuple[int, int]) -> FloatArray:
        """The box where the crop has ``size`` ``(height, width)``."""
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        return (self.box * np.array([across, down, across, down])).astype(np.float32)


class LiteSegmenter:
    """Gives boxes masks with DINOv2 and GrabCut; without a network, with GrabCut alone.

    Overlapping masks are settled by their boxes: a box that lies mostly inside one at least 1.7 times
    as large is taken to be in front and keeps its pixels. Of two boxes of like size that overlap by a
    quarter or more, the one that reaches clearly lower in the photo is in front. Else each keeps the
    pixels that lie nearer to its own centre, in units of its own width and height. Nearly equal boxes
    (intersection over union above 0.8) are taken to be one object, and both keep all.

    A score is how much surer the patches inside the mask are than those in the rest of the box, in
    [0, 1]; without a network there are none.
    """

    def __init__(self, network: DinoV2Focus | None) -> None:
        self._network = network

    def segment(self, images: Sequence[Image], boxes: Sequence[FloatArray]) -> list[Masks]:
        """One mask per box; see :class:`rasa.protocols.Segmenter`.

        A box without area inside the image has an empty mask and a score of 0.

        Raises:
            InputError: If there are not as many arrays of boxes as images, or boxes are not finite ``(N, 4)``.
        """
        if len(images) != len(boxes):
            raise InputError(f"{len(images)} images need as many arrays of boxes, got {len(boxes)}")
        return [self._segment(image, _checked(image, rows)) for image, rows in zip(images, boxes, strict=True)]

    def describe(self) -> Mapping[str, Any]:
        """Name, checkpoint and method."""
        if self._network is None:
            return {"model": "lite-segmenter", "method": "grabcut", "checkpoint": None}
        return {
            "model": "lite-segmenter",
            "method": "dinov2+grabcut",
            "checkpoint": CHECKPOINT,
            "sha256": checkpoints()[CHECKPOINT].sha256,
            "dtype": str(self._network.cls_token.dtype).removeprefix("torch."),
        }

    def _segment(self, image: Image, boxes: FloatArray) -> Masks:
        masks = np.zeros((len(boxes), *image.size), np.bool_)
        scores = np.zeros(len(boxes), np.float32)
        sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        for i in np.flatnonzero((sides > 0) & (sides < _SMALLEST_BOX)):
            _write(masks[i], _crop(image, boxes[i], 0.0), np.ones((1, 1), np.bool_))
            scores[i] = 0.5
        wanted = np.flatnonzero(sides >= _SMALLEST_BOX)
        if self._network is None:
            for i in wanted:
                _write(masks[i], *_mask_by_colour(image, boxes[i]))
        else:
            for i, side in zip(wanted, _plan(boxes[wanted], image.size), strict=True):
                crop, mask, scores[i] = _mask_by_patches(self._network, image, boxes[i], side)
                _write(masks[i], crop, mask)
        _settle_overlaps(masks, boxes)
        return Masks(masks, None if self._network is None else scores)


def build_segmenter(*, device: str = "cpu", dtype: str = "float32") -> LiteSegmenter:
    """The segmenter of the lite preset; fetches its checkpoint on first use.

    Without the checkpoint masks come from GrabCut alone, with a :class:`rasa.errors.RasaWarning`.

    Args:
        device: As torch names it.
        dtype: Name of a torch floating-point type.

    Raises:
        FormatError: If the checkpoint holds something else.
        InputError: If ``dtype`` names no floating-point type.
    """
    try:
        path = fetch(CHECKPOINT)
    except WeightsError as error:
        text = f"masks come from GrabCut alone, which is less exact, for want of {CHECKPOINT}: {error}"
        warnings.warn(text, RasaWarning, stacklevel=2)
        return LiteSegmenter(None)
    return LiteSegmenter(load_dinov2(path, device=device, dtype=dtype))


def _checked(image: Image, boxes: FloatArray) -> FloatArray:
    hint = "pass one xyxy row per box"
    boxes = read_only(f"boxes of {image.name!r}", boxes, dtype=np.float32, shape=(None, 4), hint=hint)
    if not np.isfinite(boxes).all():
        raise InputError(f"boxes of {image.name!r} must be finite numbers of pixels, got NaN or infinity")
    return clip_boxes(boxes, image.size)


def _plan(boxes: FloatArray, size: tuple[int, int]) -> list[int | None]:
    """Longest side in pixels at which DINOv2 sees each box's crop; None: in the pass over the whole photo.

    The more boxes, the coarser; a small box needs few patches; and of many boxes, those that are large
    enough in the shared pass make do with it, as do all but the first :data:`_MOST_CROPS`.
    """
    lengths = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, initial=0)
    shared = np.full(len(boxes), len(boxes) > _FEW_BOXES) & (lengths * PHOTO_SIDE / max(size) / 14 >= _ENOUGH_PATCHES)
    crops = np.flatnonzero(~shared)
    shared[crops[_MOST_CROPS:]] = True
    share = 14 * np.sqrt(_PATCHES_PER_PHOTO / max(1, (~shared).sum()))
    longest = np.clip(share, _SHORTEST_SIDE, _LONGEST_SIDE)
    sides = np.clip(_LARGEST_ZOOM * (1 + 2 * _SURROUNDINGS) * lengths, _SMALLEST_SIDE, longest)
    return [None if whole else int(side) for whole, side in zip(shared, sides, strict=True)]


def _mask_by_patches(
    network: DinoV2Focus, image: Image, box: FloatArray, side: int | None
) -> tuple[_Crop, BoolArray, float]:
    crop = _crop(image, box, _SURROUNDINGS)
    if side is None:
        crop, features = _shared_features(network, image, crop)
    else:
        size = grid_size(crop.size, side=side, patch_size=network.config.patch_size)
        features = crop_features(network, [resize(crop.cut(image.pixels), size)])[0]
    mask, logits = _mask_from_features(image, crop, features, generous=False)
    filled = _filled(mask, crop)
    if filled < _WELL_FILLED:
        second, other = _mask_from_features(image, crop, features, generous=True)
        if _filled(second, crop) > filled + _BETTER_FILLED:
            mask, logits = second, other
    return crop, mask, _score(logits, mask, _inside(crop.scaled_to(mask.shape), mask.shape, spill=0.0))


def _mask_from_features(
    image: Image, crop: _Crop, features: Features, *, generous: bool
) -> tuple[BoolArray, FloatArray]:
    """The mask of a crop and the logits it came from, both at the size that GrabCut sees."""
    grid = features.tokens.shape[:2]
    logits = patch_logits(features, crop.scaled_to(grid), generous=generous) - _BIAS
    size = crop.shrunk(_WORK_SIDE)
    logits = cv2.resize(logits, size[::-1], interpolation=cv2.INTER_CUBIC)
    pixels = resize(crop.cut(image.pixels), size)
    inside = _inside(crop.scaled_to(size), size, spill=_SPILL)
    return _refine(pixels, logits, inside, patch=max(size) / max(grid)), logits


def _filled(mask: BoolArray, crop: _Crop) -> float:
    """Share of the box that the tightest box around the mask covers: near 1 for the object that was meant."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0
    tight = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    return float(box_coverage(crop.scaled_to(mask.shape)[None], tight)[0, 0])


def _shared_features(network: DinoV2Focus, image: Image, crop: _Crop) -> tuple[_Crop, Features]:
    """The part of the whole photo's features around a crop, and the crop moved to whole patches."""
    features = photo_features(network, image)
    rows, columns = features.tokens.shape[:2]
    down, across = image.size[0] / rows, image.size[1] / columns
    x1, y1, x2, y2 = crop.window
    left, top = int(x1 / across), int(y1 / down)
    right, bottom = min(columns, int(np.ceil(x2 / across))), min(rows, int(np.ceil(y2 / down)))
    window = round(left * across), round(top * down), round(right * across), round(bottom * down)
    box = crop.box + np.array([x1 - window[0], y1 - window[1]] * 2, np.float32)
    fine = features.importance.shape[0] // rows
    importance = features.importance[top * fine : bottom * fine, left * fine : right * fine]
    return _Crop(window, box), Features(features.tokens[top:bottom, left:right], importance)


def _mask_by_colour(image: Image, box: FloatArray) -> tuple[_Crop, BoolArray]:
    crop = _crop(image, box, _FALLBACK_SURROUNDINGS)
    size = crop.shrunk(_FALLBACK_SIDE)
    return crop, grabcut.cut_box(resize(crop.cut(image.pixels), size), _inside(crop.scaled_to(size), size, spill=0.0))


def _crop(image: Image, box: FloatArray, surroundings: float) -> _Crop:
    """The box grown by a share of its sides, in whole pixels, inside the image."""
    grown = np.concatenate([box[:2] - surroundings * (box[2:] - box[:2]), box[2:] + surroundings * (box[2:] - box[:2])])
    x1, y1, x2, y2 = clip_boxes(grown[None], image.size)[0]
    window = int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2))
    return _Crop(window, box - np.array([window[0], window[1]] * 2, np.float32))


def _inside(box: FloatArray, size: tuple[int, int], *, spill: float) -> BoolArray:
    """The box grown by a share of its longer side, as bool ``(height, width)``."""
    margin = spill * float((box[2:] - box[:2]).max())
    inside = np.zeros(size, np.bool_)
    x1, y1 = np.floor(np.maximum(box[:2] - margin, 0)).astype(int)
    x2, y2 = np.ceil(box[2:] + margin).astype(int)
    inside[y1:y2, x1:x2] = True
    return inside


def _refine(pixels: ByteArray, logits: FloatArray, inside: BoolArray, *, patch: float) -> BoolArray:
    """The pixels of the object: GrabCut decides in a band along the border that the patches draw."""
    guess = (logits > 0) & inside
    width = max(3, int(patch * _BAND) | 1)
    band = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    core = cv2.erode(guess.astype(np.uint8), band) > 0
    reach = cv2.dilate(guess.astype(np.uint8), band) > 0
    trimap = np.where(guess, grabcut.MAYBE_FOREGROUND, grabcut.MAYBE_BACKGROUND).astype(np.uint8)
    trimap[core & (logits > _SURE_FOREGROUND)] = grabcut.SURE_FOREGROUND
    trimap[~inside | ~reach | (logits < _SURE_BACKGROUND)] = grabcut.SURE_BACKGROUND
    return grabcut.tidy(grabcut.cut(pixels, trimap, rounds=_ROUNDS)) & inside


def _score(logits: FloatArray, mask: BoolArray, inside: BoolArray) -> float:
    """How much surer the mask's pixels are than the rest of the box."""
    if not mask.any():
        return 0.0
    sure = sigmoid(logits)
    rest = inside & ~mask
    return float(np.clip(sure[mask].mean() - (sure[rest].mean() if rest.any() else 0), 0, 1))


def _write(out: BoolArray, crop: _Crop, mask: BoolArray) -> None:
    """Put a crop's mask, at whatever size, into the mask of its photo."""
    x1, y1, x2, y2 = crop.window
    if mask.shape != crop.size:
        mask = cv2.resize(mask.astype(np.float32), crop.size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    out[y1:y2, x1:x2] = mask


def _settle_overlaps(masks: BoolArray, boxes: FloatArray) -> None:
    """Give each pixel to one object, in place; see :class:`LiteSegmenter`."""
    ious, covered = box_iou(boxes, boxes), box_coverage(boxes, boxes)
    for i, j in zip(*np.nonzero(np.triu((ious > 0) & (ious <= _SAME_BOX), 1)), strict=True):
        margin = _SPILL * float((boxes[[i, j], 2:] - boxes[[i, j], :2]).max()) + 1
        x1, y1 = np.maximum(np.maximum(boxes[i, :2], boxes[j, :2]) - margin, 0).astype(int)
        x2, y2 = np.ceil(np.minimum(boxes[i, 2:], boxes[j, 2:]) + margin).astype(int)
        first, second = masks[i, y1:y2, x1:x2], masks[j, y1:y2, x1:x2]
        contested = first & second
        if not contested.any():
            continue
        front = _front(boxes[i], boxes[j], max(covered[i, j], covered[j, i]))
        if front is None:
            y, x = np.mgrid[y1 : y1 + first.shape[0], x1 : x1 + first.shape[1]] + 0.5
            to_first = _distance(x, y, boxes[i]) <= _distance(x, y, boxes[j])
        else:
            to_first = np.full(first.shape, front == 0)
        first &= ~contested | to_first
        second &= ~contested | ~to_first


def _front(first: FloatArray, second: FloatArray, covered: float) -> int | None:
    """Which of two overlapping boxes is in front, 0 or 1; None where they do not tell.

    Args:
        first: float32 ``(4,)``.
        second: float32 ``(4,)``.
        covered: Share of the smaller box inside the larger one, or more.
    """
    areas = box_areas(np.stack([first, second]))
    if covered > _IN_FRONT and areas.min() < _IN_FRONT * areas.max():
        return int(areas.argmin())
    lower = float(first[3] - second[3])
    if covered > _DEEP and abs(lower) > _LOWER * min(first[3] - first[1], second[3] - second[1]):
        return 0 if lower > 0 else 1
    return None


def _distance(x: FloatArray, y: FloatArray, box: FloatArray) -> FloatArray:
    """Squared distance to the centre of a box, in half widths and half heights."""
    across = (2 * x - box[0] - box[2]) / (box[2] - box[0])
    down = (2 * y - box[1] - box[3]) / (box[3] - box[1])
    return across**2 + down**2

"""What the classifiers and the detector see in a photo: one look, shared by tagger and detector."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from rasa.adapters.lite import efficientnet, ssd
from rasa.adapters.lite.efficientnet import STRIDE, EfficientNetLite, load_efficientnet
from rasa.adapters.lite.ssd import SSDMobileNetV2, load_ssd
from rasa.adapters.lite.vocabulary import Vocabulary, load_vocabulary
from rasa.arrays import ByteArray, FloatArray, IntArray
from rasa.errors import InputError, RasaWarning, WeightsError
from rasa.ops.boxes import box_areas, box_iou, clip_boxes
from rasa.types import Image
from rasa.weights import checkpoints, fetch

CLASSIFIERS = {"efficientnet-lite0.in1k": "lite0", "efficientnet-lite2.in1k": "lite2"}
DETECTOR = "ssd-mobilenet-v2.coco"

# Sliding windows of the classifiers: a window of the side they were trained on, over three sizes of the photo.
_WINDOW = 224  # px
_SHORT_SIDES = (224, 336, 448)  # px
_LONGEST = 2  # short sides: longer photos are squeezed
_STEP = 2  # cells of the class map

# Tiles of the detector: squares of this share of the longer side, beside the whole photo.
_TILE = 0.62
_SQUARISH = 1.6  # longer over shorter side; beyond it a tile is as high as the photo
_MIDDLE_TILE = 1.35  # sides over tile, from which on a tile in the middle is needed too
_MOST_WINDOWS = 16
_EDGE = 0.02  # of a tile: nearer to an inner edge, a box is taken to be cut by it
_SAME_LABEL_IOU, _ANY_LABEL_IOU = 0.5, 0.8
_MOST_BOXES = 100

# The second opinion of the classifiers on a box.
_MARGIN = 0.1  # of the box, on each side
_SMALLEST_SIDE, _SMALLEST_SHARE = 48, 0.01  # px, and of the photo: smaller crops fool the classifiers
_MOST_CROPS = 24

Item = TypeVar("Item")
Window = tuple[int, int, int, int]  # xyxy in whole pixels of the photo


@dataclass(frozen=True, slots=True, eq=False)
class ClassView:
    """What the classifiers say about a photo.

    Attributes:
        maps: Logits at each place, float32 ``(1000, h, w)`` for each size of the photo, coarse to fine;
            each covers the whole photo.
        scores: float32 ``(T,)`` in [0, 1]: how sure it is of each word in its best window.
    """

    maps: tuple[FloatArray, ...]
    scores: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Boxes of the detector, best first, each with a second opinion where it is large enough.

    Attributes:
        boxes: float32 ``(N, 4)``, xyxy in pixels.
        scores: float32 ``(N,)`` in [0, 1], the detector's.
        classes: int64 ``(N,)``, COCO's class numbers.
        opinions: For each box float32 ``(T,)``, how sure the classifiers are of each word on the crop; None if
            the crop is too small to tell.
    """

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray
    opinions: tuple[FloatArray | None, ...]


class Looker:
    """Runs the networks, once for each :class:`Image` object.

    Answers are kept as long as the image lives. Two threads that ask for the same image at the same time may
    both compute it; they get the same answer.

    Args:
        classifiers: One or more, in evaluation mode; their logits are averaged.
        detector: In evaluation mode; None leaves :meth:`propose` without boxes.
        vocabulary: The words that are scored.
    """

    def __init__(
        self,
        classifiers: Sequence[EfficientNetLite],
        detector: SSDMobileNetV2 | None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        if not classifiers:
            raise InputError("a Looker needs at least one classifier")
        self.vocabulary = vocabulary or load_vocabulary()
        self.has_detector = detector is not None
        self._classifiers = tuple(classifiers)
        self._detector = detector
        self._lock = threading.Lock()
        self._seen: WeakKeyDictionary[Image, dict[object, Any]] = WeakKeyDictionary()

    @property
    def classifier_count(self) -> int:
        """How many classifiers are averaged."""
        return len(self._classifiers)

    def classify(self, image: Image) -> ClassView:
        """What the classifiers see, over the whole photo and in its parts."""
        return self._once(image, "classes", lambda: self._classify(image.pixels))

    def propose(self, image: Image, *, floor: float) -> Proposals:
        """What the detector sees with a score of at least ``floor``, at most 100 boxes."""
        return self._once(image, ("proposals", floor), lambda: self._propose(image, floor))

    def _once(self, image: Image, key: object, compute: Callable[[], Item]) -> Item:
        with self._lock:
            known = self._seen.setdefault(image, {})
        if key not in known:
            known[key] = compute()
        item: Item = known[key]
        return item

    @torch.inference_mode()
    def _classify(self, pixels: ByteArray) -> ClassView:
        maps, scores = [], []
        for short_side in _SHORT_SIDES:
            resized = _resized(pixels, _map_size_wh(pixels.shape[:2], short_side), PIL.Image.Resampling.BICUBIC)
            maps.append(self._logits(efficientnet.to_input(resized), whole=False)[0])
            scores.append(self._window_scores(maps[-1]))
        return ClassView(tuple(m.numpy() for m in maps), np.max(scores, axis=0))

    def _window_scores(self, class_map: Tensor) -> FloatArray:
        side = _WINDOW // STRIDE
        # The mean of the logits under a window is what the classifier says about that crop.
        windows = F.avg_pool2d(class_map[None], side, stride=_STEP)[0].flatten(1)
        scores: FloatArray = self.vocabulary.rolled_up(windows.softmax(0).numpy()).max(1)
        return scores

    def _logits(self, x: Tensor, *, whole: bool) -> Tensor:
        parts = []
        for network in self._classifiers:
            parameter = network.get_parameter("_fc.weight")
            y = x.to(parameter.device, parameter.dtype).contiguous(memory_format=torch.channels_last)
            parts.append((network(y) if whole else network.class_map(y)).float().cpu())
        return torch.stack(parts).mean(0)

    def _propose(self, image: Image, floor: float) -> Proposals:
        boxes, scores, classes = self._detect(image, floor)
        kept = _suppress(boxes, scores, classes)
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
        large = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= _SMALLEST_SIDE
        large &= box_areas(boxes) >= _SMALLEST_SHARE * image.size[0] * image.size[1]
        opinions: list[FloatArray | None] = [None] * len(boxes)
        chosen = np.flatnonzero(large)[:_MOST_CROPS]
        for i, opinion in zip(chosen, self._opinions(image.pixels, boxes[chosen]), strict=True):
            opinions[i] = opinion
        return Proposals(boxes, scores, classes, tuple(opinions))

    @torch.inference_mode()
    def _detect(self, image: Image, floor: float) -> tuple[FloatArray, FloatArray, IntArray]:
        if self._detector is None:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        windows = _tiles(image.size)
        parameter = self._detector.stem.weight
        size_wh, method = (ssd.SIZE, ssd.SIZE), PIL.Image.Resampling.BILINEAR
        inputs = [ssd.to_input(_resized(image.pixels[y1:y2, x1:x2], size_wh, method)) for x1, y1, x2, y2 in windows]
        x = torch.cat(inputs).to(parameter.device, parameter.dtype).contiguous(memory_format=torch.channels_last)
        boxes_norm, scores = (answer.cpu().numpy() for answer in self._detector(x))
        usable = np.array(sorted(self.vocabulary.coco))
        found = [
            _in_window(boxes_norm[i], scores[i][:, usable], floor=floor, window=window, size=image.size)
            for i, window in enumerate(windows)
        ]
        boxes, best, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return boxes, best, usable[columns]

    @torch.inference_mode()
    def _opinions(self, pixels: ByteArray, boxes: FloatArray) -> list[FloatArray]:
        if not len(boxes):
            return []
        size_wh, method = (_WINDOW, _WINDOW), PIL.Image.Resampling.BICUBIC
        crops = [_resized(_crop(pixels, box), size_wh, method) for box in boxes]
        logits = self._logits(torch.cat([efficientnet.to_input(crop) for crop in crops]), whole=True)
        return list(self.vocabulary.rolled_up(logits.softmax(1).numpy().T).T)


@functools.lru_cache(maxsize=2)
def load_looker(*, device: str = "cpu", dtype: str = "float32") -> Looker:
    """The networks of the preset; the same arguments give the same object, so tagger and detector share it.

    Raises:
        WeightsError: If the first classifier cannot be had; the others are done without, with a warning.
        InputError: If ``dtype`` names no floating-point type.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise InputError(f'dtype must name a floating-point type of torch, such as "float32", got {dtype!r}')

    def ready(network: Any) -> Any:
        return network.to(device=device, dtype=kind, memory_format=torch.channels_last)

    first, second = CLASSIFIERS
    paths = {first: fetch(first), second: _fetch_or_warn(second, f"tags come from {first} alone and are less exact")}
    classifiers = [ready(load_efficientnet(path, CLASSIFIERS[name])) for name, path in paths.items() if path]
    path = _fetch_or_warn(DETECTOR, "boxes come from class maps alone, and people are not found")
    return Looker(classifiers, None if path is None else ready(load_ssd(path)))


def describe_looker(looker: Looker) -> dict[str, Any]:
    """The checkpoints in use, with their hashes: plain JSON values."""
    names = [*list(CLASSIFIERS)[: looker.classifier_count], *([DETECTOR] if looker.has_detector else [])]
    return {"checkpoints": {name: checkpoints()[name].sha256 for name in names}}


def _fetch_or_warn(name: str, consequence: str) -> Path | None:
    try:
        return fetch(name)
    except WeightsError as error:
        warnings.warn(f"lite: without {name}, {consequence} ({error})", RasaWarning, stacklevel=4)
        return None


def _resized(pixels: ByteArray, size_wh: tuple[int, int], method: PIL.Image.Resampling) -> ByteArray:
    return np.asarray(PIL.Image.fromarray(pixels).resize(size_wh, method))


def _map_size_wh(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Width and height for the classifiers: multiples of the stride, near the photo's own proportions."""
    scale = short_side / min(size)
    height, width = (
        min(max(round(length * scale / STRIDE) * STRIDE, short_side), _LONGEST * short_side) for length in size
    )
    return width, height


def _crop(pixels: ByteArray, box: FloatArray) -> ByteArray:
    margins = np.tile((box[2:] - box[:2]) * _MARGIN, 2) * [-1, -1, 1, 1]
    x1, y1, x2, y2 = clip_boxes((box + margins)[None].astype(np.float32), pixels.shape[:2])[0]
    return pixels[int(y1) : max(int(np.ceil(y2)), int(y1) + 1), int(x1) : max(int(np.ceil(x2)), int(x1) + 1)]


def _tiles(size: tuple[int, int]) -> list[Window]:
    """The whole photo, then overlapping squares; xyxy in pixels."""
    height, width = size
    short, long = min(size), max(size)
    tile = int(min(short, long * _TILE)) if long < _SQUARISH * short else short
    whole = (0, 0, width, height)
    if tile < ssd.SIZE // 4:  # enlarging so little shows nothing new
        return [whole]
    columns, rows = _starts(width, tile), _starts(height, tile)
    return [whole, *[(x, y, x + tile, y + tile) for x in columns for y in rows]][:_MOST_WINDOWS]


def _starts(length: int, tile: int) -> list[int]:
    middle = [(length - tile) // 2] if length > tile * _MIDDLE_TILE else []
    return sorted({0, length - tile, *middle})


def _in_window(
    boxes_norm: FloatArray, scores: FloatArray, *, floor: float, window: Window, size: tuple[int, int]
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes of one window above the floor in pixels of the photo, without those cut by an inner edge."""
    best = scores.max(1)
    # The best few hundred hold all that suppression leaves; of equal scores the earlier anchor comes first.
    order = np.argsort(-best, kind="stable")[: 2 * _MOST_BOXES]
    order = order[best[order] >= floor]
    x1, y1, x2, y2 = window
    side = np.array([x2 - x1, y2 - y1], np.float32)
    boxes = boxes_norm[order] * np.tile(side, 2) + np.array([x1, y1, x1, y1], np.float32)
    inner = np.array([x1 > 0, y1 > 0, x2 < size[1], y2 < size[0]])
    touches = np.abs(boxes - np.array(window, np.float32)) < np.tile(side * _EDGE, 2)
    kept = ~(touches & inner).any(1) & (box_areas(boxes) > 0)
    return clip_boxes(boxes[kept], size), best[order][kept], scores[order][kept].argmax(1)


def _suppress(boxes: FloatArray, scores: FloatArray, classes: IntArray) -> IntArray:
    """Best first: without boxes that repeat a better one, at most :data:`_MOST_BOXES`."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if len(kept) == _MOST_BOXES:
            break
        overlaps = box_iou(boxes[i][None], boxes[kept])[0]
        limits = np.where(classes[kept] == classes[i], _SAME_LABEL_IOU, _ANY_LABEL_IOU)
        if (overlaps <= limits).all():
            kept.append(int(i))
    return np.array(kept, np.int64)

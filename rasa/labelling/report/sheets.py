"""Thumbnails of annotated photos, small and few enough that a page stays a page."""

from __future__ import annotations

import io
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import PIL.Image

from rasa.arrays import BoolArray, FloatArray
from rasa.draw import annotate
from rasa.errors import RasaError, RasaWarning
from rasa.io.images import to_image
from rasa.labelling.report.picks import Pick
from rasa.types import Image, Instances, Result

if TYPE_CHECKING:
    from rasa.labelling.dataset import LabelledImage

THUMB_WH = (288, 216)  # pixels; shown at about half of it, so that sharp screens have enough
_GALLERY_WH = (640, 480)
_QUALITY = 74
_ROOM = 1.7  # how much larger than its object a crop is, so that one sees where it stands
_LEAST = 0.3  # share of the photo's side below which a crop is not zoomed in


class Thumb(NamedTuple):
    """A drawn sample.

    Attributes:
        jpeg: The picture; empty if the photo cannot be read any more.
        caption: Path of the image.
        score: Of the object, or of the image's tag.
        size_wh: Of the picture, in pixels.
    """

    jpeg: bytes
    caption: str
    score: float
    size_wh: tuple[int, int]


@dataclass(slots=True)
class Sheets:
    """Samples by tag and group, and whole photos, drawn as the images come by.

    Attributes:
        wanted: By row of the dataset, what to draw: tag, group, position in the group, pick.
        drawn: Thumbnails by tag, group and position; those of the gallery under the tag "".
        unreadable: Photos that are no longer where they were, or have changed.
    """

    wanted: Mapping[int, list[tuple[str, str, int, Pick]]]
    drawn: dict[tuple[str, str, int], Thumb] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    def draw(self, position: int, labelled: LabelledImage) -> None:
        """Draw what is wanted of the image at ``position`` in the dataset."""
        orders = self.wanted.get(position, [])
        image = _read(labelled) if orders else None
        for tag, group, place, pick in orders:
            jpeg, size_wh = b"", THUMB_WH
            if image is None:
                self.unreadable.add(labelled.path)
            elif tag:
                jpeg, size_wh = _jpeg(crop(image, labelled.result, pick.instance))
            else:
                jpeg, size_wh = _jpeg(whole(image, labelled.result), labels=True)
            self.drawn[tag, group, place] = Thumb(jpeg, labelled.path, pick.score, size_wh)

    def trim(self, limit: int, order: Iterable[str]) -> list[str]:
        """Drop whole sheets from the end of ``order`` until the pictures take ``limit`` bytes; return what stays."""
        sizes: dict[str, int] = defaultdict(int)
        for (tag, _, _), thumb in self.drawn.items():
            sizes[tag] += math.ceil(len(thumb.jpeg) / 3) * 4  # as base64
        kept, used = [], sizes.get("", 0)
        for tag in order:
            used += sizes.get(tag, 0)
            if used > limit:
                break
            kept.append(tag)
        return kept


def wanted_rows(picks: Mapping[str, Mapping[str, list[Pick]]]) -> dict[int, list[tuple[str, str, int, Pick]]]:
    """Picks by tag and group, sorted by the row of their image."""
    rows: dict[int, list[tuple[str, str, int, Pick]]] = defaultdict(list)
    for tag, groups in picks.items():
        for group, members in groups.items():
            for place, pick in enumerate(members):
                rows[pick.row].append((tag, group, place, pick))
    return rows


def crop(image: Image, result: Result, instance: int) -> tuple[Image, Result]:
    """The surroundings of one object, and nothing drawn but it; the whole photo for -1."""
    height, width = image.size
    if instance < 0:
        return _shrink(image, Instances(), (0, 0, width, height), THUMB_WH)
    found = result.instances.take([instance])
    return _shrink(image, found, _window(found.boxes[0], image.size), THUMB_WH)


def whole(image: Image, result: Result) -> tuple[Image, Result]:
    """The photo with all its objects."""
    return _shrink(image, result.instances, (0, 0, image.size[1], image.size[0]), _GALLERY_WH)


def _window(box: FloatArray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A window xyxy around ``box``, of the shape of a thumbnail where the photo has room for it."""
    (height, width), (x1, y1, x2, y2) = size, (float(v) for v in box)
    aspect = THUMB_WH[0] / THUMB_WH[1]
    wide = max((x2 - x1) * _ROOM, (y2 - y1) * _ROOM * aspect, _LEAST * min(width, height * aspect))
    wide_in, tall_in = min(width, math.ceil(wide)), min(height, math.ceil(wide / aspect))
    left = round(min(max((x1 + x2 - wide_in) / 2, 0), width - wide_in))
    top = round(min(max((y1 + y2 - tall_in) / 2, 0), height - tall_in))
    return left, top, left + wide_in, top + tall_in


def _shrink(
    image: Image, found: Instances, window: tuple[int, int, int, int], most_wh: tuple[int, int]
) -> tuple[Image, Result]:
    left, top, right, bottom = window
    part = image.pixels[top:bottom, left:right]
    scale = min(1.0, most_wh[0] / (right - left), most_wh[1] / (bottom - top))
    size_wh = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    picture = PIL.Image.fromarray(np.ascontiguousarray(part)).resize(size_wh, PIL.Image.Resampling.LANCZOS)
    boxes = (found.boxes - np.array([left, top, left, top], np.float32)) * np.float32(scale)
    limits = np.array([size_wh[0], size_wh[1]] * 2, np.float32)
    inside = Instances(np.clip(boxes, 0, limits), found.scores, found.labels, _masks(found, window, size_wh))
    small = Image(np.asarray(picture), name=image.name)
    return small, Result(name=image.name, size=small.size, instances=inside)


def _masks(found: Instances, window: tuple[int, int, int, int], size_wh: tuple[int, int]) -> BoolArray | None:
    if found.masks is None:
        return None
    left, top, right, bottom = window
    masks = np.zeros((len(found), size_wh[1], size_wh[0]), np.bool_)
    for i, mask in enumerate(found.masks):
        part = PIL.Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
        # Averages, so that thin objects do not vanish between the pixels that are kept.
        masks[i] = np.asarray(part.resize(size_wh, PIL.Image.Resampling.BOX)) > 100
    return masks


def _read(labelled: LabelledImage) -> Image | None:
    try:
        image = to_image(labelled.read_bytes(), name=labelled.path)
    except RasaError:
        return None
    return image if image.size == tuple(labelled.result.size) else None


def _jpeg(pair: tuple[Image, Result], *, labels: bool = False) -> tuple[bytes, tuple[int, int]]:
    image, result = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RasaWarning)  # about letters that no font here has: the captions have them
        drawn = annotate(image, result, labels=labels, legend=False, scores=labels)
    file = io.BytesIO()
    PIL.Image.fromarray(drawn.pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue(), (drawn.size[1], drawn.size[0])

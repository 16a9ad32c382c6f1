"""Paint onto pixels in place: masks, outlines, boxes, chips of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import supervision as sv

from rasa.arrays import BoolArray, ByteArray, FloatArray
from rasa.draw.colors import Color, text_color
from rasa.draw.text import line_height, text_alpha
from rasa.ops.label_maps import label_map
from rasa.types import Instances

_OPACITY = 0.42
_BAND = 256  # rows painted at a time, so that large pictures need no full-size copies


@dataclass(frozen=True, slots=True)
class Style:
    """Sizes in pixels that suit a picture.

    supervision's own rules give lines of 2 or 4 pixels whatever the picture, hairlines on 24 megapixels.

    Attributes:
        font: Font size.
        line: Width of box lines and outlines.
    """

    font: int
    line: int

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> Style:
        """Sizes in proportion to a picture of ``(height, width)``, readable from 11 pixels up."""
        side = float(np.sqrt(size[0] * size[1]))
        return cls(font=max(11, round(0.024 * side)), line=max(1 if side < 300 else 2, round(0.0038 * side)))

    @property
    def padding(self) -> int:
        """Space between the text of a chip and its sides."""
        return max(3, round(0.38 * self.font))

    @property
    def chip_height(self) -> int:
        """Height of a line of text in a chip."""
        return line_height(self.font) + max(2, round(0.16 * self.font))


def paint_masks(canvas: ByteArray, found: Instances, colors: Sequence[Color], line: int) -> None:
    """Tint each mask and outline it; smaller ones lie in front.

    The tints are those of ``sv.MaskAnnotator``, which takes six times as long on 24 megapixels.
    """
    if found.masks is None or len(found) == 0:
        return
    front = label_map(found.masks)
    tints = np.array([(0, 0, 0), *colors], np.uint8)
    for top in range(0, len(canvas), _BAND):
        index, band = front[top : top + _BAND], canvas[top : top + _BAND]
        tinted = cv2.addWeighted(tints[index], _OPACITY, band, 1 - _OPACITY, 0)
        cv2.copyTo(tinted, (index > 0).view(np.uint8), band)
    for i in np.argsort([-cv2.countNonZero(mask.view(np.uint8)) for mask in found.masks], kind="stable"):
        _outline(canvas, found.masks[i], colors[i], line)


def paint_boxes(canvas: ByteArray, boxes: FloatArray, colors: Sequence[Color], line: int) -> None:
    """Frame each box; one that reaches beyond the picture is drawn along its edge."""
    if len(boxes) == 0:
        return
    height, width = canvas.shape[:2]
    inside = np.clip(boxes.round(), 0, [width - 1, height - 1, width - 1, height - 1])
    detections = sv.Detections(xyxy=inside, class_id=np.arange(len(boxes)))
    sv.BoxAnnotator(_palette(colors), thickness=line, color_lookup=sv.ColorLookup.INDEX).annotate(canvas, detections)


def chip_width(text: str, style: Style) -> int:
    """Width in pixels of a chip that holds ``text``."""
    return int(text_alpha(text, style.font).shape[1]) + 2 * style.padding


def paint_chip(canvas: ByteArray, xy: tuple[int, int], *, text: str, color: Color, style: Style) -> None:
    """Paint ``text`` on a rounded plate of ``color``, black or white as it reads best."""
    alpha = text_alpha(text, style.font)
    height, width = style.chip_height, alpha.shape[1] + 2 * style.padding
    blend(canvas, xy, rounded(height, width, max(2, round(0.22 * height))), color)
    at = (xy[0] + style.padding, xy[1] + (height - alpha.shape[0]) // 2)
    blend(canvas, at, alpha, text_color(color))


def blend(canvas: ByteArray, xy: tuple[int, int], alpha: ByteArray, color: Color) -> None:
    """Lay ``color`` on ``canvas`` where ``alpha`` says, its top left corner at ``xy``."""
    x, y = xy
    area = canvas[max(0, y) : y + alpha.shape[0], max(0, x) : x + alpha.shape[1]]
    share = alpha[max(0, -y) :, max(0, -x) :][: area.shape[0], : area.shape[1], None].astype(np.uint32)
    area[:] = (area * (255 - share) + np.array(color, np.uint32) * share + 127) // 255


@lru_cache(maxsize=64)
def rounded(height: int, width: int, radius: int) -> ByteArray:
    """The coverage map of a rectangle with round corners."""
    radius = min(radius, height // 2, width // 2)
    # Distance of each pixel's centre from the rectangle that the corners' centres span.
    rows, columns = (
        np.maximum(0, np.abs(np.arange(length) + 0.5 - length / 2) - (length / 2 - radius))
        for length in (height, width)
    )
    distance = np.hypot(rows[:, None], columns[None, :])
    alpha: ByteArray = (np.clip(radius + 0.5 - distance, 0, 1) * 255).round().astype(np.uint8)
    return alpha


def _palette(colors: Sequence[Color]) -> sv.ColorPalette:
    # supervision paints arrays as OpenCV's BGR; ours are RGB, so red and blue change places.
    return sv.ColorPalette([sv.Color(r=blue, g=green, b=red) for red, green, blue in colors])


def _outline(canvas: ByteArray, mask: BoolArray, color: Color, line: int) -> None:
    # Not sv.PolygonAnnotator: it skips masks of fewer than three corners and its lines are jagged.
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return
    part = slice(max(0, y - line - 1), y + height + line + 1), slice(max(0, x - line - 1), x + width + line + 1)
    contours, _ = cv2.findContours(mask[part].view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    drawn = np.ascontiguousarray(canvas[part])
    # An anti-aliased line of one pixel is faint, and round a single pixel it vanishes.
    smoothness = cv2.LINE_AA if line > 1 else cv2.LINE_8
    cv2.polylines(drawn, contours, isClosed=True, color=color, thickness=line, lineType=smoothness)
    canvas[part] = drawn

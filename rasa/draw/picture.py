"""Whole pictures: the annotated photo, and it beside the original."""

from __future__ import annotations

import warnings

import numpy as np

from rasa.arrays import ByteArray
from rasa.draw.colors import tag_color
from rasa.draw.labels import Rect, place_labels
from rasa.draw.legend import BACKGROUND, legend_strip
from rasa.draw.overlay import Style, chip_width, paint_boxes, paint_chip, paint_masks
from rasa.draw.text import missing_letters, shorten
from rasa.errors import InputError, RasaWarning
from rasa.types import Image, Instances, Result

# More of a picture than this under labels, and they turn into numbers that the legend explains.
_LABELS_SHARE = 0.15
_ALWAYS_NAMED = 4
_LABEL_WIDTH = 16  # longest label, in font sizes


def annotate(  # noqa: PLR0913  (what to draw is a set of switches)
    image: Image,
    result: Result,
    *,
    masks: bool = True,
    boxes: bool = True,
    labels: bool = True,
    legend: bool = True,
    scores: bool = True,
) -> Image:
    """Draw ``result`` on a copy of ``image``.

    Lines and letters grow with the picture. Labels keep off one another; where there are too many
    for their picture, all become numbers, counted from 1 in the order of the instances, and the legend
    tells their names. The legend is a strip below the photo, which it never covers: the picture
    grows by its height, and by its width where the photo is too narrow for words.

    Args:
        image: The photo that ``result`` is about.
        result: What to draw; a failed one adds the reason to the legend.
        masks: Tint and outline the masks, smaller ones in front.
        boxes: Frame the boxes.
        labels: Write the label of each instance at its box.
        legend: Add the strip with the instances' labels and counts, and the tags of the image.
        scores: Write scores behind labels and tags, from 0.00 to 1.00.

    Returns:
        RGB, at least as large as ``image``, whose name it takes; the photo is at its top left.

    Raises:
        InputError: If ``result`` belongs to a picture of another size.

    Warns:
        RasaWarning: If no font here has a letter of a tag; its code point is drawn in its place.
    """
    canvas, numbered = _overlaid(image, result, masks=masks, boxes=boxes, labels=labels, scores=scores)
    if legend:
        canvas = _with_legend(canvas, result, image.size, numbered=numbered, scores=scores)
    return Image(canvas, name=image.name)


def side_by_side(  # noqa: PLR0913  (as annotate)
    image: Image,
    result: Result,
    *,
    masks: bool = True,
    boxes: bool = True,
    labels: bool = True,
    legend: bool = True,
    scores: bool = True,
) -> Image:
    """The photo at the left, annotated at the right; arguments and errors as of :func:`annotate`.

    Returns:
        RGB, twice as wide as ``image`` and a narrow gap.
    """
    canvas, numbered = _overlaid(image, result, masks=masks, boxes=boxes, labels=labels, scores=scores)
    gap = np.full((image.size[0], 2 * Style.for_size(image.size).line, 3), BACKGROUND, np.uint8)
    canvas = np.hstack([image.pixels, gap, canvas])
    if legend:
        canvas = _with_legend(canvas, result, image.size, numbered=numbered, scores=scores)
    return Image(canvas, name=image.name)


def _overlaid(
    image: Image, result: Result, *, masks: bool, boxes: bool, labels: bool, scores: bool
) -> tuple[ByteArray, bool]:
    _warn_of_missing_letters(result)
    canvas, style = image.pixels.copy(), Style.for_size(image.size)
    found = _instances_for(image, result)
    colors = [tag_color(label) for label in found.labels]
    if masks:
        paint_masks(canvas, found, colors, style.line)
    if boxes:
        paint_boxes(canvas, found.boxes, colors, style.line)
    if not labels or len(found) == 0:
        return canvas, False
    texts, places, numbered = _labels(found, image.size, style, scores=scores)
    for text, place, color in zip(texts, places, colors, strict=True):
        if place is not None:
            paint_chip(canvas, place[:2], text=text, color=color, style=style)
    return canvas, numbered


def _warn_of_missing_letters(result: Result) -> None:
    lacking = sorted(set().union(*map(missing_letters, {*result.instances.labels, *result.tags.names})))
    if lacking:
        codes = ", ".join(f"U+{ord(letter):04X}" for letter in lacking[:20])
        message = (
            f"no font here draws {codes} in the tags of {result.name!r}, so the code points are written instead; "
            "opencv-python 5 brings the letters of Chinese, Japanese and Korean"
        )
        warnings.warn(message, RasaWarning, stacklevel=4)


def _instances_for(image: Image, result: Result) -> Instances:
    if tuple(result.size) == image.size:
        return result.instances
    if not result.ok:
        return Instances()
    raise InputError(
        f"result {result.name!r} is about a picture of size {tuple(result.size)} (height, width), but image "
        f"{image.name!r} has {image.size}; pass the image that it was made from"
    )


def _labels(
    found: Instances, size: tuple[int, int], style: Style, *, scores: bool
) -> tuple[list[str], list[Rect | None], bool]:
    width = _LABEL_WIDTH * style.font
    names = {label: shorten(label, style.font, width) for label in dict.fromkeys(found.labels)}
    texts = [names[label] for label in found.labels]
    if scores:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, found.scores, strict=True)]
    places, share = _place(texts, found, size, style)
    if None not in places and (share <= _LABELS_SHARE or len(found) <= _ALWAYS_NAMED):
        return texts, places, False
    numbers = [str(i + 1) for i in range(len(found))]
    return numbers, _place(numbers, found, size, style)[0], True


def _place(texts: list[str], found: Instances, size: tuple[int, int], style: Style) -> tuple[list[Rect | None], float]:
    sizes_wh = [(chip_width(text, style), style.chip_height) for text in texts]
    frames = found.boxes + np.array([-1, -1, 1, 1]) * (style.line // 2)  # the outer edges of the lines
    places = place_labels(frames, sizes_wh, (size[1], size[0]), gap=max(1, style.line // 2))
    return places, sum(width * height for width, height in sizes_wh) / (size[0] * size[1])


def _with_legend(
    canvas: ByteArray, result: Result, size: tuple[int, int], *, numbered: bool, scores: bool
) -> ByteArray:
    style = Style.for_size(size)
    strip = legend_strip(result, width=canvas.shape[1], style=style, numbered=numbered, scores=scores)
    beside: tuple[int, ...] = (canvas.shape[0], strip.shape[1] - canvas.shape[1], 3)
    return np.vstack([np.hstack([canvas, np.full(beside, BACKGROUND, np.uint8)]), strip])

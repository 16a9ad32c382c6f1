"""The strip below a picture that says what its colours and numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasa.arrays import ByteArray
from rasa.draw.colors import Color, tag_color
from rasa.draw.overlay import Style, blend, chip_width, paint_chip, rounded
from rasa.draw.text import line_height, shorten, text_alpha
from rasa.types import Result

BACKGROUND: Color = (22, 24, 29)
_PLATE: Color = (44, 48, 56)
_TEXT: Color = (226, 229, 233)
_FAINT: Color = (139, 146, 156)
_FAULT: Color = (255, 120, 110)
_ROWS = 6  # of a group, after which the rest is counted
_NARROWEST = 15  # width of a strip, in font sizes


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to show in a legend.

    Attributes:
        text: What it says.
        color: Of its plate, or of its dot.
        solid: Whether the whole plate has the colour, as a label on the picture has.
    """

    text: str
    color: Color
    solid: bool = False


def legend_strip(result: Result, *, width: int, style: Style, numbered: bool, scores: bool) -> ByteArray:
    """Draw the legend of ``result``.

    Args:
        result: Whose objects and tags to list.
        width: Width of the picture in pixels; the strip is wider if no word would fit.
        style: Sizes of the picture's own labels.
        numbered: Whether the objects on the picture carry numbers in place of names.
        scores: Whether tags show their scores.

    Returns:
        uint8 ``(h, w, 3)``, w at least ``width``.
    """
    width = max(width, _NARROWEST * style.font)
    tags = [
        Entry(f"{name} {score:.2f}" if scores else name, tag_color(name))
        for name, score in zip(result.tags.names, result.tags.scores, strict=True)
    ]
    groups = {"objects": _objects(result.instances.labels, numbered), "tags": tags}
    groups = {heading: entries for heading, entries in groups.items() if entries}
    note = _note(result, empty=not groups)
    parts = [_note_lines(note, width, style)] if note else []
    indent = max((text_alpha(heading, style.font).shape[1] for heading in groups), default=0) + 2 * style.padding
    if indent > width // 4:
        indent = 0
    for heading, entries in groups.items():
        parts.append(_group(heading if indent else "", entries, width=width, indent=indent, style=style))
    edge = np.full((_margin(style) // 2, width, 3), BACKGROUND, np.uint8)
    return np.vstack([edge, *parts, edge])


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: ``1-3, 7``.

    Example:
        >>> ranges([1, 2, 3, 7, 9, 10])
        '1-3, 7, 9, 10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def flow(widths: Sequence[int], room: int, gap: int) -> list[tuple[int, int]]:
    """Set pieces side by side and begin a new row where one would not fit.

    Returns:
        ``(row, x)`` of each piece; x starts at 0, and a piece wider than ``room`` has a row to itself.
    """
    places, row, x = [], 0, 0
    for width in widths:
        if x and x + width > room:
            row, x = row + 1, 0
        places.append((row, x))
        x += width + gap
    return places


def _objects(labels: Sequence[str], numbered: bool) -> list[Entry]:
    entries = []
    for label in dict.fromkeys(labels):
        numbers = [i + 1 for i, other in enumerate(labels) if other == label]
        text = label if len(numbers) == 1 else f"{label} x{len(numbers)}"
        entries.append(Entry(f"{text}: {ranges(numbers)}" if numbered else text, tag_color(label), solid=True))
    return entries


def _note(result: Result, *, empty: bool) -> str:
    if result.failure is not None:
        return f"no result: {result.failure.stage} failed: {result.failure.message}"
    return "no objects and no tags found" if empty else ""


def _margin(style: Style) -> int:
    return max(4, round(0.6 * style.font))


def _group(heading: str, entries: Sequence[Entry], *, width: int, indent: int, style: Style) -> ByteArray:
    margin, gap = _margin(style), max(3, round(0.35 * style.font))
    room = width - indent - 2 * margin
    entries, places = _fit(entries, room, gap, style)
    pitch = style.chip_height + gap
    strip = np.full((pitch * (places[-1][0] + 1) + gap, width, 3), BACKGROUND, np.uint8)
    alpha = text_alpha(heading, style.font)
    blend(strip, (margin, gap + (style.chip_height - alpha.shape[0]) // 2), alpha, _FAINT)
    for entry, (row, x) in zip(entries, places, strict=True):
        _paint(strip, (margin + indent + x, gap + row * pitch), entry, style)
    return strip


def _fit(entries: Sequence[Entry], room: int, gap: int, style: Style) -> tuple[list[Entry], list[tuple[int, int]]]:
    kept = [Entry(shorten(e.text, style.font, room - _width("", e, style)), e.color, e.solid) for e in entries[:500]]
    widths = [_width(entry.text, entry, style) for entry in kept]
    count = len(kept)
    while True:
        hidden = len(entries) - count
        more = [Entry(f"+{hidden} more", _FAINT)] if hidden else []
        shown = [*kept[:count], *more]
        places = flow([*widths[:count], *(_width(entry.text, entry, style) for entry in more)], room, gap)
        if places[-1][0] < _ROWS or count == 0:
            return shown, places
        count = min(count - 1, sum(row < _ROWS for row, _ in places))


def _dot(style: Style) -> int:
    return max(5, round(0.55 * style.font))


def _width(text: str, entry: Entry, style: Style) -> int:
    return chip_width(text, style) + (0 if entry.solid else _dot(style) + style.padding)


def _paint(strip: ByteArray, xy: tuple[int, int], entry: Entry, style: Style) -> None:
    if entry.solid:
        paint_chip(strip, xy, text=entry.text, color=entry.color, style=style)
        return
    (x, y), height, dot = xy, style.chip_height, _dot(style)
    blend(strip, xy, rounded(height, _width(entry.text, entry, style), height // 2), _PLATE)
    blend(strip, (x + style.padding, y + (height - dot) // 2), rounded(dot, dot, dot // 2), entry.color)
    alpha = text_alpha(entry.text, style.font)
    blend(strip, (x + 2 * style.padding + dot, y + (height - alpha.shape[0]) // 2), alpha, _TEXT)


def _note_lines(note: str, width: int, style: Style) -> ByteArray:
    margin, pitch = _margin(style), line_height(style.font)
    room = width - 2 * margin
    words = [shorten(word, style.font, room) for word in note.split()[:60]]
    alphas = [text_alpha(word, style.font) for word in words]
    places = flow([alpha.shape[1] for alpha in alphas], room, text_alpha("n", style.font).shape[1] // 2)
    strip = np.full((pitch * (places[-1][0] + 1) + margin, width, 3), BACKGROUND, np.uint8)
    for alpha, (row, x) in zip(alphas, places, strict=True):
        blend(strip, (margin + x, margin // 2 + row * pitch), alpha, _FAULT if note.startswith("no result") else _FAINT)
    return strip

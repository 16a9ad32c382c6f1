"""Charts as inline SVG: no script, no inline style, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rasa.labelling.report.tally import Histogram
from rasa.labelling.report.text import number, percent, safe

_WIDTH, _HEIGHT = 420, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 30
_CELL = 24  # of the matrix
_FEWEST = 4  # bars of a chart, so that none is a block


def histogram(
    counted: Histogram, label: Callable[[float], str], *, what: str, ticks: Sequence[int], median: bool = False
) -> str:
    """Bars over intervals of equal width on the page.

    Args:
        counted: What to draw.
        label: Text of an edge.
        what: Says it all to who cannot see it.
        ticks: Positions of the edges that are labelled.
        median: Whether to mark it.
    """
    counts = counted.counts
    width = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    base, top = _HEIGHT - _BOTTOM, max(1, int(counts.max()))
    parts = _grid(top)
    for i, count in enumerate(counts):
        height = (base - _TOP) * int(count) / top
        ends = f"{label(float(counted.edges[i]))} – {label(float(counted.edges[i + 1]))}"
        if count:
            parts.append(
                f'<rect class="bar" x="{_LEFT + i * width + 0.75:.1f}" y="{base - max(height, 1):.1f}" '
                f'width="{width - 1.5:.1f}" height="{max(height, 1):.1f}" rx="1.5">'
                f"<title>{safe(ends)}: {number(int(count))}</title></rect>"
            )
    for tick in ticks:
        anchor = "end" if tick == len(counts) else "middle"
        text = safe(label(float(counted.edges[tick])))
        parts.append(f'<text x="{_LEFT + tick * width:.1f}" y="{base + 18}" text-anchor="{anchor}">{text}</text>')
    if median and counted.count:
        x = _LEFT + width * (int(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) + 0.5)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{base}"/>')
    return _svg(parts, _WIDTH, _HEIGHT, what)


def bars(counted: Histogram, label: Callable[[float, float], str], *, what: str) -> str:
    """A named bar per interval, up to the last that is not empty.

    Args:
        counted: What to draw.
        label: Short text of an interval.
        what: Says it all to who cannot see it.
    """
    filled = np.flatnonzero(counted.counts)
    shown = max(_FEWEST, int(filled[-1]) + 1) if len(filled) else _FEWEST
    counts = counted.counts[:shown]
    width = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    base, top = _HEIGHT - _BOTTOM, max(1, int(counts.max()))
    parts = _grid(top)
    for i, count in enumerate(counts):
        title = safe(label(float(counted.edges[i]), float(counted.edges[i + 1])))
        height = max((base - _TOP) * int(count) / top, 1.0 if count else 0.0)
        parts.append(
            f'<rect class="bar" x="{_LEFT + i * width + 1.5:.1f}" y="{base - height:.1f}" width="{width - 3:.1f}" '
            f'height="{height:.1f}" rx="1.5"><title>{title}: {number(int(count))}</title></rect>'
            f'<text class="small" x="{_LEFT + (i + 0.5) * width:.1f}" y="{base + 17}" text-anchor="middle">'
            f"{title}</text>"
        )
    return _svg(parts, _WIDTH, _HEIGHT, what)


def interval(low: float, high: float) -> str:
    """Name of an interval of whole numbers.

    Example:
        >>> interval(3, 4), interval(6, 8), interval(51, float("inf"))
        ('3', '6–7', '51+')
    """
    if np.isinf(high):
        return f"{low:.0f}+"
    return f"{low:.0f}" if high - low == 1 else f"{low:.0f}–{high - 1:.0f}"


def below(low: float, high: float) -> str:
    """Name of an interval by its upper end.

    Example:
        >>> below(0.1, 0.25), below(48, float("inf"))
        ('<0.25', '48+')
    """
    return f"{low:g}+" if np.isinf(high) else f"<{high:g}"


def spark(counted: Histogram, *, what: str) -> str:
    """A histogram the size of a word."""
    top = max(1, int(counted.counts.max()))
    parts = [
        f'<rect class="bar" x="{i * 4}" y="{22 - 21 * int(count) / top - 1:.1f}" width="3" '
        f'height="{21 * int(count) / top + 1:.1f}"/>'
        for i, count in enumerate(counted.counts)
        if count
    ]
    floor = f'<rect class="floor" x="0" y="22" width="{4 * len(counted.counts) - 1}" height="1"/>'
    return _svg([floor, *parts], 4 * len(counted.counts), 24, what, kind="spark")


def meter(share: float, *, kind: str = "bar") -> str:
    """A horizontal bar for a share in [0, 1]."""
    parts = [
        '<rect class="track" width="100" height="8" rx="2"/>',
        f'<rect class="{kind}" width="{max(100 * share, 0.8):.1f}" height="8" rx="2"/>' if share > 0 else "",
    ]
    return _svg(parts, 100, 8, percent(share), kind="meter")


def stacked(shares: Sequence[float]) -> str:
    """One bar of coloured parts; shares add up to 1."""
    parts, x = [], 0.0
    for i, share in enumerate(shares):
        parts.append(f'<rect class="c{i % 6}" x="{x:.2f}" width="{max(1000 * share, 0):.2f}" height="20"/>')
        x += 1000 * share
    return (
        '<svg class="stacked" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">'
        + "".join(parts)
        + "</svg>"
    )


def key(place: int) -> str:
    """The colour of part ``place`` of a :func:`stacked` bar."""
    rect = f'<rect class="c{place % 6}" width="10" height="10" rx="2"/>'
    return f'<svg class="key" viewBox="0 0 10 10" aria-hidden="true">{rect}</svg>'


def dot(color: tuple[int, int, int]) -> str:
    """A tag's colour."""
    red, green, blue = color
    return (
        '<svg class="dot" viewBox="0 0 10 10" aria-hidden="true">'
        f'<circle cx="5" cy="5" r="5" fill="rgb({red},{green},{blue})"/></svg>'
    )


def matrix(names: Sequence[str], shares: Sequence[Sequence[float]], *, what: str) -> str:
    """Shares in [0, 1] as shaded cells, a row and a column per name."""
    short = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
    left = top = 8 + 7 * max((len(name) for name in short), default=0)
    parts = []
    for i, row in enumerate(shares):
        y = top + i * _CELL
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{safe(short[i])}</text>')
        turn = f"translate({left + i * _CELL + 16} {top - 8}) rotate(-60)"
        parts.append(f'<text transform="{turn}">{safe(short[i])}</text>')
        parts += [_cell(names, i, j, share, left + j * _CELL, y) for j, share in enumerate(row)]
    side = _CELL * len(names)
    return _svg(parts, left + side + round(0.4 * top), top + side + 4, what, kind="matrix")


def _cell(names: Sequence[str], i: int, j: int, share: float, x: int, y: int) -> str:  # noqa: PLR0917
    if i == j:
        return f'<rect class="same" x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3"/>'
    title = f"of the images with {names[i]}, {percent(share)} have {names[j]}"
    return (
        f'<rect class="track" x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3"/>'
        f'<rect class="bar" fill-opacity="{min(1.0, share):.3f}" x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" '
        f'height="{_CELL - 2}" rx="3"><title>{safe(title)}</title></rect>'
    )


def _grid(top: int) -> list[str]:
    base, parts = _HEIGHT - _BOTTOM, []
    for share in (0, 0.5, 1):
        y = base - (base - _TOP) * share
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share == 0 or top * share >= 1:
            text = number(round(top * share))
            parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return parts


def _svg(parts: Sequence[str], width: float, height: float, what: str, *, kind: str = "chart") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{safe(what)}">{"".join(parts)}</svg>'
    )

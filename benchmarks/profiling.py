"""A sampling profiler of one thread that knows networks from the rest, and a flame graph of the rest.

No script by itself: benchmarks/pipeline.py uses it. A sample belongs to a network if a `torch.nn.Module` is being
called in it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_SECONDS = 0.002
_WIDTH, _ROW, _MARGIN = 1400, 17, 40  # px
_COLORS = ("#e8743b", "#ee9a3a", "#f2b84b", "#e5603f", "#f0a860")


class Sampler:
    """Samples the thread that enters it until it leaves.

    Attributes:
        stacks: Number of samples of each stack outside of networks, outermost function first.
        inside: Number of samples inside of networks.
    """

    def __init__(self) -> None:
        self.stacks: Counter[tuple[str, ...]] = Counter()
        self.inside = 0
        self._stop = threading.Event()

    @property
    def outside_share(self) -> float:
        """Share of the samples outside of networks, in [0, 1]."""
        outside = self.stacks.total()
        return outside / max(1, outside + self.inside)

    def __enter__(self) -> Sampler:
        self._stop.clear()
        self._thread = threading.Thread(target=self._sample, args=(threading.get_ident(),), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self, thread: int) -> None:
        while not self._stop.wait(_SECONDS):
            names = _names(sys._current_frames().get(thread))  # noqa: SLF001  (the interpreter's way to do this)
            if "_call_impl (module)" in names:
                self.inside += 1
            elif names:
                self.stacks[names] += 1


def _names(frame: FrameType | None) -> tuple[str, ...]:
    names = []
    while frame is not None:
        names.append(f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).stem})")
        frame = frame.f_back
    return tuple(reversed(names))


class _Box(NamedTuple):
    name: str
    depth: int
    start: float
    count: int


def write_flame(path: Path, sampler: Sampler, title: str) -> None:
    """Draw the stacks outside of networks as an SVG; hold the pointer over a box to read it."""
    boxes = _boxes(sampler.stacks)
    total = max(1, sampler.stacks.total())
    height = _MARGIN + _ROW * (1 + max((box.depth for box in boxes), default=0)) + 10
    heading = escape(f"{title}: {sampler.outside_share:.2%} of the time, {total} samples")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        f'<rect width="100%" height="100%" fill="#fffdf8"/><text x="10" y="24" font-size="16">{heading}</text>',
        *(_drawn(box, total) for box in boxes),
        "</svg>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _boxes(stacks: Mapping[tuple[str, ...], int], depth: int = 0, start: float = 0) -> list[_Box]:
    children: dict[str, dict[tuple[str, ...], int]] = {}
    for stack, count in stacks.items():
        if stack:
            children.setdefault(stack[0], {})[stack[1:]] = count
    boxes = []
    for name, below in sorted(children.items()):
        count = sum(below.values())
        boxes += [_Box(name, depth, start, count), *_boxes(below, depth + 1, start)]
        start += count
    return boxes


def _drawn(box: _Box, total: int) -> str:
    scale = (_WIDTH - 20) / total
    x, y, width = 10 + box.start * scale, _MARGIN + _ROW * box.depth, box.count * scale
    letters = int(width / 6.2)
    text = escape(box.name if len(box.name) <= letters else box.name[: letters - 1] + "…") if letters > 3 else ""
    color = _COLORS[sum(map(ord, box.name)) % len(_COLORS)]
    return (
        f'<g><title>{escape(box.name)}: {box.count / total:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{color}"/><text x="{x + 3:.1f}" y="{y + 12}" font-size="10.5">{text}</text></g>'
    )

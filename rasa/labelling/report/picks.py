"""Which objects a contact sheet shows: the best, the worst, and some at random, in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

GROUPS = ("best", "worst", "random")


class Pick(NamedTuple):
    """One object of a dataset, or a whole image.

    Attributes:
        score: In [0, 1].
        row: Position of its image in the dataset.
        instance: Position of the object in its image; -1 for the image itself.
    """

    score: float
    row: int
    instance: int


@dataclass(slots=True)
class Picker:
    """Keeps some of many picks; which ones depends on neither their order nor their number.

    Attributes:
        each: Picks in each of the three groups.
        seed: Decides which are "random".
    """

    each: int
    seed: int
    _heaps: tuple[list[tuple[float, int, int, float]], ...] = field(default_factory=lambda: ([], [], []))

    def add(self, pick: Pick, key: str) -> None:
        """Consider ``pick``; ``key`` tells it from all others, whatever its position."""
        if self.each < 1:
            return
        lot = int.from_bytes(hashlib.blake2b(f"{self.seed}:{key}".encode(), digest_size=6).digest(), "big")
        # A group gives way to those before it, so it needs spares: at most as many as those hold.
        for place, rank in enumerate((pick.score, -pick.score, lot)):
            entry = (float(rank), -pick.row, -pick.instance, pick.score)
            heap = self._heaps[place]
            if len(heap) < self.each * (place + 1):
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)

    def groups(self) -> dict[str, list[Pick]]:
        """Distinct picks by group, the most telling first; no pick is in two groups."""
        seen: set[tuple[int, int]] = set()
        chosen: dict[str, list[Pick]] = {}
        for name, heap in zip(GROUPS, self._heaps, strict=True):
            ordered = [Pick(score, -row, -instance) for _, row, instance, score in sorted(heap, reverse=True)]
            chosen[name] = [pick for pick in ordered if (pick.row, pick.instance) not in seen][: self.each]
            seen.update((pick.row, pick.instance) for pick in chosen[name])
        return chosen

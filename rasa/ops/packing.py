"""Items of known sizes into as few groups as can be found, of like size."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from rasa.errors import InputError


def pack(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Share items out, none cut, so that no group is over ``capacity``.

    Groups are as many as the sum asks for, or one more wherever neither rule finds room: longest first into the
    emptiest group, which balances, else into the first with room, which packs tighter. Nothing is drawn by lot.

    Args:
        sizes: Size of each item, at least 1.
        capacity: Largest sum of a group.

    Returns:
        Indices of the items by group, ascending; groups ordered by their first item.

    Raises:
        InputError: If an item is larger than a group, or smaller than 1.

    Source:
        Graham, "Bounds on Multiprocessing Timing Anomalies", 1969; Johnson, "Near-Optimal Bin Packing Algorithms",
        1973.

    >>> pack([5, 2, 2, 4], capacity=7)
    [[0, 2], [1, 3]]
    """
    if wrong := [size for size in sizes if not 1 <= size <= capacity]:
        raise InputError(f"sizes must be in [1, {capacity}], the room of a group, got {wrong[0]}; split the item")
    if not sizes:
        return []
    count = -(-sum(sizes) // capacity)
    while True:
        groups = _into_emptiest(sizes, count, capacity) or _into_first(sizes, count, capacity)
        if groups:
            return sorted(sorted(group) for group in groups)
        count += 1  # ends at one item per group at the latest


def _into_emptiest(sizes: Sequence[int], count: int, capacity: int) -> list[list[int]] | None:
    groups: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, group) for group in range(count)]
    for i in _longest_first(sizes):
        total, group = heapq.heappop(filled)
        if total + sizes[i] > capacity:
            return None
        groups[group].append(i)
        heapq.heappush(filled, (total + sizes[i], group))
    return groups


def _into_first(sizes: Sequence[int], count: int, capacity: int) -> list[list[int]] | None:
    groups: list[list[int]] = [[] for _ in range(count)]
    room = [capacity] * count
    for i in _longest_first(sizes):
        group = next((g for g in range(count) if room[g] >= sizes[i]), None)
        if group is None:
            return None
        groups[group].append(i)
        room[group] -= sizes[i]
    return groups


def _longest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda i: -sizes[i])

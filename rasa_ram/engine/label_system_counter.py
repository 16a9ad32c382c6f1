"""Counting words of any number in bounded memory, with a bound on the error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rasa.errors import InputError


class BoundedCounter:
    """Counts of the frequent keys; exact while there are at most twice ``capacity`` of them.

    When there are more, all but the ``capacity`` most frequent are forgotten. A count is then a lower bound, and the
    true one is at most ``error`` more: of a key that was forgotten, each time at most the largest forgotten count is
    lost. Counters of parts of a corpus add up, errors included.

    >>> counter = BoundedCounter(2)
    >>> counter.update({"cat": 5, "dog": 4, "axolotl": 1, "okapi": 1, "gecko": 1})
    >>> counter.top(2), counter.error
    ([('cat', 5), ('dog', 4)], 1)

    Args:
        capacity: Keys to keep; about 150 bytes each at most twice as many.

    Raises:
        InputError: If ``capacity`` is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise InputError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.error = 0
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, key: str) -> int:
        return self._counts.get(key, 0)

    @property
    def counts(self) -> Mapping[str, int]:
        """The keys with their counts, in no order that means anything."""
        return self._counts

    def add(self, key: str, count: int = 1) -> None:
        """Count ``key``."""
        self._counts[key] = self._counts.get(key, 0) + count
        if len(self._counts) > 2 * self.capacity:
            self._forget()

    def update(self, counts: Mapping[str, int] | Iterable[tuple[str, int]], *, error: int = 0) -> None:
        """Add the counts of a part, whose own are at most ``error`` too low."""
        self.error += error
        for key, count in counts.items() if isinstance(counts, Mapping) else counts:
            self.add(key, count)

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent keys, equal ones by alphabet."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def _forget(self) -> None:
        order = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        self.error += order[self.capacity][1]
        self._counts = dict(order[: self.capacity])

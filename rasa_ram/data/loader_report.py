"""What was wrong with the samples that a loader left out: counted in full, named up to a bound."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from rasa.errors import RasaWarning

BadKind = Literal["image", "record", "tags", "caption"]

# Examples kept of each kind.
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be used.

    Attributes:
        kind: ``"image"`` cannot be read, ``"record"`` cannot be read, ``"tags"`` unknown or out of range, or no
            usable ``"caption"``.
        name: The image's path, or the record's number where there is no more.
        reason: The error's text.
    """

    kind: BadKind
    name: str
    reason: str


class BadSamples:
    """Counts bad samples, each time that one is met, and keeps the first ``MAX_NAMED`` different ones of each kind."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._named: dict[str, dict[str, BadSample]] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How often a sample of each kind was met; a kind that was not met is not there."""
        return MappingProxyType(dict(self._counts))

    @property
    def examples(self) -> tuple[BadSample, ...]:
        """The first ones of each kind."""
        return tuple(sample for named in self._named.values() for sample in named.values())

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, samples: Iterable[BadSample], *, stacklevel: int = 2) -> None:
        """Count samples, and warn with a :class:`rasa.RasaWarning` of the first one of each kind."""
        for sample in samples:
            self._counts[sample.kind] += 1
            named = self._named.setdefault(sample.kind, {})
            if len(named) < MAX_NAMED:
                named.setdefault(sample.name, sample)
            if self._counts[sample.kind] == 1:
                warnings.warn(
                    f"left out a sample ({sample.kind}): {sample.reason}; further ones are counted in the loader's bad",
                    RasaWarning,
                    stacklevel=stacklevel,
                )

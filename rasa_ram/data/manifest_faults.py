"""What is wrong with the records of a file: one fault, and the report of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# Of unmapped names and of faults per kind that a report keeps; the counts are of all.
MAX_NAMES, MAX_EXAMPLES = 100_000, 5

FaultKind = Literal[
    "bad-characters", "broken-file", "broken-image", "empty-caption", "id-range", "long-caption", "missing-image",
    "no-image", "outside-folder", "repeated-id", "row-count", "wrong-type",
]  # fmt: skip
OnBad = Literal["skip", "stop"]


class RowError(ValueError):
    """One row cannot become a record; never leaves this package."""

    def __init__(self, kind: FaultKind, why: str, *, image: str | None = None) -> None:
        super().__init__(why)
        self.kind: FaultKind = kind
        self.image = image


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one record.

    Attributes:
        kind: In a word, for counting.
        source: The file.
        number: Position of the record in the file, from 0.
        image: Its image, where that much is known.
        why: In a sentence.
        mended: Whether the record could be used all the same.
    """

    kind: FaultKind
    source: str
    number: int
    image: str | None
    why: str
    mended: bool = False

    def __str__(self) -> str:
        image = "" if self.image is None else f" (image {self.image!r})"
        return f"{self.source}: record {self.number}{image}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind, "source": self.source, "number": self.number, "image": self.image,
            "why": self.why, "mended": self.mended,
        }  # fmt: skip


@dataclass(slots=True)
class ReadReport:
    """What came out of reading; counts grow while records are read.

    Attributes:
        records: Records that were good, those mended included.
        bad: Records that were skipped.
        mended: Faults that cost no record: something harmless was put right, or a bad caption left out.
        captions_left_out: The bad captions among them.
        counts: Faults by kind, the mended ones included.
        examples: The first :data:`MAX_EXAMPLES` faults of each kind.
        unmapped: Labels that the vocabulary has no tag for, and how often they came; at most :data:`MAX_NAMES` names.
        on_fault: Called with every fault, also with those that ``examples`` has no room for.
    """

    records: int = 0
    bad: int = 0
    mended: int = 0
    captions_left_out: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Fault]] = field(default_factory=dict)
    unmapped: Counter[str] = field(default_factory=Counter)
    on_fault: Callable[[Fault], None] | None = None

    def add(self, fault: Fault) -> None:
        """Count a fault."""
        self.counts[fault.kind] += 1
        if fault.mended:
            self.mended += 1
        else:
            self.bad += 1
        kept = self.examples.setdefault(fault.kind, [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(fault)
        if self.on_fault is not None:
            self.on_fault(fault)

    def add_unmapped(self, name: str) -> None:
        """Count a label without a tag."""
        if name in self.unmapped or len(self.unmapped) < MAX_NAMES:
            self.unmapped[name] += 1

"""What became of planned images whose files changed: shards are never rewritten, so it is kept beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasa.labelling.known import SHORT, KnownPlaces
from rasa.labelling.locators import Locator, locator_of
from rasa.labelling.tables import SIGHTING_SCHEMA, parts_in, read_table


@dataclass(frozen=True)
class Moves:
    """Images by the first 32 digits of their ids.

    Attributes:
        gone: Those whose only file holds another image by now, or can be read by now.
        places: Where others are now.
    """

    gone: frozenset[str] = frozenset()
    places: Mapping[str, Locator] = field(default_factory=dict)


def load_moves(folder: Path) -> Moves:
    """Read the moves of a plan; holds only images that were replaced."""
    gone: set[str] = set()
    places: dict[str, Locator] = {}
    for row in _rows(parts_in(folder, "places"), SIGHTING_SCHEMA.names):
        if row["replaces"] is not None:
            gone.add(row["replaces"])
            gone.discard(row["id"][: 2 * SHORT])
            places[row["id"][: 2 * SHORT]] = locator_of(row)
    return Moves(frozenset(gone), places)


def remaining_copies(folder: Path, replaced: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """A place that still holds the image, for those of ``replaced`` that have one: rows of the plan's places."""
    wanted, known = set(replaced), KnownPlaces(folder)
    columns = [name for name in SIGHTING_SCHEMA.names if name != "replaces"]
    for row in _rows([*parts_in(folder, "shard"), *parts_in(folder, "places")], columns):
        short = bytes.fromhex(row["id"][: 2 * SHORT])
        last = known.get(row["place"])
        if short in wanted and last is not None and last.id == short:
            wanted.discard(short)
            yield row


def _rows(parts: Iterable[tuple[int, Path]], columns: list[str]) -> Iterator[dict[str, Any]]:
    for _, path in parts:
        for batch in read_table(path, columns).to_batches(max_chunksize=512):
            yield from batch.to_pylist()

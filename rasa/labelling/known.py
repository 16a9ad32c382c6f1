"""What a plan knows already: 50 bytes a place in sorted arrays, so that 10^7 images fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rasa.labelling.sources import Found
from rasa.labelling.tables import parts_in, read_table

SHORT = 16  # bytes of an id that are compared; 128 bits do not collide by chance

_PLACE = np.dtype([("place", "<i8"), ("size", "<i8"), ("mtime_ns", "<i8"), ("id", "V16"), ("readable", "?")])
_COLUMNS = ("id", "place", "stat_size", "mtime_ns")


@dataclass(frozen=True, slots=True)
class Known:
    """What was found at a place when it was last read.

    Attributes:
        id: The first 16 bytes of the image's id.
        size: Bytes of the file or archive; -1 if not known.
        mtime_ns: Its time; -1 if not known.
        readable: Whether it could be read.
    """

    id: bytes
    size: int
    mtime_ns: int
    readable: bool

    def is_unchanged(self, found: Found) -> bool:
        """Whether the place need not be read again."""
        return self.readable and not found.error and (self.size, self.mtime_ns) == (found.size, found.mtime_ns)


class KnownPlaces:
    """The places of a plan, read from its folder."""

    def __init__(self, folder: Path) -> None:
        planned = [_part(path, errors=True) for _, path in parts_in(folder, "shard")]
        sighted = [_part(path, errors=False) for _, path in parts_in(folder, "places")]
        self._planned = np.concatenate([np.zeros(0, _PLACE), *planned])["id"].copy()
        rows = np.concatenate([np.zeros(0, _PLACE), *planned, *sighted])
        # Stable, so that of several sightings of a place the last one is the rightmost.
        order = np.argsort(rows["place"], kind="stable")
        # A column of its own: a search in a column of a table copies all of it first.
        self._rows, self._places = rows[order], rows["place"][order]

    def get(self, place: int) -> Known | None:
        """What the plan knows of ``place``; None if nothing."""
        at = int(np.searchsorted(self._places, place, side="right")) - 1
        if at < 0 or self._places[at] != place:
            return None
        row = self._rows[at]
        return Known(row["id"].tobytes(), int(row["size"]), int(row["mtime_ns"]), bool(row["readable"]))

    def ids(self) -> set[bytes]:
        """The first 16 bytes of the ids of all planned images."""
        return {row.tobytes() for row in self._planned}


def _part(path: Path, *, errors: bool) -> Any:
    table = read_table(path, [*_COLUMNS, "error_kind"] if errors else _COLUMNS)
    rows = np.zeros(table.num_rows, _PLACE)
    for name, column in (("place", "place"), ("size", "stat_size"), ("mtime_ns", "mtime_ns")):
        rows[name] = table[column].to_numpy()
    rows["id"] = np.array([bytes.fromhex(text[: 2 * SHORT]) for text in table["id"].to_pylist()], "V16")
    rows["readable"] = table["error_kind"].is_null().to_numpy() if errors else True
    return rows

"""Records by number, out of folders of the cache, whose files are mapped into memory; see manifest_cache."""

from __future__ import annotations

import bisect
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import IntArray
from rasa.errors import InputError
from rasa_ram.data.records import Record

_ARRAYS = {"row_ends.bin": "<i8", "tags.bin": "<i4", "tag_ends.bin": "<i8"}


@dataclass(frozen=True, slots=True, eq=False)
class TagLists:
    """The known tag ids of N records, one list after the other.

    Attributes:
        ids: int32, the ids of record i from ``ends[i - 1]`` (0 for the first) to ``ends[i]``.
        ends: int64 ``(N,)``.
    """

    ids: NDArray[np.int32]
    ends: IntArray

    def counts(self, size: int) -> IntArray:
        """How many records have each tag.

        Args:
            size: T, the number of tags.

        Returns:
            int64 ``(T,)``.

        Raises:
            InputError: If an id is not below ``size``.
        """
        found = np.zeros(size, np.int64)
        for start in range(0, len(self.ids), 2**24):  # bincount makes int64 of its input
            part = np.bincount(self.ids[start : start + 2**24], minlength=size)
            if len(part) > size:
                raise InputError(
                    f"the records have tag id {len(part) - 1}, and the vocabulary {size} tags; pass its own"
                )
            found += part
        return found


class StoredRecords:
    """One manifest of the cache; the files are mapped when they are first needed, in each process anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: Mapping[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._maps: tuple[Any, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRecords, (self._folder,)

    def __len__(self) -> int:
        return int(self._index["records"])

    @property
    def skipped(self) -> Mapping[str, int]:
        """Faults of the manifest by kind."""
        return dict(self._index["faults"])

    @property
    def tags(self) -> TagLists:
        """The known tag ids of all records."""
        _, _, ids, ends = self._mapped()
        return TagLists(ids, ends)

    def row(self, number: int) -> list[Any]:
        """What is stored of a record."""
        rows, ends, _, _ = self._mapped()
        start = int(ends[number - 1]) if number else 0
        row: list[Any] = json.loads(rows[start : int(ends[number])])
        return row

    def _mapped(self) -> tuple[Any, ...]:
        if self._maps is None:
            with (self._folder / "rows.bin").open("rb") as file:
                rows = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self) else b""
            arrays = [_map_array(self._folder / name, dtype) for name, dtype in _ARRAYS.items()]
            self._maps = (rows, *arrays)
        return self._maps


class RecordTable(Sequence[Record]):
    """Records of one or several manifests by number; made by :func:`rasa_ram.data.manifest.open_records`.

    Pickling it sends the names of the files alone.

    Args:
        parts: Stored manifests, and how often each stands in the table.
    """

    def __init__(self, parts: Sequence[tuple[StoredRecords, int]]) -> None:
        self._parts = list(parts)
        self._ends = list(accumulate(len(part) * times for part, times in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Record:  # type: ignore[override]
        length = len(self)
        if not -length <= number < length:
            raise IndexError(f"record {number} of a table of {length}")
        at = number + length if number < 0 else number
        which = bisect.bisect_right(self._ends, at)
        part = self._parts[which][0]
        image, captions, parsed, tags = part.row((at - (self._ends[which - 1] if which else 0)) % len(part))
        return Record(
            image_path=image,
            captions=tuple(captions),
            parsed_ids=tuple(map(tuple, parsed)),
            tag_ids=None if tags is None else tuple(tags),
        )

    @property
    def skipped(self) -> Mapping[str, int]:
        """What was wrong with the manifests, by kind: bad records, which are not here, and mended ones, which are."""
        total: dict[str, int] = {}
        for part, _ in self._parts:
            for kind, count in part.skipped.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def has_tags(self) -> bool:
        """Whether any record has a tag."""
        return any(len(part.tags.ids) for part, _ in self._parts)

    def tags(self) -> TagLists:
        """The ``known_ids`` of all records; mapped, not read, where the table is of one manifest that stands once."""
        if len(self._parts) == 1 and self._parts[0][1] == 1:
            return self._parts[0][0].tags
        lists = [part.tags for part, times in self._parts for _ in range(times)]
        shifts = accumulate((len(part.ids) for part in lists), initial=0)
        ends = [part.ends + shift for part, shift in zip(lists, shifts, strict=False)]
        empty = np.zeros(0, np.int64)
        return TagLists(
            np.concatenate([empty.astype(np.int32), *(part.ids for part in lists)]), np.concatenate([empty, *ends])
        )


def _map_array(path: Path, dtype: str) -> NDArray[Any]:
    if os.path.getsize(path) == 0:  # noqa: PTH202
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))

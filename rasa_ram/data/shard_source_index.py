"""Where each sample of a set of shards lies, so that any of them can be read by its number.

Made once by going from header to header of the tar files, without reading what they hold, and kept in the cache as
one array that all processes map into memory: 16 bytes a sample. What is broken is noted beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from rasa._files import write_atomically
from rasa.arrays import IntArray
from rasa.errors import FormatError, InputError, RasaWarning
from rasa.io.images import MAX_PIXELS, to_image
from rasa.types import Image
from rasa.weights import cache_folder
from rasa_ram.data.manifest_faults import OnBad
from rasa_ram.data.manifest_rows import RowCheck
from rasa_ram.data.records import Record
from rasa_ram.data.shards import group_members, record_with_image
from rasa_ram.data.shards_images import MAX_IMAGE_BYTES
from rasa_ram.data.shards_tar import BrokenTarError, read_members

_END = bytes(1024)  # the mark that ends a tar: two empty blocks
_ENDS = (".counts.npy", ".places.npy", ".faults.json")  # of the files of an index in the cache


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """The samples of S shards, numbered from the first of the first shard to the last of the last.

    Attributes:
        shards: S tar files.
        counts: int64 ``(S,)``, samples of each.
        places: The ``.npy`` file of int64 ``(N, 2)``: first byte of a sample in its shard, and its bytes.
    """

    shards: tuple[Path, ...]
    counts: IntArray
    places: Path

    def __len__(self) -> int:
        return int(self.counts.sum())


def index_shards(shards: Sequence[Path], *, on_bad: OnBad = "stop", cache: Path | None = None) -> ShardIndex:
    """Find all samples of uncompressed tar files; from the cache if they are there as they were.

    Args:
        shards: The files, in the order that numbers the samples.
        on_bad: ``"stop"`` at a broken shard, or ``"skip"`` what comes behind the broken place, with a warning each
            time.
        cache: Folder to keep the index in; None is ``shards`` in rasa's cache.

    Raises:
        FormatError: If a shard is broken, unless such are skipped.
        InputError: If there is no shard, or one cannot be read.
        OutputError: If the cache cannot be written.
    """
    if not shards:
        raise InputError("there are no shards; pass the paths of tar files")
    stem = (cache or cache_folder() / "shards") / _digest(shards, on_bad)
    index, faults = _cached(shards, stem) or _store(shards, stem, on_bad)
    for fault in faults:
        warnings.warn(f"{fault} and are used", RasaWarning, stacklevel=2)
    return index


class ShardItems:
    """Records and images of indexed shards by number; what was read last is kept, for its image is asked for next.

    Pickling it sends the names of the files alone.

    Args:
        index: Where the samples are.
        num_tags: T; a record with another id is refused.
        on_bad: ``"skip"`` leaves bad captions out of their records; any other fault is an error all the same.
        max_pixels: Largest height times width of an image.
    """

    def __init__(
        self, index: ShardIndex, *, num_tags: int, on_bad: OnBad = "stop", max_pixels: int = MAX_PIXELS
    ) -> None:
        self._index, self._num_tags, self._on_bad, self._max_pixels = index, num_tags, on_bad, max_pixels
        self._ends = np.cumsum(index.counts)
        self._places: IntArray | None = None
        self._last: tuple[int, bytes] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _items, (self._index, self._num_tags, self._on_bad, self._max_pixels)

    def __len__(self) -> int:
        return len(self._index)

    def record(self, index: int) -> Record:
        """Record number ``index``.

        Raises:
            FormatError: If the sample breaks the format.
            InputError: If the shard cannot be read.
        """
        path = self._index.shards[int(np.searchsorted(self._ends, index, side="right"))]
        check = RowCheck(source=str(path), on_bad=self._on_bad, vocabulary_size=self._num_tags)
        record, data = _parse(path, self._read(path, index), index, check)
        self._last = (index, data)
        return record

    def image(self, index: int, record: Record) -> Image:
        """Its image.

        Raises:
            ImageError: If it cannot be decoded.
        """
        if self._last is None or self._last[0] != index:
            self.record(index)
        data = cast("tuple[int, bytes]", self._last)[1]
        return to_image(data, name=record.image_path, max_pixels=self._max_pixels)

    def _read(self, path: Path, index: int) -> bytes:
        if self._places is None:
            self._places = np.load(self._index.places, mmap_mode="r", allow_pickle=False)
        start, size = self._places[index].tolist()
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        if len(data) < size:
            raise FormatError(f"{path} became shorter while it was read; fetch it again")
        return data


def _items(index: ShardIndex, num_tags: int, on_bad: OnBad, max_pixels: int) -> ShardItems:
    return ShardItems(index, num_tags=num_tags, on_bad=on_bad, max_pixels=max_pixels)


def _parse(path: Path, blocks: bytes, index: int, check: RowCheck) -> tuple[Record, bytes]:
    try:
        ((sample),) = group_members(read_members(io.BytesIO(blocks + _END), max_bytes=MAX_IMAGE_BYTES))
    except (BrokenTarError, ValueError) as error:
        raise FormatError(f"{path} is not as it was indexed; delete its index from the cache ({error})") from error
    pair = record_with_image(sample, index, check)
    if pair is None:
        ((fault,),) = check.report.examples.values()
        raise FormatError(str(fault))
    return pair


def _digest(shards: Sequence[Path], on_bad: str) -> str:
    states = []
    for path in shards:
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        states.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(["rasa-ram.shards/2", on_bad, states]).encode()).hexdigest()[:16]


def _cached(shards: Sequence[Path], stem: Path) -> tuple[ShardIndex, list[str]] | None:
    """An index with what it says of broken shards, if the cache has it whole."""
    counts, places, faults = (stem.with_suffix(end) for end in _ENDS)
    try:
        known = np.load(counts, allow_pickle=False)
        rows = np.load(places, mmap_mode="r", allow_pickle=False)
        told = json.loads(faults.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = known.shape == (len(shards),) and rows.shape == (int(known.sum()), 2) and rows.dtype == np.int64
    return (ShardIndex(tuple(shards), known, places), told) if whole else None


def _store(shards: Sequence[Path], stem: Path, on_bad: OnBad) -> tuple[ShardIndex, list[str]]:
    counts, places, faults = (stem.with_suffix(end) for end in _ENDS)
    told: list[str] = []
    found = [_scan(path, on_bad, told) for path in shards]
    numbers = np.array([len(rows) for rows in found], dtype=np.int64)
    for path, array in ((places, np.concatenate(found)), (counts, numbers)):
        with write_atomically(path, make_folder=True) as file:
            np.save(file, array, allow_pickle=False)
    with write_atomically(faults, text=True) as text:
        json.dump(told, text)
    return ShardIndex(tuple(shards), numbers, places), told


def _scan(path: Path, on_bad: OnBad, faults: list[str]) -> IntArray:
    """First byte and bytes of each sample of a shard: int64 ``(n, 2)``; what is broken is added to ``faults``."""
    places: list[tuple[int, int]] = []
    try:
        with path.open("rb") as file:
            for members in group_members(read_members(file, max_bytes=0)):
                first, last = members[0][1], members[-1][1]
                places.append((first.start, last.end - first.start))
    except BrokenTarError as error:
        message = f"{path} is no whole tar file: {error}; {len(places)} samples come before"
        if on_bad == "stop":
            raise FormatError(f"{message}; fetch it again") from error
        faults.append(message)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return np.array(places, dtype=np.int64).reshape(-1, 2)

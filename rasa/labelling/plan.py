"""Which images a dataset has, and in which shard each is: made once, then only appended to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rasa._locks import file_lock
from rasa.errors import ImageError, InputError
from rasa.io.find import IMAGE_SUFFIXES, StrPath
from rasa.io.images import printable
from rasa.labelling._files import remove_stale_parts
from rasa.labelling.known import SHORT, KnownPlaces
from rasa.labelling.locators import place_columns
from rasa.labelling.moves import load_moves, remaining_copies
from rasa.labelling.planned import Plan, PlannedImage, Shard, load_plan
from rasa.labelling.reading import digest_of
from rasa.labelling.sources import Found, Frames, find_sources
from rasa.labelling.tables import PLAN_SCHEMA, SIGHTING_SCHEMA, parts_in, write_rows

__all__ = ["SHARD_SIZE", "Plan", "PlannedImage", "Shard", "load_plan", "plan_images"]

SHARD_SIZE = 512
_STEMS = ("shard", "places")
_SIGHTINGS = 4096  # rows kept before they are written

# First bytes of the formats that rasa reads, for files whose name does not say.
_MAGIC = (
    (".jpg", rb"\xff\xd8\xff"),
    (".png", rb"\x89PNG"),
    (".gif", rb"GIF8"),
    (".webp", rb"RIFF....WEBP"),
    (".bmp", rb"BM"),
    (".tif", rb"II\*\0|MM\0\*"),
    (".avif", rb"....ftypavi"),
)


def plan_images(
    dataset_folder: StrPath,
    sources: Iterable[StrPath] | StrPath,
    *,
    shard_size: int = SHARD_SIZE,
    every: int | None = None,
    seconds: float | None = None,
) -> Plan:
    """Find the images of ``sources``, and add those that the dataset does not have yet to its plan.

    Known images keep their shard, new ones come into new shards in the order of the sources. A file is read again
    only when its size or time has changed. Equal files are one image: the others are kept as its duplicates. What
    cannot be read becomes a row with the reason. Safe to kill at any moment, and to run twice at once.

    Args:
        dataset_folder: Made if it is not there.
        sources: Folders, with all below; patterns such as ``photos/**/*.jpg``; images; manifests (.csv, .jsonl,
            .ndjson, .parquet) with a column path, relative to their own folder, or url; .tar, .tar.gz and .zip
            archives; videos; addresses of the web; folders, patterns and images of object storage (``s3://``,
            ``gs://`` and others of fsspec). A folder gives its images, not its archives: name those by a pattern.
        shard_size: Images of a shard.
        every: Take every n-th frame of a video.
        seconds: Take a frame of a video every so many seconds; 1 unless this or ``every`` is given.

    Returns:
        The whole plan, also of what earlier calls found.

    Raises:
        InputError: If a source does not exist, or a number is out of its range.
        OutputError: If the plan cannot be written.
        FormatError: If a manifest, or the plan that is there, is damaged.
        DependencyError: If the package that an address needs is not installed.
    """
    if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
        raise InputError(f"shard_size must be a whole number of at least 1, got {shard_size!r}")
    folder, frames = Path(dataset_folder), Frames(every, seconds)
    with file_lock(folder / "locks" / "plan.lock"):
        planner = _Planner(folder, shard_size)
        for found in find_sources(sources, frames):
            planner.add(found)
        planner.finish()
    return load_plan(folder)


class _Planner:
    """Appends to the plan of a folder; holds about 240 bytes an image while it works, measured at a million."""

    def __init__(self, folder: Path, shard_size: int) -> None:
        self._folder, self._shard_size = folder / "plan", shard_size
        remove_stale_parts(self._folder)
        last = {stem: max((index for index, _ in parts_in(self._folder, stem)), default=-1) for stem in _STEMS}
        self._next = {stem: index + 1 for stem, index in last.items()}
        self._known = KnownPlaces(self._folder)
        self._ids = self._known.ids()
        self._seen: set[int] = set()
        self._gone, self._replaced = load_moves(self._folder).gone, set[bytes]()
        self._rows: list[dict[str, Any]] = []
        self._sightings: list[dict[str, Any]] = []

    def add(self, found: Found) -> None:
        place = found.locator.key
        if place in self._seen:
            return
        self._seen.add(place)
        known = self._known.get(place)
        # After a crash, a copy may be known of an image that is not planned yet.
        if known is not None and known.id not in self._ids:
            known = None
        if known is not None and known.is_unchanged(found):
            return
        row = _examined(found)
        short = bytes.fromhex(row["id"][: 2 * SHORT])
        is_new = short not in self._ids
        if is_new:
            self._ids.add(short)
            self._append(row)
        if known is not None and known.id != short:
            self._replaced.add(known.id)
            self._sight(row, replaces=known.id.hex())
        elif short.hex() in self._gone:
            self._sight(row, replaces=short.hex())  # a place of its own again
        elif not is_new and row["error_kind"] is None:
            # Also a file that was only touched, so that it is not read again next time.
            self._sight(row, replaces=None)

    def finish(self) -> None:
        """Write what is left; the last shard may be smaller than the others."""
        self._flush(self._rows, "shard", PLAN_SCHEMA)
        self._flush(self._sightings, "places", SIGHTING_SCHEMA)
        if self._replaced:
            for row in remaining_copies(self._folder, self._replaced):
                self._sight(row, replaces=row["id"][: 2 * SHORT])
            self._flush(self._sightings, "places", SIGHTING_SCHEMA)

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._shard_size:
            self._flush(self._rows, "shard", PLAN_SCHEMA)

    def _sight(self, row: dict[str, Any], *, replaces: str | None) -> None:
        self._sightings.append(
            {name: row[name] for name in SIGHTING_SCHEMA.names if name in row} | {"replaces": replaces}
        )
        if len(self._sightings) == _SIGHTINGS:
            self._flush(self._sightings, "places", SIGHTING_SCHEMA)

    def _flush(self, rows: list[dict[str, Any]], stem: str, schema: Any) -> None:
        if rows:
            write_rows(self._folder / f"{stem}-{self._next[stem]:06d}.parquet", rows, schema)
            self._next[stem] += 1
            rows.clear()


def _examined(found: Found) -> dict[str, Any]:
    """The row of one place in the plan; its image is read once, to be hashed."""
    error, digest = ImageError(found.error), None
    try:
        digest = None if found.error else digest_of(found.locator)
    except ImageError as caught:
        error = caught
    # The place must not count, or the same folder would have other ids elsewhere.
    unread = hashlib.sha256(b"unreadable\0" + found.path.encode()).hexdigest()
    identity = digest.id if digest else unread
    return {
        "id": identity,
        "path": found.path,
        "file_name": identity[: 2 * SHORT] + _safe_suffix(found.path, digest.head if digest else b""),
        "bytes": digest.size if digest else 0,
        "error_kind": None if digest else type(error).__name__,
        "error_message": None if digest else printable(str(error)),
        **place_columns(found.locator),
        "stat_size": found.size,
        "mtime_ns": found.mtime_ns,
    }


def _safe_suffix(path: str, head: bytes) -> str:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  (the name of a member is no path of this system)
    if suffix in IMAGE_SUFFIXES:
        return suffix
    return next((suffix for suffix, magic in _MAGIC if re.match(magic, head, re.DOTALL)), ".bin")

"""Long work in pieces: it survives a kill, is shared by processes, and never mixes two settings.

A piece is done when its file is there, and a file appears when all of it is on the disk. A piece is claimed by a
file lock, which a killed process leaves none of. Where machines do not see each other's locks, a piece may be done
twice, which costs time and nothing else: both write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rasa._files import write_atomically
from rasa._locks import file_lock
from rasa.errors import FormatError, InputError
from rasa_ram.data.records import Record

SCHEMA = "rasa_ram.engine/1"
SHARD_RECORDS = 1024

_STALE_S = 24 * 3600.0  # no piece takes a day to write


class Piece(Protocol):
    """What can be worked off: a shard of records, a tag."""

    @property
    def key(self) -> str:
        """Its name, which is part of a file's."""
        ...


AnyPiece = TypeVar("AnyPiece", bound=Piece)


@dataclass(frozen=True, slots=True)
class RecordShard:
    """Records that stand together in the input.

    Attributes:
        index: Which shard, from 0.
        records: At least one.
    """

    index: int
    records: tuple[Record, ...]

    @property
    def key(self) -> str:
        """Such as ``"shard-000042"``."""
        return f"shard-{self.index:06d}"

    @property
    def digest(self) -> str:
        """sha256 of the records, in hexadecimal: it tells whether a shard was made of others."""
        text = "\n".join(json.dumps(record_to_plain(record)) for record in self.records)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def shards_of(records: Iterable[Record], size: int = SHARD_RECORDS) -> Iterator[RecordShard]:
    """Cut a stream into shards of ``size`` records; the last one may be smaller.

    Raises:
        InputError: If ``size`` is below 1.
    """
    if size < 1:
        raise InputError(f"a shard must have at least 1 record, got {size}")
    stream, index = iter(records), 0
    while chunk := tuple(islice(stream, size)):
        yield RecordShard(index, chunk)
        index += 1


def record_to_plain(record: Record) -> dict[str, Any]:
    """JSON values, under the published keys (``union_label_id`` is None where no tags are known)."""
    return {
        "image_path": record.image_path,
        "caption": list(record.captions),
        "parse_label_id": [list(row) for row in record.parsed_ids],
        "union_label_id": None if record.tag_ids is None else list(record.tag_ids),
    }


def record_from_plain(plain: Mapping[str, Any]) -> Record:
    """The way back from :func:`record_to_plain`."""
    tags = plain["union_label_id"]
    return Record(
        image_path=plain["image_path"],
        captions=tuple(plain["caption"]),
        parsed_ids=tuple(tuple(row) for row in plain["parse_label_id"]),
        tag_ids=None if tags is None else tuple(tags),
    )


class Journal:
    """A folder of finished pieces, all made with the same settings.

    Args:
        folder: Made if it is not there.
        settings: JSON values that decide what is in the pieces; kept in ``journal.json``.

    Raises:
        InputError: If the folder holds the work of other settings.
        FormatError: If its ``journal.json`` is damaged.
        OutputError: If it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings: Mapping[str, Any] = json.loads(json.dumps(dict(settings)))
        with self.claim("journal", wait=True):
            self._open(folder / "journal.json")
        for part in folder.glob(".*.part"):  # of killed processes
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > _STALE_S:
                    part.unlink()

    def path(self, name: str) -> Path:
        """Where a file of the journal is."""
        return self.folder / name

    def work_off(
        self,
        pieces: Iterable[AnyPiece],
        *,
        is_done: Callable[[AnyPiece], bool],
        do: Callable[[AnyPiece], None],
        progress: Callable[[AnyPiece], None] | None = None,
    ) -> None:
        """Do each piece that is not done; at the end all are, by this process or another.

        Args:
            pieces: In any number; those that others work on are kept until they are done, one per process.
            is_done: Whether the file of a piece is there.
            do: Makes it.
            progress: Called once a piece, also for those that were done before.

        Raises:
            OutputError: If a lock file cannot be made.
        """
        tell = progress or (lambda _: None)
        waiting: list[AnyPiece] = []
        for piece in pieces:
            waiting = [other for other in waiting if not is_done(other)]
            if not self._try(piece, is_done, do, wait=False):
                waiting.append(piece)
            tell(piece)
        for piece in waiting:
            self._try(piece, is_done, do, wait=True)

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a lock of this name.

        Yields:
            Whether it is held; False, at once, if another process has it and ``wait`` is not given.

        Raises:
            OutputError: If the lock file cannot be made.
        """
        with file_lock(self.folder / "locks" / f"{key}.lock", wait=wait) as held:
            yield held

    def _try(
        self, piece: AnyPiece, is_done: Callable[[AnyPiece], bool], do: Callable[[AnyPiece], None], *, wait: bool
    ) -> bool:
        if is_done(piece):
            return True
        with self.claim(piece.key, wait=wait) as held:
            if held and not is_done(piece):
                do(piece)
            return held

    def _open(self, path: Path) -> None:
        if not path.exists():
            with write_atomically(path, text=True, sync=True) as file:
                json.dump({"schema": SCHEMA, "settings": self.settings}, file, indent=1, sort_keys=True)
            return
        known = _read_settings(path)
        for name in sorted(known.keys() | self.settings.keys()):
            if known.get(name) != self.settings.get(name):
                was, now = (_short(values.get(name)) for values in (known, self.settings))
                raise InputError(
                    f"{self.folder} holds work with other settings: {name} was {was} and is {now}; "
                    "take the old ones, or another folder"
                )


def check_digest(found: str, shard: RecordShard, path: Path) -> bool:
    """True if a finished file was made of these records.

    Raises:
        InputError: If it was made of others.
    """
    if found != shard.digest:
        raise InputError(f"{path} was made of other records than those given now; choose another folder for these")
    return True


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise FormatError(f"{path} has the schema {data['schema']!r}, expected {SCHEMA!r}; choose another folder")
        settings: dict[str, Any] = dict(data["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no journal: {error}; choose another folder") from error
    return settings


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}..."

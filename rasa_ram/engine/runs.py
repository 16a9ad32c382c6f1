"""A step of the data engine in a folder: interrupted runs go on, processes share the work, a report says what changed.

=====================  ============================================================================================
``records.jsonl``      the manifest that comes out (``.json`` or ``.parquet`` if asked)
``provenance.parquet`` a row for each tag of each image: given, parsed, captioned or generated (generate)
``dropped.parquet``    a row for each tag that an image lost, and why (clean)
``failures.jsonl``     images that could not be read, where there are any
``report.json``        all figures and settings; ``report.md`` is its readable half
=====================  ============================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.errors import FormatError
from rasa.types import Failure
from rasa_ram.data.manifest import write_records
from rasa_ram.data.records import Record
from rasa_ram.engine.clean import CleanRun
from rasa_ram.engine.clean_regions import RegionFinder
from rasa_ram.engine.generate import Generated, Generation
from rasa_ram.engine.journal import (
    SHARD_RECORDS,
    Journal,
    RecordShard,
    check_digest,
    record_from_plain,
    record_to_plain,
    shards_of,
)
from rasa_ram.engine.provenance import UNSEEN, TagNote, side_table
from rasa_ram.engine.report import Tally, Truth, write_report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a step runs in its folder.

    Attributes:
        manifest: Name of the manifest that comes out; its ending says the format.
        shard_size: Records of a shard.
        truth: Image to ids of all its true tags, for precision and recall; of some images, or None.
        progress: Told the number of records of each shard that is done.
        retry_failed: Whether finished shards are done again in which images could not be read.
    """

    manifest: str = "records.jsonl"
    shard_size: int = SHARD_RECORDS
    truth: Truth | None = None
    progress: Callable[[int], None] | None = None
    retry_failed: bool = False


def generate_into(records: Iterable[Record], out: Path, work: Generation, options: RunOptions | None = None) -> Tally:
    """Generate tags, with all files in ``out``; see :mod:`rasa_ram.engine.runs`.

    Calling it again goes on where it was interrupted, and gives the bytes of an undisturbed run.

    Args:
        records: Streamed once.
        out: Made if it is not there.
        work: Models and settings.
        options: See :class:`RunOptions`.

    Returns:
        The figures of the report.

    Raises:
        InputError: If ``out`` holds work of other records, models or settings.
        ContractError: If a model does not answer as its role says.
        OutputError: If a file cannot be written.
    """
    options = options or RunOptions()
    journal = Journal(out / "shards", {**work.describe(), "shard_size": options.shard_size})
    count = 0

    def read() -> Iterator[RecordShard]:
        nonlocal count
        for shard in shards_of(records, options.shard_size):
            count = shard.index + 1
            yield shard

    def is_done(shard: RecordShard) -> bool:
        path = _shard_file(journal, shard.index)
        if not path.exists():
            return False
        header = _header(path)
        return check_digest(header["digest"], shard, path) and not (options.retry_failed and header["failed"])

    journal.work_off(
        read(),
        is_done=is_done,
        do=lambda shard: _write_generated(_shard_file(journal, shard.index), shard, work),
        progress=None if options.progress is None else lambda shard: options.progress(len(shard.records)),  # type: ignore[misc]
    )

    def changes() -> Iterator[_Change]:
        for index in range(count):
            for done in _read_generated(_shard_file(journal, index)):
                yield _Change(done.known_before, done.record, done.notes, done.failure)

    with journal.claim("result", wait=True):
        names = work.settings.names
        return _Result(out, "generate", names, journal.settings, "provenance.parquet").write(changes(), options)


def clean_into(records: Iterable[Record], out: Path, work: RegionFinder, options: RunOptions | None = None) -> Tally:
    """Clean tags, with all files in ``out``; see :mod:`rasa_ram.engine.runs`.

    Calling it again goes on where it was interrupted, and gives the bytes of an undisturbed run; with other settings
    for decisions, such as ``outlier_share``, the regions are taken that were found before.

    Args:
        records: Streamed once.
        out: Made if it is not there.
        work: Models and settings.
        options: See :class:`RunOptions`.

    Returns:
        The figures of the report.

    Raises:
        InputError: If ``out`` holds regions of other records, models or settings.
        ContractError: If a model does not answer as its role says.
        OutputError: If a file cannot be written.
    """
    options = options or RunOptions()
    run = CleanRun(work, out, shard_size=options.shard_size)
    run.find(records, progress=options.progress, retry_failed=options.retry_failed)
    run.decide()
    changes = (_Change(done.before.known_ids, done.record, done.notes, done.failure) for done in run.results())
    with run.journal.claim("result", wait=True):
        result = _Result(out, "clean", work.settings.names, run.settings, "dropped.parquet")
        return result.write(changes, options)


@dataclass(frozen=True, slots=True)
class _Change:
    before: tuple[int, ...]
    record: Record
    notes: tuple[TagNote, ...]
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class _Result:
    """The files that come out of a step."""

    out: Path
    step: str
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    side: str

    def write(self, changes: Iterable[_Change], options: RunOptions) -> Tally:
        tally = Tally(self.names, options.truth)
        failures = self.out / "failures.jsonl"
        with ExitStack() as stack:
            note = stack.enter_context(side_table(self.out / self.side, self.names))
            failed = stack.enter_context(write_atomically(failures, text=True))

            def records() -> Iterator[Record]:
                for change in changes:
                    path = change.record.image_path
                    tally.add(path, change.before, change.record.known_ids, change.notes)
                    note(path, [one for one in change.notes if one.what != UNSEEN])
                    if change.failure is not None:
                        tally.fail(path, change.failure)
                        row = {"image_path": path, "kind": change.failure.kind, "message": change.failure.message}
                        failed.write(json.dumps(row) + "\n")
                    yield change.record

            write_records(records(), self.out / options.manifest)
        if not tally.failed:
            failures.unlink()
        write_report(self.out, self.step, tally.report(), self.settings)
        return tally


def _shard_file(journal: Journal, index: int) -> Path:
    return journal.path(f"shard-{index:06d}.jsonl")


def _write_generated(path: Path, shard: RecordShard, work: Generation) -> None:
    results = [*work(shard.records)]
    header = {"digest": shard.digest, "failed": sum(done.failure is not None for done in results)}
    with write_atomically(path, text=True, sync=True) as file:
        file.write(json.dumps(header) + "\n")
        for done in results:
            failure = done.failure and [done.failure.stage, done.failure.kind, done.failure.message]
            notes = [[note.tag, note.what, note.score] for note in done.notes]
            row = {"record": record_to_plain(done.record), "notes": notes, "failure": failure}
            file.write(json.dumps(row) + "\n")


def _read_generated(path: Path) -> Iterator[Generated]:
    try:
        with path.open(encoding="utf-8") as file:
            file.readline()
            for line in file:
                row = json.loads(line)
                failure = None if row["failure"] is None else Failure(*row["failure"])
                notes = tuple(TagNote(*note) for note in row["notes"])
                yield Generated(record=record_from_plain(row["record"]), notes=notes, failure=failure)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: no readable shard: {error}; delete it and generate again") from error


def _header(path: Path) -> Mapping[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            header: dict[str, Any] = json.loads(file.readline())
        return {name: header[name] for name in ("digest", "failed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: no readable shard: {error}; delete it and generate again") from error

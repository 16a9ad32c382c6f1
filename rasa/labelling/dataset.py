"""A labelled dataset, opened for reading: its images with their labels, one by one."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, InputError
from rasa.io.find import StrPath
from rasa.labelling.locks import shard_lock
from rasa.labelling.planned import Plan, PlannedImage, Shard, load_plan
from rasa.labelling.runs import Run, find_run, start_run
from rasa.labelling.store import OK, LabelledRow, is_done, labels_file, read_shard, read_timings, write_shard
from rasa.labelling.tables import read_table
from rasa.types import Result


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image of a dataset with its labels.

    Attributes:
        row: As it is stored: masks as COCO RLE, which an exporter of run lengths can use as they are.
        planned: Where it comes from.
        provenance: Of its run.
    """

    row: LabelledRow
    planned: PlannedImage
    provenance: Mapping[str, Any]

    @property
    def id(self) -> str:
        """sha256 of its bytes, 64 hexadecimal digits."""
        return self.row.id

    @property
    def path(self) -> str:
        """What the user calls it, printable."""
        return self.row.path

    @property
    def file_name(self) -> str:
        """Name for exports: unique in the dataset, safe on every file system, without folders."""
        return self.row.file_name

    @property
    def bytes(self) -> int:
        """Size of its file; 0 where it could not be read."""
        return self.row.bytes

    @property
    def ok(self) -> bool:
        """Whether it was processed without a failure."""
        return self.row.status == OK

    @cached_property
    def result(self) -> Result:
        """Its labels; masks are decoded at the first call.

        Raises:
            FormatError: If the row holds what no result can.
        """
        return self.row.result(self.provenance)

    def read_bytes(self) -> builtins.bytes:
        """Its file as it was labelled.

        Raises:
            ImageError: If it is gone, or has changed.
        """
        return self.planned.read()


Change = Callable[[Iterator[LabelledImage]], Iterable[Result]]


@dataclass(frozen=True)
class Counts:
    """How far a run is.

    Attributes:
        planned: Distinct images of the dataset.
        ok: Those that are labelled.
        failed: Those that could not be.
        duplicates: Further places with the bytes of one of them.
    """

    planned: int
    ok: int
    failed: int
    duplicates: int

    @property
    def labelled(self) -> int:
        """Images that have a row."""
        return self.ok + self.failed


@dataclass(frozen=True)
class Dataset:
    """A run of a dataset; :func:`open_dataset` opens one.

    Attributes:
        folder: Where it is.
        run: What it was labelled with.
        plan: Its images.
    """

    folder: Path
    run: Run
    plan: Plan

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def fingerprint(self) -> str:
        """Name of the run: 16 hexadecimal digits."""
        return self.run.fingerprint

    @property
    def config(self) -> Mapping[str, Any]:
        """The pipeline's configuration; empty for one without."""
        config: Mapping[str, Any] = self.run.provenance.get("config", {})
        return config

    @property
    def finished(self) -> bool:
        """Whether every shard of the plan is labelled."""
        return all(is_done(self.folder, self.fingerprint, shard) for shard in self.plan.shards)

    @property
    def counts(self) -> Counts:
        """How many images there are, and how many of them are labelled; reads two columns."""
        ok = failed = 0
        for shard in self.shards():
            status = self._statuses(shard)
            ok, failed = ok + status.count(OK), failed + len(status) - status.count(OK)
        return Counts(self.plan.count, ok, failed, sum(len(paths) - 1 for paths in self.duplicates().values()))

    def shards(self) -> Iterator[Shard]:
        """The shards that are labelled, in order."""
        return (shard for shard in self.plan.shards if is_done(self.folder, self.fingerprint, shard))

    def rows(self) -> Iterator[LabelledImage]:
        """All labelled images in the order of the plan, failed ones too; one shard in memory at a time.

        Raises:
            FormatError: If a file is damaged.
        """
        for shard in self.shards():
            yield from self.shard_rows(shard)

    def shard_rows(self, shard: Shard) -> Iterator[LabelledImage]:
        """The labelled images of one shard.

        Raises:
            FormatError: If a file is damaged.
        """
        return (image for image in self._stored(shard) if not self.plan.is_gone(image.id))

    def timings(self) -> Iterator[tuple[str, str, float]]:
        """Id, stage and seconds for each image and stage, in the order of the plan."""
        for shard in self.shards():
            for row in read_timings(self.folder, self.fingerprint, shard):
                yield row["id"], row["stage"], row["seconds"]

    def duplicates(self) -> dict[str, list[str]]:
        """Id of each image that is there more than once, to all its paths, the labelled one first."""
        return self.plan.duplicates()

    def derive(self, what: Mapping[str, Any], change: Change) -> Dataset:
        """Make a run with other labels of the same images, such as filtered ones, and open it.

        Shards that are derived already are not derived again. Images that failed stay as they are.

        Args:
            what: Says what ``change`` does; plain JSON values. It decides the fingerprint with that of this run.
            change: From a stream of images that are ok to as many results in the same order; called for each shard.

        Raises:
            InputError: If ``change`` gives more or fewer results than it was given images.
            OutputError: If the labels cannot be written.
        """
        extra = {**self.run.extra, "derived": dict(what)}
        name = start_run(self.folder, self.run.provenance, extra=extra, parent=self.fingerprint)
        for shard in self.shards():
            with shard_lock(self.folder, name, shard, wait=True):
                if not is_done(self.folder, name, shard):
                    write_shard(self.folder, name, shard, list(self._derived(shard, change)))
        return open_dataset(self.folder, run=name)

    def _stored(self, shard: Shard) -> Iterator[LabelledImage]:
        planned = {image.id: image for image in shard.images}
        for row in read_shard(self.folder, self.fingerprint, shard):
            if row.id not in planned:
                raise FormatError(f"{self.folder}: {shard.key} has labels of {row.id}, which is not in its plan")
            yield LabelledImage(row, planned[row.id], self.run.provenance)

    def _derived(self, shard: Shard, change: Change) -> Iterator[LabelledRow]:
        changed = iter(change(image for image in self.shard_rows(shard) if image.ok))
        for image in self._stored(shard):
            if not image.ok or self.plan.is_gone(image.id):
                yield image.row
                continue
            result = next(changed, None)
            if result is None:
                raise InputError(f"too few results for {shard.key}; give one for every image")
            yield LabelledRow.of(image.planned, result)
        if next(changed, None) is not None:
            raise InputError(f"too many results for {shard.key}; give one for every image")

    def _statuses(self, shard: Shard) -> list[str]:
        table = read_table(labels_file(self.folder, self.fingerprint, shard), ["id", "status"])
        columns = zip(table["id"].to_pylist(), table["status"].to_pylist(), strict=True)
        return [status for identity, status in columns if not self.plan.is_gone(identity)]


def open_dataset(folder: StrPath, *, run: str | None = None) -> Dataset:
    """Open a labelled dataset for reading; a run that is still going on gives what it has so far.

    Args:
        folder: What ``rasa label`` wrote.
        run: Fingerprint of a run, or its first digits; the current one unless given.

    Raises:
        InputError: If the folder is no dataset, or has no such run.
        FormatError: If a file is damaged.
    """
    return Dataset(Path(folder), find_run(folder, run), load_plan(folder))

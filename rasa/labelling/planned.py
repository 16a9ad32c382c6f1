"""The plan of a dataset: its images by shard, read from the disk as they are needed."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rasa.errors import ImageError
from rasa.io.find import StrPath
from rasa.labelling.known import SHORT
from rasa.labelling.locators import Locator, locator_of
from rasa.labelling.moves import Moves, load_moves
from rasa.labelling.reading import read_bytes
from rasa.labelling.tables import PLAN_SCHEMA, parts_in, read_rows, row_count
from rasa.types import Failure


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image of the plan.

    Attributes:
        id: sha256 of its bytes, 64 hexadecimal digits; of its path where the bytes cannot be read.
        path: What the user calls it, printable.
        file_name: Name for exports: unique in the dataset, safe on every file system, without folders.
        bytes: Size of its file; 0 where it cannot be read.
        locator: Where to read it.
        error: Why it could not be read when it was planned; None if it could.
    """

    id: str
    path: str
    file_name: str
    bytes: int
    locator: Locator
    error: Failure | None = None

    def read(self) -> builtins.bytes:
        """The bytes that were planned.

        Raises:
            ImageError: If they cannot be read, or are others by now.
            DependencyError: If it is a video's frame and OpenCV is not installed.
        """
        if self.error is not None:
            raise ImageError(self.error.message)
        data = read_bytes(self.locator)
        if hashlib.sha256(data).hexdigest() != self.id:
            raise ImageError(f"{self.path!r} has changed since it was planned; label its source again")
        return data


@dataclass(frozen=True)
class Shard:
    """A part of the plan that is labelled as one.

    Attributes:
        index: Its number, from 0.
        file: Its part of the plan.
        moved: Where images are that are no longer where they were planned, by the first 32 digits of their ids.
    """

    index: int
    file: Path
    moved: Mapping[str, Locator] = field(default_factory=dict, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Its name in file names: ``"shard-000042"``."""
        return f"shard-{self.index:06d}"

    @cached_property
    def count(self) -> int:
        """Number of its images."""
        return row_count(self.file)

    @property
    def images(self) -> tuple[PlannedImage, ...]:
        """Its images, in order; read from the disk at every call, so that a plan of any size takes no memory."""
        return tuple(_planned_from(row, self.moved) for row in read_rows(self.file, PLAN_SCHEMA.names))


@dataclass(frozen=True)
class Plan:
    """All images of a dataset, by shard.

    Attributes:
        folder: The dataset.
        shards: In order.
        moves: What became of images whose files changed.
    """

    folder: Path
    shards: Sequence[Shard]
    moves: Moves = field(default_factory=Moves, repr=False)

    @property
    def count(self) -> int:
        """Number of distinct images, without those that are gone."""
        return sum(shard.count for shard in self.shards) - len(self.moves.gone)

    def is_gone(self, identity: str) -> bool:
        """Whether the file of an image holds another one by now."""
        return identity[: 2 * SHORT] in self.moves.gone

    def images(self) -> Iterator[PlannedImage]:
        """All images in order but those that are gone, one shard in memory at a time."""
        for shard in self.shards:
            yield from (image for image in shard.images if not self.is_gone(image.id))

    def duplicates(self) -> dict[str, list[str]]:
        """Id of each image that is there more than once, to all its paths, the planned one first."""
        more: dict[str, dict[str, None]] = {}
        for _, file in parts_in(self.folder / "plan", "places"):
            for row in read_rows(file, ["id", "path"]):
                more.setdefault(row["id"], {})[row["path"]] = None
        found = {}
        for shard in self.shards if more else ():
            for row in read_rows(shard.file, ["id", "path"]):
                if row["id"] in more:
                    paths = list(dict.fromkeys([row["path"], *more[row["id"]]]))
                    if len(paths) > 1:
                        found[row["id"]] = paths
        return found


def load_plan(dataset_folder: StrPath) -> Plan:
    """The plan of a dataset as far as it is made; none gives a plan without shards."""
    folder = Path(dataset_folder)
    moves = load_moves(folder / "plan")
    shards = (Shard(index, file, moves.places) for index, file in parts_in(folder / "plan", "shard"))
    return Plan(folder, tuple(shards), moves)


def _planned_from(row: Mapping[str, Any], moved: Mapping[str, Locator]) -> PlannedImage:
    kind, message = row["error_kind"], row["error_message"]
    error = None if kind is None else Failure("read", kind, message)
    locator = moved.get(row["id"][: 2 * SHORT]) or locator_of(row)
    return PlannedImage(row["id"], row["path"], row["file_name"], row["bytes"], locator, error)

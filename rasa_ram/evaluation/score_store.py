"""Scores of a run on disk, chunk by chunk: a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rasa._files import write_atomically
from rasa.arrays import FloatArray
from rasa.errors import FormatError, OutputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark

# Images between two entries of the journal; a run that is killed loses at most as many.
CHUNK = 256


@runtime_checkable
class StampedImages(Protocol):
    """A reader of images that can tell, without decoding them, whether they are the same as before."""

    def describe(self) -> Mapping[str, Any]:
        """Where they are, as JSON values."""
        ...

    def stamp(self, images: Sequence[str]) -> str:
        """A word without spaces for the images of these names, another one whenever one of them has changed."""
        ...


class ScoreStore:
    """A table of scores, float32 ``(N, T)``, of one predictor on one benchmark.

    A chunk counts once the journal has its checksum and the stamp of its images; a chunk whose scores or images do
    not fit these is computed again.

    Args:
        folder: Of all runs; each has a folder of its own in it, called by what its scores depend on.
        benchmark: Gives the images and classes.
        description: What the predictor's answers depend on, as JSON values.
        images: What the images are read with; None where nothing tells whether they are the same.
        chunk: Images of a chunk.

    Raises:
        OutputError: If the folder cannot be written.
        FormatError: If the folder holds a table of another size, as after a change by hand.
    """

    def __init__(
        self,
        folder: Path,
        benchmark: Benchmark,
        *,
        description: Mapping[str, Any],
        images: StampedImages | None = None,
        chunk: int = CHUNK,
    ) -> None:
        place = None if images is None else dict(images.describe())
        told = json.dumps([benchmark.fingerprint, description, place, chunk], sort_keys=True, default=str)
        self.folder = folder / f"{benchmark.name}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
        self._shape, self._chunk = (len(benchmark.images), len(benchmark.classes)), chunk
        self._table, self._journal = self.folder / "scores.f32", self.folder / "done.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(self.folder / "run.json", text=True) as file:
                json.dump(
                    {"benchmark": benchmark.name, "predictor": description, "images": place},
                    file,
                    indent=1,
                    default=str,
                )
            self._reserve(4 * self._shape[0] * self._shape[1])
            self._scores = np.memmap(self._table, np.float32, "r+", shape=self._shape)
        except FormatError:
            raise
        except OSError as error:
            raise OutputError(f"cannot keep scores in {self.folder}: {error.strerror or error}") from error
        # Taken before any image is read: one that changes meanwhile has another stamp in the next run.
        rows = [self._rows(i) for i in range(-(-self._shape[0] // chunk))]
        self._stamps = ["-" if images is None else images.stamp(benchmark.images[part]) for part in rows]
        self.done = self._read_journal()

    @property
    def scores(self) -> FloatArray:
        """The table; rows of chunks that are not done mean nothing."""
        return self._scores

    def chunks(self) -> list[tuple[int, slice]]:
        """Numbers and rows of the chunks that are left."""
        return [(i, self._rows(i)) for i in range(len(self._stamps)) if i not in self.done]

    def put(self, number: int, scores: FloatArray) -> None:
        """Keep the scores of a chunk, on the disk before the journal says so.

        A chunk with an image without scores is not done: the next run tries that image again.

        Raises:
            OutputError: If the disk is full or the folder gone.
        """
        rows = self._rows(number)
        try:
            self._scores[rows] = scores
            self._scores.flush()
            if np.isnan(scores).any():
                return
            with self._journal.open("a", encoding="ascii") as file:
                file.write(f"{self._entry(number)}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot keep scores in {self.folder}: {error.strerror or error}") from error
        self.done.add(number)

    def _reserve(self, size: int) -> None:
        if not self._table.exists():
            with self._table.open("xb") as file:
                file.truncate(size)
        if self._table.stat().st_size != size:
            raise FormatError(f"{self._table} must have {size} bytes; delete {self.folder} and run again")

    def _rows(self, number: int) -> slice:
        return slice(number * self._chunk, min((number + 1) * self._chunk, self._shape[0]))

    def _entry(self, number: int) -> str:
        checksum = zlib.crc32(self._scores[self._rows(number)].tobytes())
        return f"{number} {checksum} {self._stamps[number]}"

    def _read_journal(self) -> set[int]:
        """Chunks that are there whole; a line that was torn by the kill counts for nothing."""
        done: set[int] = set()
        if not self._journal.exists():
            return done
        # A line without its end is the one that the kill tore.
        text = self._journal.read_text(encoding="ascii", errors="replace")
        for line in text.split("\n")[:-1]:
            number = line.partition(" ")[0]
            known = number.isdecimal() and int(number) < len(self._stamps)
            if known and line == self._entry(int(number)):
                done.add(int(number))
        if text and not text.endswith("\n"):
            with self._journal.open("a", encoding="ascii") as file:
                file.write("\n")
        return done

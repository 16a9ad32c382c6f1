"""The data engine's second half: tags that do not fit the regions they name are dropped.

A detector crops the regions of each tag. Per tag, K-Means++ clusters the vectors of its regions, and the images that
lie farthest from their centre lose the tag; so do those on whose regions the tagger does not see it.

Source:
    Zhang et al., "Recognize Anything", arXiv:2306.03514, section 3: Grounding DINO for 534 categories, an outlier
    share of 10 %; cleaning took the tags of 4M images from 41.7M to 39.8M. Neither the categories, the number of
    clusters, the features nor the thresholds are stated; those used here are kept in the journals beside the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rasa.arrays import FloatArray, IntArray
from rasa.errors import InputError
from rasa.protocols import Detector, Tagger
from rasa.types import Failure
from rasa_ram.data.records import Record
from rasa_ram.engine.clean_outliers import Decision, TagPiece, decide, pieces_of, read_decision, write_decision
from rasa_ram.engine.clean_regions import (
    RegionFinder,
    is_found,
    read_columns,
    read_header,
    read_kept_records,
    regions_file,
    tag_spans,
    write_regions,
)
from rasa_ram.engine.clean_settings import CleanSettings
from rasa_ram.engine.journal import SHARD_RECORDS, Journal, RecordShard, shards_of
from rasa_ram.engine.provenance import BOTH, NOT_FOUND, OUTLIER, UNCONFIRMED, UNSEEN, TagNote
from rasa_ram.engine.region_models import Embedder, own_thresholds
from rasa_ram.images import ImageReader

__all__ = ["CleanRun", "CleanSettings", "Cleaned", "clean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A record after cleaning.

    Attributes:
        before: As it was.
        record: Without the tags that were dropped; captions and what they say stay.
        notes: Why it lost which tag, and which tags the detector found nothing of.
        failure: Why the image could not be read; the record is as it was then.
    """

    before: Record
    record: Record
    notes: tuple[TagNote, ...]
    failure: Failure | None = None


def clean(
    records: Iterable[Record],
    *,
    images: ImageReader,
    detector: Detector,
    tagger: Tagger,
    embedder: Embedder,
    settings: CleanSettings,
) -> Iterator[Record]:
    """Drop the tags of records that do not fit their regions.

    All records are read before the first comes out; regions wait in a temporary folder meanwhile. For work that can
    be interrupted, with a report, see :func:`rasa_ram.engine.runs.clean_into`.

    Args:
        records: Any number.
        images: A record's ``image_path`` to its image.
        detector: Is asked for the tags of an image that are categories.
        tagger: Scores each region.
        embedder: Gives each region a vector.
        settings: See :class:`CleanSettings`.

    Raises:
        ContractError: If a model does not answer as its role says.
        OutputError: If the temporary folder is full.
    """
    with TemporaryDirectory(prefix="rasa-clean-") as folder:
        run = CleanRun(RegionFinder(images, detector, tagger, embedder, settings), Path(folder))
        run.find(records)
        run.decide()
        for done in run.results():
            yield done.record


class CleanRun:
    """Cleaning in a folder: each step goes on where it was interrupted, and processes may share it.

    ``regions`` holds the records and regions of each shard, ``decisions/KEY`` a file for each tag; KEY changes with
    the settings that decide, so that other thresholds do not need the detector again.

    Args:
        finder: Models and settings.
        folder: Made if it is not there.
        shard_size: Records of a shard.

    Raises:
        InputError: If the folder holds regions that were found with other models or settings.
        OutputError: If it cannot be written.
    """

    def __init__(self, finder: RegionFinder, folder: Path, *, shard_size: int = SHARD_RECORDS) -> None:
        self._finder, self._folder, self._shard_size = finder, folder, shard_size
        settings = {**finder.describe(), "shard_size": shard_size}
        self._regions = Journal(folder / "regions", settings)
        self._digests: list[str] = []
        self._decided: Journal | None = None

    @property
    def journal(self) -> Journal:
        """That of the regions."""
        return self._regions

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides the result, as JSON values."""
        finder = self._finder
        names = [finder.settings.names[tag] for tag in sorted(finder.settings.asked)]
        thresholds: dict[str, float] = dict.fromkeys(names, finder.settings.confirm_threshold or 0.0)
        if finder.settings.confirm_threshold is None:
            thresholds = own_thresholds(finder.tagger, names)
        decisions = {**finder.settings.of_decisions(), "confirm_thresholds": thresholds}
        return {"regions": self._regions.settings, "decisions": decisions}

    def find(
        self,
        records: Iterable[Record],
        *,
        progress: Callable[[int], None] | None = None,
        retry_failed: bool = False,
    ) -> None:
        """Find the regions of all records.

        Args:
            records: Streamed once.
            progress: Told the number of records of each shard.
            retry_failed: Whether finished shards are done again in which images could not be read.

        Raises:
            InputError: If a shard was made of other records before.
            ContractError: If a model does not answer as its role says.
            OutputError: If the regions cannot be written.
        """
        folder = self._regions.folder

        def read() -> Iterator[RecordShard]:
            self._digests = []
            for shard in shards_of(records, self._shard_size):
                self._digests.append(shard.digest)
                yield shard

        self._regions.work_off(
            read(),
            is_done=lambda shard: is_found(folder, shard, retry_failed=retry_failed),
            do=lambda shard: write_regions(folder, shard, self._finder(shard.records)),
            progress=None if progress is None else lambda shard: progress(len(shard.records)),
        )

    def decide(self) -> None:
        """Decide tag by tag; only the regions of one are in memory.

        Raises:
            FormatError: If a file of regions is damaged.
            OutputError: If a decision cannot be written.
        """
        settings = {"decisions": self.settings["decisions"], "regions": self._state()}
        journal = self._decided = Journal(self._folder / "decisions" / _hash(settings)[:16], settings)
        thresholds = settings["decisions"]["confirm_thresholds"]
        options = self._finder.settings

        def path(piece: TagPiece) -> Path:
            return journal.path(f"{piece.key}.safetensors")

        def work(piece: TagPiece) -> None:
            decision = decide(piece, options, threshold=thresholds[options.names[piece.tag]])
            write_decision(path(piece), decision)

        journal.work_off(self._pieces(), is_done=lambda piece: path(piece).exists(), do=work)

    def results(self) -> Iterator[Cleaned]:
        """Every record with what became of its tags, in the order of the input.

        What is in memory is a shard of records, and 27 bytes for each tag that an image loses.

        Raises:
            InputError: If nothing was decided yet.
            FormatError: If a file is damaged.
        """
        if self._decided is None:
            raise InputError("find and decide first; there are no decisions yet")
        losses = _Losses([read_decision(path) for path in sorted(self._decided.folder.glob("tag-*.safetensors"))])
        for index in range(len(self._digests)):
            yield from self._shard_results(index, losses)

    def _state(self) -> str:
        """Changes with the records, and with the images that could not be read."""
        files = [regions_file(self._regions.folder, index) for index in range(len(self._digests))]
        return _hash([read_header(path) for path in files])

    def _pieces(self) -> list[TagPiece]:
        files = [(index, regions_file(self._regions.folder, index)) for index in range(len(self._digests))]
        return pieces_of([(index, path, tag, rows) for index, path in files for tag, rows in tag_spans(path)])

    def _shard_results(self, index: int, losses: _Losses) -> Iterator[Cleaned]:
        folder = self._regions.folder
        path = regions_file(folder, index)
        failures = {at: Failure(*rest) for at, *rest in read_header(path)["failures"]}
        tags, records = read_columns(path, ["tags", "records"])
        found = set(zip(records.tolist(), tags.tolist(), strict=True))
        for at, record in enumerate(read_kept_records(folder, index)):
            if at in failures:
                yield Cleaned(before=record, record=record, notes=(), failure=failures[at])
                continue
            notes = losses.of(index, at)
            missing = [tag for tag in self._finder.asked_of(record) if (at, tag) not in found]
            word = NOT_FOUND if self._finder.settings.missing == "drop" else UNSEEN
            yield _without(record, (*notes, *(TagNote(tag, word) for tag in missing)))


class _Losses:
    """The decisions of all tags, by image."""

    def __init__(self, decisions: list[Decision]) -> None:
        def joined(name: str, dtype: type) -> Any:
            return np.concatenate([np.zeros(0, dtype), *(getattr(decision, name) for decision in decisions)])

        images, scores, distances = (
            joined("images", np.int64),
            joined("scores", np.float32),
            joined("distances", np.float32),
        )
        self._tags = np.repeat(
            np.array([decision.tag for decision in decisions], np.int32),
            np.array([len(decision.images) for decision in decisions], np.int64),
        )
        reasons = joined("outlier", np.bool_).astype(np.uint8) + 2 * joined("unconfirmed", np.bool_).astype(np.uint8)
        order = np.argsort(images, kind="stable")  # of one image by tag, as the decisions are
        self._images: IntArray = images[order]
        self._tags, self._reasons = self._tags[order], reasons[order]
        self._scores: FloatArray = scores[order]
        self._distances: FloatArray = distances[order]

    def of(self, shard: int, record: int) -> tuple[TagNote, ...]:
        key = (shard << 32) + record
        first, last = np.searchsorted(self._images, [key, key + 1])
        words = {1: OUTLIER, 2: UNCONFIRMED, 3: BOTH}
        return tuple(
            TagNote(
                int(self._tags[i]), words[int(self._reasons[i])], _known(self._scores[i]), _known(self._distances[i])
            )
            for i in range(first, last)
        )


def _without(record: Record, notes: tuple[TagNote, ...]) -> Cleaned:
    dropped = {note.tag for note in notes if note.what != UNSEEN}
    kept = tuple(tag for tag in record.known_ids if tag not in dropped)
    cleaned = replace(record, tag_ids=kept) if dropped else record
    return Cleaned(before=record, record=cleaned, notes=notes)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()

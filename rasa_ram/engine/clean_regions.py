"""First pass of cleaning: the regions of each tag, with a vector and the tagger's score, one file a shard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rasa._files import write_atomically
from rasa.arrays import FloatArray, IntArray
from rasa.errors import ContractError, FormatError
from rasa.protocols import Detector, Tagger
from rasa.types import Failure, Image, Instances
from rasa_ram.data.records import Record
from rasa_ram.engine.clean_settings import CleanSettings
from rasa_ram.engine.journal import RecordShard, check_digest, record_from_plain, record_to_plain
from rasa_ram.engine.provenance import identity
from rasa_ram.engine.reading import Batch, read_batches
from rasa_ram.engine.region_models import Embedder, region_scores, unit_vectors
from rasa_ram.images import ImageReader


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Regions of some records, as parallel arrays, by tag and then by record.

    Attributes:
        tags: int32 ``(R,)``, ids.
        records: int32 ``(R,)``, positions in the shard.
        boxes: float32 ``(R, 4)``, xyxy in pixels of the image.
        detections: float32 ``(R,)`` in [0, 1], the detector's scores.
        scores: float32 ``(R,)`` in [0, 1], the tagger's for the tag on the region; NaN where it does not know the tag.
        vectors: float16 ``(R, C)``, of length 1.
        failures: Position of a record to why its image could not be read.
    """

    tags: IntArray
    records: IntArray
    boxes: FloatArray
    detections: FloatArray
    scores: FloatArray
    vectors: FloatArray
    failures: Mapping[int, Failure]


@dataclass(frozen=True)
class RegionFinder:
    """Cuts out what the detector finds of each tag, and asks the tagger and the embedder about it.

    Attributes:
        images: Reads the image of a record.
        detector: Is asked for the tags of an image that are categories.
        tagger: Scores each region.
        embedder: Gives each region a vector.
        settings: Which regions count.
    """

    images: ImageReader
    detector: Detector
    tagger: Tagger
    embedder: Embedder
    settings: CleanSettings

    def describe(self) -> Mapping[str, Any]:
        """JSON values that decide what comes out."""
        models = {"detector": self.detector, "tagger": self.tagger, "embedder": self.embedder}
        return {
            "step": "regions",
            **{role: identity(model) for role, model in models.items()},
            **self.settings.of_regions(),
        }

    def __call__(self, records: Sequence[Record]) -> Regions:
        """The regions of some records.

        Raises:
            ContractError: If a model does not answer as its role says.
        """
        sizes = {"batch_size": self.settings.batch_size, "readers": self.settings.readers}
        rows: list[tuple[int, int, FloatArray, float, float, FloatArray]] = []
        failures: dict[int, Failure] = {}
        start = 0
        for batch in read_batches(records, self.images, **sizes):
            failures |= {start + i: image for i, (_, image) in enumerate(batch) if isinstance(image, Failure)}
            rows += self._batch(batch, start)
            start += len(batch)
        rows.sort(key=lambda row: row[:2])  # stable: best region of a tag first
        return _as_regions(rows, failures)

    def _batch(self, batch: Batch, start: int) -> list[tuple[int, int, FloatArray, float, float, FloatArray]]:
        asked = [
            (start + i, image, tags)
            for i, (record, image) in enumerate(batch)
            if isinstance(image, Image) and (tags := self.asked_of(record))
        ]
        if not asked:
            return []
        names = self.settings.names
        prompts = [list(dict.fromkeys(names[tag] for tag in tags)) for _, _, tags in asked]
        found = self.detector.detect([image for _, image, _ in asked], prompts)
        if len(found) != len(asked):
            raise ContractError(f"the detector must give one answer for each of {len(asked)} images, got {len(found)}")
        regions = [
            (tag, number, image, box, score)
            for (number, image, tags), instances in zip(asked, found, strict=True)
            for tag in tags
            for box, score in self._usable(image, instances, names[tag])
        ]
        crops = [_cut(image, box) for _, _, image, box, _ in regions]
        if not crops:
            return []
        vectors = unit_vectors(self.embedder, crops)
        scores = region_scores(self.tagger, crops, [names[region[0]] for region in regions])
        return [
            (tag, number, box, detection, float(score), vector)
            for (tag, number, _, box, detection), score, vector in zip(regions, scores, vectors, strict=True)
        ]

    def asked_of(self, record: Record) -> list[int]:
        """The tags of a record that the detector is asked for."""
        return [tag for tag in dict.fromkeys(record.known_ids) if tag in self._asked]

    @cached_property
    def _asked(self) -> frozenset[int]:
        return self.settings.asked

    def _usable(self, image: Image, found: Instances, label: str) -> list[tuple[FloatArray, float]]:
        height, width = image.size
        kept = []
        for i in np.argsort(-found.scores, kind="stable"):
            box = np.clip(found.boxes[i], 0, np.array([width, height, width, height], np.float32))
            is_large = min(box[2] - box[0], box[3] - box[1]) >= self.settings.min_side
            if found.labels[i] == label and found.scores[i] >= self.settings.box_threshold and is_large:
                kept.append((box, float(found.scores[i])))
        return kept[: self.settings.max_regions]


def write_regions(folder: Path, shard: RecordShard, regions: Regions) -> None:
    """Keep the records and the regions of a shard; the regions come last, and say that it is done.

    Raises:
        OutputError: If they cannot be written.
    """
    with write_atomically(records_file(folder, shard.index), text=True, sync=True) as file:
        file.writelines(json.dumps(record_to_plain(record)) + "\n" for record in shard.records)
    arrays = {
        "tags": regions.tags, "records": regions.records, "boxes": regions.boxes, "detections": regions.detections,
        "scores": regions.scores, "vectors": regions.vectors,
    }  # fmt: skip
    failures = [[at, failure.stage, failure.kind, failure.message] for at, failure in sorted(regions.failures.items())]
    # One key alone: safetensors writes several in any order, and equal work must give equal bytes.
    metadata = {"shard": json.dumps({"digest": shard.digest, "failures": failures})}
    with write_atomically(regions_file(folder, shard.index), sync=True) as file:
        file.write(save(arrays, metadata))


def is_found(folder: Path, shard: RecordShard, *, retry_failed: bool = False) -> bool:
    """Whether the regions of a shard are there; with ``retry_failed``, of all its images.

    Raises:
        InputError: If they are of other records.
        FormatError: If the file is damaged.
    """
    path = regions_file(folder, shard.index)
    if not path.exists():
        return False
    header = read_header(path)
    return check_digest(header["digest"], shard, path) and not (retry_failed and header["failures"])


def records_file(folder: Path, index: int) -> Path:
    """Where the records of a shard are."""
    return folder / f"shard-{index:06d}.jsonl"


def regions_file(folder: Path, index: int) -> Path:
    """Where the regions of a shard are."""
    return folder / f"shard-{index:06d}.safetensors"


def read_kept_records(folder: Path, index: int) -> list[Record]:
    """The records of a shard, as they were given.

    Raises:
        FormatError: If the file is missing or damaged.
    """
    path = records_file(folder, index)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [record_from_plain(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: no readable records: {error}; delete the folder and clean again") from error


def read_header(path: Path) -> Mapping[str, Any]:
    """``digest`` and ``failures`` of a file of regions.

    Raises:
        FormatError: If it is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            header: dict[str, Any] = json.loads(file.metadata()["shard"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise FormatError(f"{path}: no readable regions: {error}; delete it and clean again") from error
    return header


def read_columns(path: Path, names: Sequence[str], rows: slice | None = None) -> list[Any]:
    """Some arrays of :class:`Regions` from a file, whole or some rows of them; only these are read.

    Raises:
        FormatError: If it is damaged.
    """
    span = slice(None) if rows is None else rows
    try:
        with safe_open(path, "numpy") as file:
            return [file.get_slice(name)[span] if rows is not None else file.get_tensor(name) for name in names]
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"{path}: no readable regions: {error}; delete it and clean again") from error


def tag_spans(path: Path) -> Iterator[tuple[int, slice]]:
    """Each tag of a file of regions, and the rows that are its own."""
    tags = read_columns(path, ["tags"])[0]
    values, starts = np.unique(tags, return_index=True)
    ends = np.append(starts[1:], len(tags))
    yield from zip(values.tolist(), map(slice, starts.tolist(), ends.tolist()), strict=True)


def _as_regions(rows: Sequence[tuple[Any, ...]], failures: Mapping[int, Failure]) -> Regions:
    tags, records, boxes, detections, scores, vectors = zip(*rows, strict=True) if rows else ((),) * 6
    return Regions(
        np.array(tags, np.int32),
        np.array(records, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(detections, np.float32),
        np.array(scores, np.float32),
        np.array(vectors, np.float16).reshape(len(rows), -1 if rows else 0),  # type: ignore[arg-type]
        failures,
    )


def _cut(image: Image, box: FloatArray) -> Image:
    """The pixels that a box touches; it lies in the image and has an area."""
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    return Image(np.ascontiguousarray(image.pixels[top:bottom, left:right]), name=image.name)

"""The check of a manifest: every record that is broken, and what the good ones hold."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rasa.errors import ImageError, InputError
from rasa.io.images import MAX_PIXELS, image_size
from rasa_ram.data.manifest import read_records
from rasa_ram.data.manifest_faults import Fault, ReadReport, RowError
from rasa_ram.data.manifest_rows import MAX_CAPTION_BYTES
from rasa_ram.data.records import Record
from rasa_ram.data.shards import read_shard
from rasa_ram.data.shards_images import image_file


@dataclass(slots=True)
class CheckReport:
    """What a manifest holds.

    Attributes:
        reading: Counts of good and bad records, faults by kind, and the first few of each.
        captions: Captions of the records that could be read.
        tagged: Records that say which tags the image has, be it none.
        tags: Known tags of all images.
        most_tags: Of one image.
    """

    reading: ReadReport
    captions: int = 0
    tagged: int = 0
    tags: int = 0
    most_tags: int = 0

    @property
    def ok(self) -> bool:
        """Whether no record is bad and no caption; else reading stops there, unless told to skip."""
        return not self.reading.bad and not self.reading.captions_left_out

    def add(self, record: Record) -> None:
        """Count a good record."""
        known = len(record.known_ids)
        self.captions += len(record.captions)
        self.tagged += bool(known or record.tag_ids is not None)
        self.tags += known
        self.most_tags = max(self.most_tags, known)


def check_records(
    path: Path,
    *,
    images: Path | None = None,
    vocabulary_size: int | None = None,
    max_caption_bytes: int = MAX_CAPTION_BYTES,
    on_fault: Callable[[Fault], None] | None = None,
) -> CheckReport:
    """Read a manifest or a shard to its end and tell every broken record and caption; in bounded memory.

    Args:
        path: ``.json``, ``.jsonl``, ``.parquet`` or ``.tar``.
        images: Folder of the images. The header of each is opened then: it must be there, be of a format that
            training reads, and state a size within :data:`rasa.io.images.MAX_PIXELS`. A path that leads
            out of the folder is noted, and followed as training does.
        vocabulary_size: T; ids must be below it. None checks them not.
        max_caption_bytes: Longest caption, in bytes of UTF-8.
        on_fault: Called with every fault, as they come.

    Raises:
        InputError: If the file cannot be read or its ending is another, or there is no folder ``images``.
    """
    if images is not None and not Path(images).is_dir():
        raise InputError(f"there is no folder {images}; give the one that image_path is relative to")
    reading = ReadReport(on_fault=on_fault)
    report = CheckReport(reading)
    limits = {"vocabulary_size": vocabulary_size, "max_caption_bytes": max_caption_bytes}
    for record, data in _records(Path(path), reading, limits):
        number = reading.records + reading.bad - 1
        try:
            if data is not None:
                check_header(io.BytesIO(data))
            elif images is not None:
                _check_file(record, Path(images))
        except RowError as error:
            noted = error.kind == "outside-folder"
            fault = Fault(
                kind=error.kind, source=str(path), number=number, image=record.image_path, why=str(error), mended=noted
            )
            reading.records -= not noted
            reading.add(fault)
            if not noted:
                continue
        report.add(record)
    return report


def check_header(file: IO[bytes], *, name: str = "image", max_pixels: int = MAX_PIXELS) -> None:
    """Read the header of an image as training would.

    Raises:
        RowError: If training would refuse the format or the size, or the header is broken.
    """
    try:
        image_size(file, name=name, max_pixels=max_pixels)
    except ImageError as error:
        raise RowError("broken-image", str(error)) from error


def _check_file(record: Record, folder: Path) -> None:
    outside: RowError | None = None
    try:
        path = image_file(record, folder)
    except RowError as error:
        if error.kind != "outside-folder":
            raise
        outside, path = error, folder / record.image_path
    try:
        if not path.is_file():
            raise RowError("missing-image", f"there is no image {path}")
        with path.open("rb") as file:
            check_header(file, name=str(path))
    except OSError as error:
        raise RowError("broken-image", f"cannot read {path}: {error.strerror}") from error
    if outside is not None:
        raise outside


def _records(path: Path, report: ReadReport, limits: Mapping[str, Any]) -> Iterator[tuple[Record, bytes | None]]:
    if path.suffix.lower() == ".tar":
        yield from read_shard(path, on_bad="skip", report=report, **limits)
    else:
        for record in read_records(path, on_bad="skip", report=report, **limits):
            yield record, None

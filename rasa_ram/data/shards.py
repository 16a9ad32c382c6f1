"""Records with their images in WebDataset shards: tar files that are read one after the other.

Members of a sample are next to each other and share a key: ``000000042.jpg``, then ``000000042.json`` with the
published keys. ``index.json`` lists the shards as WebDataset's ``wids`` does. Shards of others are read too: a
``.txt`` member is a caption where the JSON has none, and the name of the image member its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, InputError
from rasa.io.find import IMAGE_SUFFIXES
from rasa_ram.data.manifest_faults import OnBad, ReadReport, RowError
from rasa_ram.data.manifest_rows import MAX_CAPTION_BYTES, RowCheck
from rasa_ram.data.records import Record
from rasa_ram.data.shards_images import MAX_IMAGE_BYTES
from rasa_ram.data.shards_tar import BrokenTarError, Member, read_members

INDEX_NAME = "index.json"

_IMAGE_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of an index.

    Attributes:
        path: The tar file.
        records: How many it has.
        size: Bytes of the file.
    """

    path: Path
    records: int
    size: int


def read_shard(
    path: Path,
    *,
    on_bad: OnBad = "stop",
    vocabulary_size: int | None = None,
    max_caption_bytes: int = MAX_CAPTION_BYTES,
    max_image_bytes: int = MAX_IMAGE_BYTES,
    report: ReadReport | None = None,
) -> Iterator[tuple[Record, bytes]]:
    """Records of a shard with the bytes of their images, which are not decoded; one sample in memory at a time.

    Args:
        path: An uncompressed tar file; its content is not trusted.
        on_bad: ``"stop"`` at a sample that breaks the format, or ``"skip"`` and count it.
        vocabulary_size: T; ids must be below it. None checks them not.
        max_caption_bytes: Longest caption, in bytes of UTF-8.
        max_image_bytes: Longest image.
        report: Counts what was read and what was skipped.

    Raises:
        FormatError: At a bad sample or a broken tar, unless they are skipped.
        InputError: If the file cannot be read or a setting is out of range.
    """
    report = ReadReport() if report is None else report
    check = RowCheck(
        source=str(path), on_bad=on_bad, report=report,
        vocabulary_size=vocabulary_size, max_caption_bytes=max_caption_bytes,
    )  # fmt: skip
    number = 0
    try:
        with Path(path).open("rb") as file:
            for members in group_members(read_members(file, max_bytes=max_image_bytes)):
                pair = record_with_image(members, number, check)
                number += 1
                if pair is not None:
                    yield pair
    except BrokenTarError as error:
        check.fail(RowError("broken-file", f"{error}; {number} samples were read before"), number, error)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_shard_index(folder: Path) -> list[Shard]:
    """The shards that ``index.json`` of a folder lists.

    Raises:
        FormatError: If the index is malformed, or a shard is missing or of another size.
        InputError: If there is no index.
    """
    path = Path(folder) / INDEX_NAME
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["shardlist"]
        shards = [Shard(path.parent / Path(e["url"]).name, int(e["nsamples"]), int(e["filesize"])) for e in entries]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; is the writing of the shards complete?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is no index of shards ({error!r}); write the shards again") from error
    for shard in shards:
        size = shard.path.stat().st_size if shard.path.is_file() else None
        if size != shard.size:
            raise FormatError(f"{shard.path} has {size} bytes, its index says {shard.size}; write it again")
    return shards


def group_members(members: Iterator[Member]) -> Iterator[list[tuple[str, Member]]]:
    """Members in a row that share a key, each with its suffix; the sample before a broken place is still given."""
    sample: list[tuple[str, Member]] = []
    key: tuple[str, str] | None = None
    try:
        for member in members:
            folder, _, base = member.name.rpartition("/")
            stem, dot, suffix = base.partition(".")
            if not stem or not dot:
                continue  # hidden files, and files that belong to no sample
            if (folder, stem) != key and sample:
                yield sample
                sample = []
            key = (folder, stem)
            sample.append((suffix.lower(), member))
    except BrokenTarError:
        if _is_complete(sample):
            yield sample
        raise
    if sample:
        yield sample


def _is_complete(sample: list[tuple[str, Member]]) -> bool:
    suffixes = {suffix for suffix, _ in sample}
    return bool(suffixes & _IMAGE_SUFFIXES and suffixes & {"json", "txt"})


def record_with_image(members: list[tuple[str, Member]], number: int, check: RowCheck) -> tuple[Record, bytes] | None:
    """Record and image of one sample; None if it is bad and bad ones are skipped.

    Raises:
        FormatError: If it is bad and that stops the reading.
    """
    try:
        data, row = _parts_of(members)
    except RowError as error:
        check.fail(error, number, error.__cause__)
        return None
    record = check.record(row, number)
    return None if record is None else (record, data)


def _parts_of(members: list[tuple[str, Member]]) -> tuple[bytes, Any]:
    """Bytes of the image, and the row."""
    image = next((member for suffix, member in members if suffix.rpartition(".")[2] in _IMAGE_SUFFIXES), None)
    if image is None:
        raise RowError("missing-image", f"sample {members[0][1].name[:80]!r} has no image")
    if not image.data:
        raise RowError("broken-image", f"image has {image.size} bytes", image=image.name)
    return image.data, _row(dict(members), image.name)


def _row(parts: Mapping[str, Member], image: str) -> Any:
    row: Any = {}
    if "json" in parts:
        try:
            row = json.loads((parts["json"].data or b"").decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise RowError("broken-file", f"its JSON is broken: {error}", image=image) from error
    if isinstance(row, dict):
        row = row if isinstance(row.get("image_path"), str) else {**row, "image_path": image}
        if row.get("caption") is None and "txt" in parts:
            row["caption"] = (parts["txt"].data or b"").decode("utf-8", "surrogateescape").strip()
    return row

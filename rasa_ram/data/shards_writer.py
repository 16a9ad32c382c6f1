"""WebDataset shards, written from records and the files of their images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.errors import ImageError, InputError, RasaWarning
from rasa_ram.data.manifest_faults import OnBad, ReadReport, RowError
from rasa_ram.data.manifest_rows import RowCheck
from rasa_ram.data.published_json import line_of
from rasa_ram.data.records import Record
from rasa_ram.data.shards import INDEX_NAME, Shard
from rasa_ram.data.shards_images import image_suffix

RECORDS_PER_SHARD = 5_000  # about 1 GB of photos of 200 kB, which streams well

_PREFIX = "records"


def write_shards(
    records: Iterable[Record],
    folder: Path,
    *,
    read_image: Callable[[Record], bytes],
    per_shard: int = RECORDS_PER_SHARD,
    on_bad: OnBad = "stop",
    report: ReadReport | None = None,
) -> list[Shard]:
    """Write records with their images as ``folder/records-NNNNNN.tar`` and an index; the same give the same bytes.

    A run that was interrupted goes on when it is started again with the same records: shards that are there are kept.
    One from which records were skipped is written again if ``on_bad`` is ``"stop"`` now, or one of those can be read.
    Shard k always has what is good of records ``k * per_shard`` and following.

    Args:
        records: May be a stream; those of one shard are in memory at a time, and one image.
        folder: Made if it is not there.
        read_image: The bytes of a record's image, stored as they are; see
            :func:`rasa_ram.data.shards_images.read_images_from`.
        per_shard: Records of a shard.
        on_bad: ``"stop"`` at an image that cannot be read, or ``"skip"`` the record and count it.
        report: Counts what was written and what was skipped, also by the run that was interrupted.

    Raises:
        FormatError: If an image cannot be read, unless such are skipped.
        InputError: If ``per_shard`` is not positive, or ``on_bad`` is none of the two.
        OutputError: If the folder cannot be written.
    """
    if per_shard < 1:
        raise InputError(f"per_shard must be at least 1, got {per_shard}")
    report = ReadReport() if report is None else report
    check = RowCheck(source=str(folder), on_bad=on_bad, report=report)
    writer, left, shards = _Writer(Path(folder), read_image, check), iter(records), []
    for number in count():
        part = list(islice(left, per_shard))
        if not part:
            break
        shards.append(writer.shard(part, number, number * per_shard))
    entries = [{"url": shard.path.name, "nsamples": shard.records, "filesize": shard.size} for shard in shards]
    with write_atomically(Path(folder) / INDEX_NAME, text=True, make_folder=True) as file:
        json.dump({"wids_version": 1, "shardlist": entries}, file, indent=1)
    _warn_of_strangers(Path(folder), shards)
    return shards


@dataclass(frozen=True, slots=True)
class _Writer:
    folder: Path
    read_image: Callable[[Record], bytes]
    check: RowCheck

    def shard(self, records: Sequence[Record], number: int, first: int) -> Shard:
        """Shard ``number``, whose first record is number ``first`` of all; kept if it is there."""
        path = self.folder / f"{_PREFIX}-{number:06d}.tar"
        digest = hashlib.sha256("\n".join([str(first), *map(line_of, records)]).encode()).hexdigest()
        state = _state_of(path)
        if state.get("records_sha256") != digest or self._can_be_mended(state, records):
            state = {"records_sha256": digest, **self._write(records, path, first)}
            with write_atomically(path.with_suffix(".json"), text=True) as file:
                json.dump(state, file)
        else:
            report, kept = self.check.report, int(state["records"])
            report.counts.update(state["faults"])
            report.records, report.bad = report.records + kept, report.bad + len(records) - kept
        return Shard(path, int(state["records"]), int(state["bytes"]))

    def _can_be_mended(self, state: dict[str, Any], records: Sequence[Record]) -> bool:
        """Whether a shard lacks records that it may have now."""
        if not state["faults"] or self.check.on_bad == "stop":
            return bool(state["faults"])
        # Shards of before this list was kept are written again.
        return "skipped" not in state or any(self._is_readable(records[i]) for i in state["skipped"])

    def _is_readable(self, record: Record) -> bool:
        try:
            self._image(record)
        except (RowError, ImageError):
            return False
        return True

    def _image(self, record: Record) -> tuple[str, bytes]:
        """Ending and bytes of a record's image."""
        data = self.read_image(record)
        return image_suffix(data, name=record.image_path), data

    def _write(self, records: Sequence[Record], path: Path, first: int) -> dict[str, Any]:
        report = self.check.report
        faults, skipped = report.counts.copy(), []
        with (
            write_atomically(path, make_folder=True) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for i, record in enumerate(records):
                if not self._add(tar, record, first + i):
                    skipped.append(i)
        return {
            "records": len(records) - len(skipped), "bytes": path.stat().st_size,
            "faults": report.counts - faults, "skipped": skipped,
        }  # fmt: skip

    def _add(self, tar: tarfile.TarFile, record: Record, number: int) -> bool:
        """Write a record; False if it is skipped."""
        try:
            suffix, data = self._image(record)
        except (RowError, ImageError) as error:
            kind = error.kind if isinstance(error, RowError) else "broken-image"
            self.check.fail(RowError(kind, str(error), image=record.image_path), number, error)
            return False
        for end, content in ((suffix, data), ("json", line_of(record).encode())):
            # A new header has no owner and the time 0: nothing of this machine is in it.
            header = tarfile.TarInfo(f"{number:09d}.{end}")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        self.check.report.records += 1
        return True


def _state_of(path: Path) -> dict[str, Any]:
    """What is noted beside a shard that is whole."""
    try:
        state: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return state if state["bytes"] == path.stat().st_size else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _warn_of_strangers(folder: Path, shards: Sequence[Shard]) -> None:
    others = {path.name for path in folder.glob(f"{_PREFIX}-*.tar")} - {shard.path.name for shard in shards}
    if others:
        warnings.warn(
            f"{folder} has {len(others)} shards that its index does not list, such as {min(others)}; delete them",
            RasaWarning, stacklevel=3,
        )  # fmt: skip

"""WebDataset: tar files with a photo and a JSON file for each sample, read one after the other.

Shards are ``train-000000.tar`` and so on. The members of a sample are next to each other and share a key, nine digits:
``000000042.jpg`` and ``000000042.json``. The JSON has ``id``, ``file_name``, ``split``, ``category`` (the class ids of
the instances, positions in ``classes.json``) and ``result``, as :meth:`rasa.Result.to_dict` gives it.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rasa.errors import FormatError, ImageError, InputError
from rasa.formats._class_ids import class_ids, id_of, write_class_names
from rasa.formats._folder import image_bytes, new_folder, samples_to_write
from rasa.formats._objects import check_mask_bytes, checked_size
from rasa.formats.samples import SPLITS, Sample, Split, WriteReport
from rasa.io._decode import MAX_FILE_BYTES
from rasa.types import Result

MAX_SHARD_BYTES = 2**30
"""Size of a shard that is not exceeded unless by a single sample; shards of about 1 GB stream well."""

_MAX_JSON_BYTES = 256 * 2**20
_SUFFIX = re.compile(r"[a-z0-9]{1,8}")
_HEADER, _BLOCK = 512, 512  # bytes, POSIX ustar


def write_webdataset(
    folder: Path, samples: Iterable[Sample], *, classes: Sequence[str], max_shard_bytes: int = MAX_SHARD_BYTES
) -> WriteReport:
    """Write ``folder/SPLIT-NNNNNN.tar``; the same samples give the same bytes.

    Args:
        folder: Absent or empty.
        samples: May be a stream; one of them is in memory at a time.
        classes: All class names; ids are positions.
        max_shard_bytes: A sample that would make a shard longer begins the next one.

    Raises:
        InputError: If a label is not among ``classes``, or ``max_shard_bytes`` is not positive.
        OutputError: If the folder is not empty or cannot be written.
    """
    if max_shard_bytes < 1:
        raise InputError(f"max_shard_bytes must be at least 1, got {max_shard_bytes}")
    report, known = WriteReport(), class_ids(classes)
    with new_folder(folder) as part, ExitStack() as stack:
        write_class_names(part, classes)
        shards = {split: _Shards(part, split, max_shard_bytes) for split in SPLITS}
        for writer in shards.values():
            stack.callback(writer.close)
        for sample in samples_to_write(samples, report):
            report.objects += len(sample.result.instances)
            shards[sample.split].add(_members(sample, known, report))
    return report


def read_webdataset(folder: Path) -> Iterator[Sample]:
    """Read what :func:`write_webdataset` wrote, shard by shard; images are read when they are asked for.

    Raises:
        FormatError: If a shard is damaged or a sample malformed; the message names shard and member.
        InputError: If a shard cannot be read, or there is none.
    """
    found = 0
    for split in SPLITS:
        for path in sorted(Path(folder).glob(f"{split}-*.tar")):
            found += 1
            yield from _read_shard(path)
    if not found:
        raise InputError(f"{folder} has no shards such as train-000000.tar; is this the right folder?")


class _Shards:
    """The shards of one part of a dataset, one after the other."""

    def __init__(self, folder: Path, split: Split, max_bytes: int) -> None:
        self._folder, self._split, self._max_bytes = folder, split, max_bytes
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._shards = self._samples = self._bytes = 0

    def add(self, members: Mapping[str, bytes]) -> None:
        size = sum(_HEADER + -(-len(data) // _BLOCK) * _BLOCK for data in members.values())
        tar = self._tar
        if tar is None or (self._bytes and self._bytes + size > self._max_bytes):
            tar = self._next()
        for suffix, data in members.items():
            # A new header has no owner and the time 0: nothing of this machine is in it.
            header = tarfile.TarInfo(f"{self._samples:09d}.{suffix}")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        self._samples += 1
        self._bytes += size

    def _next(self) -> tarfile.TarFile:
        self.close()
        path = self._folder / f"{self._split}-{self._shards:06d}.tar"
        tar = tarfile.open(path, "x", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  (closed by the stack)
        self._tar = self._stack.enter_context(tar)
        self._shards, self._bytes = self._shards + 1, 0
        return tar

    def close(self) -> None:
        self._stack.close()
        self._tar = None


def _members(sample: Sample, known: Mapping[str, int], report: WriteReport) -> Mapping[str, bytes]:
    """Suffix to bytes; the photo first, as readers expect it."""
    # Times and provenance differ from run to run, and belong to the run.
    result = replace(sample.result, timings={}, provenance={})
    label = {
        "id": sample.id,
        "file_name": sample.file_name,
        "split": sample.split,
        "category": [id_of(name, known, sample) for name in result.instances.labels],
        "result": result.to_dict(),
    }
    text = json.dumps(label, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    data = image_bytes(sample, report=report)
    return {"json": text} if data is None else {_suffix(sample.file_name): data, "json": text}


def _suffix(file_name: str) -> str:
    own = Path(file_name).suffix[1:].lower()
    return own if _SUFFIX.fullmatch(own) and own != "json" else "bin"


def _read_shard(path: Path) -> Iterator[Sample]:
    try:
        with tarfile.open(path, "r:") as tar:
            photo: tarfile.TarInfo | None = None
            while (member := tar.next()) is not None:
                cast("Any", tar).members.clear()  # tarfile keeps all headers otherwise
                if not member.isreg() or member.issparse():
                    raise FormatError(f"{path}: {member.name!r} is no plain file")
                if not member.name.endswith(".json"):
                    photo = member
                    continue
                yield _sample(path, tar, member, photo)
                photo = None
    except tarfile.TarError as error:
        raise FormatError(f"{path} is no whole tar file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _sample(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, photo: tarfile.TarInfo | None) -> Sample:
    if member.size > _MAX_JSON_BYTES:
        raise FormatError(f"{path}: {member.name!r} has more than {_MAX_JSON_BYTES} bytes")
    read_bytes = None
    if photo is not None:
        if photo.name.partition(".")[0] != member.name.partition(".")[0]:
            raise FormatError(f"{path}: {photo.name!r} has no JSON file after it")
        read_bytes = partial(_read_member, path, photo.name, photo.offset_data, photo.size)
    file: Any = tar.extractfile(member)
    try:
        label = json.loads(file.read())
        size = checked_size(*label["result"]["size"], where=member.name)
        check_mask_bytes(len(label["result"]["instances"]["masks"] or ()), size)
        result = Result.from_dict(label["result"])
        return Sample(str(label["id"]), str(label["file_name"]), result, label["split"], read_bytes)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {member.name!r}: {type(error).__name__}: {error}") from error


def _read_member(path: Path, name: str, offset: int, size: int) -> bytes:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{path}: {name!r} has more than {MAX_FILE_BYTES} bytes")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise ImageError(f"cannot read {name!r} of {path}: {error.strerror}") from error

"""Images in tar and zip archives, read in place: nothing is unpacked, and names are only compared."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from rasa.errors import ImageError
from rasa.io.find import IMAGE_SUFFIXES
from rasa.io.images import printable
from rasa.labelling.handles import Handles
from rasa.labelling.locators import Locator

MAX_MEMBER_BYTES = 256 * 2**20
"""Largest image that is read from an archive: what its header says does not count."""

# Photos are compressed already; zip at its best makes 1032 out of 1, which is what bombs are made of.
_MAX_RATIO, _RATIO_FROM_BYTES = 200, 10 * 2**20

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError,
           ValueError, RuntimeError, NotImplementedError)  # fmt: skip

_tars: Handles[gzip.GzipFile] = Handles(lambda path: gzip.open(path))  # noqa: SIM115, PLW0108  (looked up at the call)
_zips: Handles[zipfile.ZipFile] = Handles(lambda path: zipfile.ZipFile(path))  # noqa: PLW0108


def list_tar(path: str) -> Iterator[Locator]:
    """The images of a tar archive, plain or gzip, in its order.

    Raises:
        ImageError: When the damaged place of an archive is reached.
    """
    at, packed = str(Path(path).absolute()), _is_packed(path)
    try:
        with tarfile.open(path, "r:gz" if packed else "r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if member.isreg() and not member.issparse() and _is_image(member.name):
                    yield Locator("tar", at, member.name, member.offset_data, member.size)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def list_zip(path: str) -> Iterator[Locator]:
    """The images of a zip archive, in the order of its directory.

    Raises:
        ImageError: If the archive is damaged, or its members overlap as in a bomb.
    """
    at = str(Path(path).absolute())
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    for first, second in pairwise(sorted(members, key=lambda member: member.header_offset)):
        if first.header_offset + first.compress_size > second.header_offset:
            raise ImageError(f"archive {printable(path)!r} has members that overlap, as in a bomb; pack it anew")
    for number, member in enumerate(members):
        if not member.is_dir() and _is_image(member.filename):
            yield Locator("zip", at, member.filename, number)


def read_tar(locator: Locator) -> bytes:
    """The bytes of a member.

    Raises:
        ImageError: If the archive is gone or damaged, or the member too large.
    """
    _check_size(locator, locator.size)
    try:
        if _is_packed(locator.at):
            # Going on from the last member is cheap, going back reads the archive from its start.
            return _read_at(_tars.get(locator.at), locator)
        with open(locator.at, "rb") as file:  # noqa: PTH123
            return _read_at(file, locator)
    except _DAMAGE as error:
        _tars.drop(locator.at)
        raise _damaged(locator.at, error) from error


def read_zip(locator: Locator) -> bytes:
    """The bytes of a member.

    Raises:
        ImageError: If the archive is gone or damaged, or the member too large, encrypted, or another by now.
    """
    name = printable(locator.member)
    try:
        archive = _zips.get(locator.at)
        members = archive.infolist()
        if locator.position >= len(members) or members[locator.position].filename != locator.member:
            raise ImageError(f"archive {printable(locator.at)!r} has changed: no {name!r} at its place")
        member = members[locator.position]
        _check_size(locator, member.file_size)
        if member.file_size > max(_RATIO_FROM_BYTES, _MAX_RATIO * member.compress_size):
            raise ImageError(f"{name!r} unpacks to {member.file_size} bytes from {member.compress_size}, as bombs do")
        with closing(archive.open(member)) as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except _DAMAGE as error:
        if isinstance(error, ImageError):
            raise
        _zips.drop(locator.at)
        raise _damaged(f"{locator.at}::{locator.member}", error) from error
    _check_size(locator, len(data))
    return data


def _read_at(file: Any, locator: Locator) -> bytes:
    file.seek(locator.position)
    data: bytes = file.read(locator.size)
    if len(data) != locator.size:
        raise EOFError(f"{len(data)} of {locator.size} bytes are there")
    return data


def _check_size(locator: Locator, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        name = printable(locator.member)
        raise ImageError(f"{name!r} has {size} bytes, the limit in archives is {MAX_MEMBER_BYTES}; unpack it")


def _is_packed(path: str) -> bool:
    return path.lower().endswith((".gz", ".tgz"))


def _is_image(name: str) -> bool:
    member = PurePosixPath(name.replace("\\", "/"))
    return member.suffix.lower() in IMAGE_SUFFIXES and not member.name.startswith(".")


def _damaged(path: str, error: Exception) -> ImageError:
    return ImageError(f"{printable(path)!r} is damaged or cannot be read: {error}")

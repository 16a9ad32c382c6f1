"""Read the bytes of one image from where its locator says."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from rasa.errors import ImageError
from rasa.io._decode import MAX_FILE_BYTES
from rasa.io.images import printable
from rasa.labelling.addresses import fetch
from rasa.labelling.archives import read_tar, read_zip
from rasa.labelling.locators import Kind, Locator
from rasa.labelling.objects import read_object
from rasa.labelling.video import read_frame

_CHUNK = 2**20
_HEAD = 16  # bytes


def read_bytes(locator: Locator) -> bytes:
    """The whole file of an image: as it is on the disk or in its archive, or a video's frame as PNG.

    Raises:
        ImageError: If it is missing, unreadable, empty or larger than the limit of its kind.
        DependencyError: If a video is read without OpenCV, or an object without the package of its protocol.
    """
    data = _READERS[locator.kind](locator)
    _checked_size(len(data), locator.member or locator.at)
    return data


@dataclass(frozen=True, slots=True)
class Digest:
    """What planning wants to know of an image's bytes.

    Attributes:
        id: Their sha256, 64 hexadecimal digits.
        size: Their number.
        head: The first of them, which tell the format.
    """

    id: str
    size: int
    head: bytes


def digest_of(locator: Locator) -> Digest:
    """Hash an image; a file is read in pieces of 1 MiB.

    Raises:
        ImageError, DependencyError: As :func:`read_bytes`.
    """
    if locator.kind != "file":
        data = read_bytes(locator)
        return Digest(hashlib.sha256(data).hexdigest(), len(data), data[:_HEAD])
    with open_regular(locator.at) as file:
        digest, size, head = hashlib.sha256(), 0, b""
        while chunk := _read_chunk(file, _CHUNK, locator.at):
            digest.update(chunk)
            size, head = size + len(chunk), head or chunk[:_HEAD]
    return Digest(digest.hexdigest(), _checked_size(size, locator.at), head)


def open_regular(path: str) -> BinaryIO:
    """Open a regular file of at most 2 GiB for reading, unbuffered.

    Raises:
        ImageError: If there is none, or it may not be read.
    """
    name = printable(path)
    try:
        file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115
    except FileNotFoundError as error:
        raise ImageError(f"{name!r} does not exist; it is a broken link, or was deleted") from error
    except PermissionError as error:
        raise ImageError(f"{name!r} may not be read by this user; change its permissions") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name!r} cannot be opened: {reason}") from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        file.close()
        what = f"{status.st_size} bytes long, the limit is {MAX_FILE_BYTES}"
        raise ImageError(f"{name!r} is {what if stat.S_ISREG(status.st_mode) else 'no regular file'}")
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a writer, for ever; Windows has neither.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_file(locator: Locator) -> bytes:
    with open_regular(locator.at) as file:
        pieces = []
        while chunk := _read_chunk(file, 16 * _CHUNK, locator.at):
            pieces.append(chunk)
    return b"".join(pieces)


def _read_chunk(file: BinaryIO, size: int, path: str) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise ImageError(f"{printable(path)!r} cannot be read: {error.strerror}; check the disk") from error


def _checked_size(size: int, path: str) -> int:
    if size == 0:
        raise ImageError(f"{printable(path)!r} is empty (0 bytes)")
    return size


_READERS: Mapping[Kind, Callable[[Locator], bytes]] = {
    "file": _read_file,
    "tar": read_tar,
    "zip": read_zip,
    "video": read_frame,
    "url": lambda locator: fetch(locator.at),
    "object": read_object,
}

"""The members of an untrusted tar file, read in order from a stream: nothing is unpacked, and memory is bounded.

``tarfile`` reads extended headers whole, however long they say they are, and takes a file that was cut off between two
members for complete; so the blocks are read here, and only the parsing of a header is left to it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_BLOCK = 512  # bytes, POSIX ustar
# Of an extended header or a long name: what is read of them is a path.
_MAX_HEADER_BYTES = 2**20
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_LINKS_AND_DEVICES = (b"1", b"2", b"3", b"4", b"5", b"6", b"V", b"D")


class BrokenTarError(ValueError):
    """A place where a file is no tar; never leaves this package."""

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(f"broken tar at byte {offset}: {why}")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A plain file in a tar.

    Attributes:
        name: As the tar has it; not to be trusted as a path.
        size: Bytes.
        data: The bytes; None where there are more than were asked for.
        start: First byte of its headers in the tar.
        end: Byte behind its last block.
    """

    name: str
    size: int
    data: bytes | None
    start: int
    end: int


def read_members(file: IO[bytes], *, max_bytes: int) -> Iterator[Member]:
    """The plain files of an uncompressed tar; folders, links and devices are passed over.

    Args:
        file: Positioned where the tar begins.
        max_bytes: Longest member whose bytes are given; longer ones are jumped over where the file can seek.

    Raises:
        BrokenTarError: Where it is broken, or at its end if it was cut off.
    """
    blocks = _Blocks(file)
    pax: dict[str, str] = {}
    start = 0
    while (header := _header(blocks)) is not None:
        if header.type == _PAX_GLOBAL:
            blocks.skip(header.size)
        elif header.type in (_PAX, _LONG_NAME, _LONG_LINK):
            pax.update(_extended(header, blocks))
            continue  # to the header of the member that it belongs to, which begins here
        else:
            size = _size(pax.get("size", ""), header)
            name, pax = pax.get("path", header.name), {}
            if header.type in tarfile.REGULAR_TYPES and header.type != tarfile.GNUTYPE_SPARSE:
                data = None
                if size > max_bytes:
                    blocks.skip(size)
                else:
                    data = blocks.read(size)
                yield Member(name, size, data, start, blocks.offset)
            elif header.type not in _LINKS_AND_DEVICES:
                raise BrokenTarError(f"member {name[:80]!r} is of unknown type {header.type!r}", blocks.offset)
        start = blocks.offset


def _header(blocks: _Blocks) -> tarfile.TarInfo | None:
    start = blocks.offset
    data = blocks.read(_BLOCK, what="its end mark is missing")
    if not data.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BrokenTarError(f"{error}; is it compressed, or no tar?", start) from error
    if header.size < 0:  # which GNU's binary numbers can say
        raise BrokenTarError(f"a header says {header.size} bytes", start)
    return header


def _size(stated: str, header: tarfile.TarInfo) -> int:
    return int(stated) if stated.isdecimal() and len(stated) < 20 else header.size


def _extended(header: tarfile.TarInfo, blocks: _Blocks) -> dict[str, str]:
    if header.size > _MAX_HEADER_BYTES:
        raise BrokenTarError(f"an extended header has {header.size} bytes", blocks.offset)
    data = blocks.read(header.size)
    if header.type == _LONG_LINK:
        return {}
    if header.type == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    return _pax_values(data)


def _pax_values(data: bytes) -> dict[str, str]:
    """Records ``LENGTH KEY=VALUE`` and a line feed, the length in decimal and of all that (POSIX.1-2001, pax)."""
    values = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not len(digits) + 1 < length <= len(data):
            break
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        values[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return values


class _Blocks:
    """A file read in whole blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offset = 0

    def read(self, size: int, *, what: str = "it was cut off") -> bytes:
        length = -(-size // _BLOCK) * _BLOCK
        data = self._file.read(length)
        self.offset += len(data)
        if len(data) < length:
            raise BrokenTarError(what, self.offset)
        return data[:size]

    def skip(self, size: int) -> None:
        left = -(-size // _BLOCK) * _BLOCK
        if self._file.seekable():
            here = self._file.tell()
            step = min(left, self._file.seek(0, os.SEEK_END) - here)
            self._file.seek(here + step)
            self.offset, left = self.offset + step, left - step
        while left:  # in a stream; in a file only where it was cut off
            step = min(left, 2**20)
            self.read(step)
            left -= step

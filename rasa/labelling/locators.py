"""Where the bytes of an image are: a file, a member of an archive, a frame of a video, an address, or an object."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rasa.errors import FormatError

Kind = Literal["file", "tar", "zip", "video", "url", "object"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Locator:
    """Where to read an image; :func:`rasa.labelling.reading.read_bytes` does.

    Attributes:
        kind: ``"file"``, ``"tar"``, ``"zip"``, ``"video"``, ``"url"`` or ``"object"`` (of fsspec).
        at: Absolute path of the file or archive, as ``os.fsdecode`` gives it (bytes that are no UTF-8 are kept as
            surrogates), or the address.
        member: Name inside the archive; ``""`` otherwise. It is compared, and never used as a path.
        position: Where in the file: offset in bytes of a tar member's content, number of a zip member in the
            directory, number of a video's frame; 0 otherwise.
        size: Bytes of a tar member, or of an object as it was listed; -1 otherwise.
    """

    kind: Kind
    at: str
    member: str = ""
    position: int = 0
    size: int = -1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FormatError(f"a locator is of the kind {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def key(self) -> int:
        """64 bits that tell places apart; the size is no part of it."""
        parts = (self.kind.encode(), os.fsencode(self.at), encoded(self.member), str(self.position).encode())
        return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest(), "little", signed=True)


def place_columns(locator: Locator) -> dict[str, Any]:
    """The columns of a table that keep a locator; names that are no text are kept as bytes."""
    return {
        "kind": locator.kind,
        "at": os.fsencode(locator.at),
        "member": encoded(locator.member),
        "position": locator.position,
        "size": locator.size,
        "place": locator.key,
    }


def locator_of(row: Mapping[str, Any]) -> Locator:
    """The inverse of :func:`place_columns`.

    Raises:
        FormatError: If the kind is none.
    """
    member = row["member"].decode("utf-8", "surrogateescape")
    return Locator(row["kind"], os.fsdecode(row["at"]), member, row["position"], row["size"])


def encoded(text: str) -> bytes:
    """``text`` as bytes, surrogates of undecodable bytes turned back into those."""
    return text.encode("utf-8", "surrogateescape")

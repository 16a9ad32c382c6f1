"""Images in object storage and on whatever else fsspec reads: ``s3://``, ``gs://``, ``az://``, ``hf://`` and others.

Credentials are found by the packages behind fsspec (s3fs, gcsfs, adlfs) as they always do: none is read or kept here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from rasa.errors import DependencyError, ImageError, InputError
from rasa.io.find import IMAGE_SUFFIXES
from rasa.io.images import printable
from rasa.labelling.addresses import MAX_BYTES
from rasa.labelling.locators import Locator
from rasa.labelling.ordering import natural_key

# A list may come from anybody, so it can name no local file, no chain, and no host that it chooses itself.
IN_MANIFESTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf"})

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)  # two letters at least: C:// is a disk
_MAGIC = re.compile(r"[*?\[]")
# What tells that an object has changed, the surest first: hashes, then times.
_MARKS = (
    "ETag", "etag", "blob_id", "md5Hash",
    "mtime", "LastModified", "last_modified", "updated", "modified", "created",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing.

    Attributes:
        address: Where it is, with its protocol.
        size: Its bytes; -1 where that is not known.
        mark: A number of 62 bits that changes with the object (of its ETag, or its time); -1 where there is neither.
        error: Why it cannot be read, where listing shows that already; "" otherwise.
    """

    address: str
    size: int = -1
    mark: int = -1
    error: str = ""


def protocol_of(text: str) -> str:
    """``"s3"`` of ``"s3://bucket/a.png"``; ``""`` of what is no address."""
    match = _PROTOCOL.match(text)
    return match[1].lower() if match else ""


def list_objects(address: str) -> Iterator[Entry]:
    """One object, those that match a pattern, or the images below a folder in natural order, level by level.

    Raises:
        InputError: If there is nothing at the address, or fsspec cannot make sense of it.
        DependencyError: If the package that its protocol needs is not installed.
    """
    system, path = _opened(address)
    # A second listing in the same process would see the first one.
    system.invalidate_cache()
    try:
        info = system.info(path)
    except Exception as error:  # each of these file systems has errors of its own client
        if _MAGIC.search(path):
            return _matching(system, address, path)
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{printable(address)!r} does not exist; check the address") from error
        return iter([Entry(address, error=_reason(address, error))])
    if info["type"] == "directory":
        return _walk(system, _Names(address, path), path)
    return iter([_entry(address, info)])


def object_at(address: str) -> Entry:
    """What is known of one object without reading it; that it is missing shows when it is read.

    Raises:
        DependencyError: If the package that its protocol needs is not installed.
    """
    try:
        system, path = _opened(address)
    except ImageError as error:
        return Entry(address, error=str(error))
    try:
        system.invalidate_cache()
        return _entry(address, system.info(path))
    except Exception:  # noqa: BLE001  (the same error comes again when it is read, with its reason)
        return Entry(address)


def read_object(locator: Locator) -> bytes:
    """A whole object of at most 256 MiB, in one request where the file system can.

    Raises:
        ImageError: If it is gone, may not be read, is too large, or has another size than its listing said.
        DependencyError: If the package that its protocol needs is not installed.
    """
    system, path = _opened(locator.at)
    _check_size(locator.at, locator.size)
    if locator.size == 0:
        return b""  # a range of nothing would be refused
    try:
        data: bytes = system.cat_file(path, start=0, end=(MAX_BYTES if locator.size < 0 else locator.size) + 1)
    except Exception as error:
        raise ImageError(_reason(locator.at, error)) from error
    _check_size(locator.at, len(data))
    if locator.size not in {-1, len(data)}:
        name = printable(locator.at)
        raise ImageError(f"{name!r} gives {len(data)} bytes, its listing said {locator.size}; label its source again")
    return data


@dataclass(frozen=True, slots=True)
class _Names:
    """Turns names of a listing, which lack protocol and host, into addresses below the one that the user gave."""

    base: str
    root: str

    def address(self, name: str) -> str:
        rest = name[len(self.root) :].lstrip("/")
        return self.base if not rest else f"{self.base if self.base.endswith('/') else self.base + '/'}{rest}"


def _opened(address: str) -> tuple[Any, str]:
    """The file system, and the path on it; a file system is made once in each thread, by fsspec."""
    name = printable(address)
    if "::" in address:
        raise ImageError(f"{name!r} is a chain of addresses or has '::' in its name; neither is read, rename it")
    try:
        core = import_module("fsspec.core")
    except ImportError as error:
        raise DependencyError(f'{name!r} needs the package "fsspec"; install the extra "label"') from error
    try:
        system, path = core.url_to_fs(address)
    except ImportError as error:
        raise DependencyError(f"{name!r} needs a package that no extra of rasa brings: {error}") from error
    except Exception as error:
        raise ImageError(_reason(address, error)) from error
    return system, path


def _matching(system: Any, address: str, path: str) -> Iterator[Entry]:
    try:
        found: Mapping[str, Any] = system.glob(path, detail=True)
    except Exception as error:  # noqa: BLE001  (as for a folder)
        return iter([Entry(address, error=_reason(address, error))])
    wanted = [info | {"name": name.rstrip("/")} for name, info in found.items()]
    wanted = [info for info in wanted if _is_wanted(info)]
    if not wanted:
        raise InputError(f"{printable(address)!r}: the pattern matches no image and no folder")
    wanted.sort(key=lambda info: [natural_key(part) for part in info["name"].split("/")])
    magic = _MAGIC.search(address)
    base = address[: address.rfind("/", 0, magic.start() if magic else None) + 1]
    names = _Names(base, _opened(base)[1])
    return (entry for info in wanted for entry in _below_match(system, names, info))


def _below_match(system: Any, names: _Names, info: Mapping[str, Any]) -> Iterator[Entry]:
    if info["type"] == "directory":
        return _walk(system, names, info["name"])
    return iter([_entry(names.address(info["name"]), info)])


def _walk(system: Any, names: _Names, folder: str) -> Iterator[Entry]:
    """Images below a folder; one level of each folder on the way is in memory."""
    levels = [iter([{"name": folder, "type": "directory"}])]
    while levels:
        info = next(levels[-1], None)
        if info is None:
            levels.pop()
            continue
        address = names.address(info["name"])
        if info["type"] != "directory":
            yield _entry(address, info)
            continue
        try:
            levels.append(iter(_level(system, info["name"])))
        except Exception as error:  # noqa: BLE001  (a folder that may not be listed is a row, as on a disk)
            yield Entry(address, error=_reason(address, error))


def _level(system: Any, folder: str) -> list[dict[str, Any]]:
    infos = [info | {"name": info["name"].rstrip("/")} for info in system.ls(folder, detail=True)]
    system.invalidate_cache()  # it would keep the whole bucket
    # Stores list the empty object that stands for a folder inside of it.
    below = [info for info in infos if info["name"].startswith(folder.rstrip("/") + "/") and _is_wanted(info)]
    return sorted(below, key=lambda info: natural_key(PurePosixPath(info["name"]).name))


def _is_wanted(info: Mapping[str, Any]) -> bool:
    name = PurePosixPath(info["name"])
    return not name.name.startswith(".") and (info["type"] == "directory" or name.suffix.lower() in IMAGE_SUFFIXES)


def _entry(address: str, info: Mapping[str, Any]) -> Entry:
    if info["type"] == "directory":
        return Entry(address, error=f"{printable(address)!r} is a folder; name it as a source of its own")
    size = info.get("size")
    mark = next((f"{name}={info[name]}" for name in _MARKS if info.get(name)), "")
    digest = hashlib.blake2b(mark.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return Entry(address, -1 if size is None else int(size), int.from_bytes(digest, "little") >> 2 if mark else -1)


def _check_size(address: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"{printable(address)!r} has {size} bytes, the limit in object storage is {MAX_BYTES}")


def _reason(address: str, error: Exception) -> str:
    """Why it failed; without the server's words where they say no more, as those hold numbers of requests."""
    name = printable(address)
    if isinstance(error, FileNotFoundError):
        return f"{name!r} is not there; it was deleted, or its address is wrong"
    if isinstance(error, PermissionError):
        return f"{name!r} may not be read; check the credentials and what they allow"
    return printable(
        f"{name!r} cannot be read: {type(error).__name__}: {error}; check address, credentials and network"
    )

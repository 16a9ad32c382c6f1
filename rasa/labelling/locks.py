"""Locks between processes, by ``flock`` on files of the dataset.

The kernel drops a lock with the process that holds it, so a killed worker leaves none behind. On Linux, NFS
passes ``flock`` on to the server (unless mounted with ``nolock`` or ``local_lock``), Lustre does with the mount
option ``flock``; file systems over object storage mostly know it on one machine only, or not at all. Where two
machines do not see each other's locks they may label one shard twice, which costs time and nothing else: both
write the same bytes, and a rename takes the place of the other. A file system that refuses locks is used without
them, with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rasa.errors import DependencyError, OutputError, RasaWarning

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows)
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class HasKey(Protocol):
    """What is asked of a shard."""

    @property
    def key(self) -> str:
        """Its name, such as ``"shard-000042"``."""
        ...


@contextlib.contextmanager
def shard_lock(dataset: Path, fingerprint: str, shard: HasKey, *, wait: bool = False) -> Iterator[bool]:
    """Hold one shard of one run, so that no other process works on it.

    Yields:
        Whether the lock is held; False, at once, if another process has it and ``wait`` is not given.

    Raises:
        OutputError: If the lock file cannot be made.
    """
    with file_lock(dataset / "locks" / fingerprint / f"{shard.key}.lock", wait=wait) as held:
        yield held


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock by the name of ``path``, a file that is there only while it is held.

    Yields:
        Whether the lock is held.

    Raises:
        OutputError: If the file cannot be made.
        DependencyError: On a system without ``flock``.
    """
    if fcntl is None:
        raise DependencyError("labelling needs file locks, which this system has not; use Linux, macOS or WSL")
    descriptor = _acquire(path, wait=wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # while the lock is held: whoever waits sees that the file is gone, and makes it anew
            os.close(descriptor)


def _acquire(path: Path, *, wait: bool) -> int | None:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                os.close(descriptor)
                return None
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise OutputError(f"cannot lock {path}: {error.strerror}") from error
            message = f"{path.parent} is on a file system without locks; let only one process label into it"
            warnings.warn(message, RasaWarning, stacklevel=5)
            return descriptor
        if _is_named(descriptor, path):
            return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"cannot lock {path}: {error.strerror}; choose a writable folder with room") from error


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has the name; its former holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

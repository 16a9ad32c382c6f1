"""Locks between processes, by ``flock`` on files that have no other use.

The kernel drops a lock with the process that holds it, so a killed process leaves none behind. On Linux, NFS
passes ``flock`` on to the server (unless mounted with ``nolock`` or ``local_lock``), Lustre does with the mount
option ``flock``; file systems over object storage mostly know it on one machine only, or not at all. So a lock
saves work and is not what keeps files whole: whoever takes one must write the same bytes as any other process
would, and put them in place by a rename. Where locks are refused, work goes on without them, with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from rasa.errors import OutputError, RasaWarning

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows)
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock by the name of ``path``, a file that is there only while it is held.

    Yields:
        Whether the lock is held; False, at once, if another process has it and ``wait`` is False. True, with a
        :class:`rasa.RasaWarning`, where there are no locks.

    Raises:
        OutputError: If the file cannot be made.
    """
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
            locked = _flock(descriptor, path, wait=wait)
        except OutputError:
            os.close(descriptor)
            raise
        if locked and _is_named(descriptor, path):
            return descriptor
        os.close(descriptor)
        if not locked:
            return None


def _flock(descriptor: int, path: Path, *, wait: bool) -> bool:
    if fcntl is None:  # pragma: no cover
        return _warn(path)  # type: ignore[unreachable]
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        if error.errno not in _UNSUPPORTED:
            raise OutputError(f"cannot lock {path}: {error.strerror}") from error
        return _warn(path)
    return True


def _warn(path: Path) -> bool:
    message = f"{path.parent} is on a file system without locks; let only one process work there"
    warnings.warn(message, RasaWarning, stacklevel=6)
    return True


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"cannot lock {path}: {error.strerror}; choose a writable folder with room") from error


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has the name; its former holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

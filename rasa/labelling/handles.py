"""Open files that are kept for the next read, a few in each thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Let go of the file."""
        ...


T = TypeVar("T", bound=Closable)
_MOST = 4  # open files in each thread


class Handles(Generic[T]):
    """Opens each path once, as long as it is among the last four.

    Args:
        opener: From a path to the open file.
    """

    def __init__(self, opener: Callable[[str], T]) -> None:
        self._opener = opener
        self._local = threading.local()

    def get(self, path: str) -> T:
        """The open file, which stays this object's; opened anew if another one has the path by now.

        Raises:
            OSError: If there is no such file; and what the opener raises.
        """
        status = Path(path).stat()
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        files = self._files()
        if path in files and files[path][0] != seen:
            self.drop(path)
        # The last used one comes last.
        files[path] = files.pop(path) if path in files else (seen, self._opener(path))
        while len(files) > _MOST:
            files.pop(next(iter(files)))[1].close()
        return files[path][1]

    def drop(self, path: str) -> None:
        """Close the file, if it is open, so that the next use opens it anew."""
        _, file = self._files().pop(path, (None, None))
        if file is not None:
            file.close()

    def _files(self) -> dict[str, tuple[tuple[int, ...], T]]:
        # A forked process shares the position of every open file with its parent, so it starts without.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid, self._local.files = os.getpid(), {}
        files: dict[str, tuple[tuple[int, ...], T]] = self._local.files
        return files

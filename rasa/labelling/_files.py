"""How the files of a dataset are written, and what killed processes leave behind."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from rasa._files import write_atomically as write_whole

_STALE_S = 24 * 3600.0  # no file of a dataset takes a day to write, so an older rest is of a killed process


def write_atomically(path: Path) -> AbstractContextManager[IO[Any]]:
    """Open a file of a dataset for writing: its bytes are on the disk before it has its name; folders are made.

    Raises:
        OutputError: If it cannot be written, such as on a full disk.
    """
    remedy = "free some room or choose another folder"
    return write_whole(path, sync=True, make_folder=True, remedy=remedy)


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed processes left in ``folder``, once it is a day old and surely no longer written."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_S:
                part.unlink()

"""Files that appear under their name only once they are whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rasa.errors import OutputError, RasaError

_ROOM = "choose a writable folder with room"


@contextlib.contextmanager
def write_atomically(
    path: str | os.PathLike[str],
    *,
    text: bool = False,
    sync: bool = False,
    make_folder: bool = False,
    remedy: str = _ROOM,
) -> Iterator[IO[Any]]:
    """Open a new file for writing; it takes the place of ``path`` where the block ends without an error.

    After an error, and while the block runs, what was at ``path`` before is there untouched. What is written lies
    beside it meanwhile, under a name of its own, so that processes and threads cannot disturb each other.

    Args:
        path: The file; replaced if it exists.
        text: Open it for UTF-8 text, whose line ends are written as they are, in place of bytes.
        sync: Have all of it on the disk before it takes its name, so that not even a power cut leaves half a file.
        make_folder: Make the folder if it is not there.
        remedy: What the user can do if the file cannot be written; the end of the error's text.

    Raises:
        OutputError: If the file cannot be written. Every ``OSError`` in the block counts as that, save rasa's own.
    """
    target = Path(path)
    # A few letters of the name tell whose it was if the process is killed; all of them may be too long for a name.
    part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("x", encoding="utf-8", newline="\n") if text else part.open("xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(target)
    except RasaError:
        raise  # some of them are OSErrors: a checkpoint that turned out broken while it was copied
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)

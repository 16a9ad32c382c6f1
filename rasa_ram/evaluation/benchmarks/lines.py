"""Lines of text files from the internet, with their places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rasa.errors import FormatError, InputError

# Characters; the longest line of the published files has 303.
MAX_LINE = 1_000_000


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place (``file, line 7``) and text of each line that is not blank, without its end.

    Raises:
        FormatError: If the file is no UTF-8 or a line has more than :data:`MAX_LINE` characters.
        InputError: If it cannot be read.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            while text := file.readline(MAX_LINE + 1):
                number += 1
                if len(text) > MAX_LINE:
                    raise FormatError(
                        f"{path}, line {number}: more than {MAX_LINE} characters; is this the right file?"
                    )
                if text.strip():
                    yield f"{path}, line {number}", text.rstrip("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text in UTF-8, near line {number + 1}: {error.reason}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def read_names(path: Path) -> tuple[str, ...]:
    """One name per line.

    Raises:
        FormatError: As :func:`read_lines`; also if there is none.
        InputError: If the file cannot be read.
    """
    names = tuple(text.strip() for _, text in read_lines(path))
    if not names:
        raise FormatError(f"{path} has no names; give one per line")
    return names

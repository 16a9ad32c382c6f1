"""The items of a JSON list one by one, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, InputError

MAX_ITEM_CHARACTERS = 2**28
"""Longest item that is read: the guard against a file without an end."""

_CHUNK = 2**16
_SPACE = " \t\r\n"


def json_items(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in the list that a file holds.

    Raises:
        FormatError: If it is no list of objects, or one of them is too long; the message counts them.
        InputError: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _items(file, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from error


def _items(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    decode = json.JSONDecoder().raw_decode
    text, count = file.read(_CHUNK).lstrip(_SPACE), 0
    if not text.startswith("["):
        raise FormatError(f"{path}: expected a list")
    text, after = text[1:], "["
    while True:
        text = text.lstrip(_SPACE)
        if text.startswith("]") and after != ",":
            return
        if text.startswith(",") and after == "}":
            text, after = text[1:], ","
            continue
        if text and (not text.startswith("{") or after == "}"):
            raise FormatError(f"{path}, item {count + 1}: expected an object, got {text[:20]!r}")
        try:
            item, end = decode(text)
        except json.JSONDecodeError as error:
            # Twice as much each time, so that a long item is tried a few times only.
            more = file.read(max(_CHUNK, len(text))) if len(text) < MAX_ITEM_CHARACTERS else ""
            if not more:
                raise FormatError(f"{path}, item {count + 1} is no JSON, or longer than is read: {error}") from error
            text += more
            continue
        text, after, count = text[end:], "}", count + 1
        yield item

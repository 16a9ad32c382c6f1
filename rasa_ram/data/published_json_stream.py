"""JSON files of any length, one item of their lists after the other, in bounded memory.

The C scanner of the standard library reads each item whole. An event parser in C (ijson) takes 0.8 of the time, but
does not say at which byte a file is broken, cannot go on behind it, and bounds no item. A file is a list of items, or
an object whose lists hold the items, as COCO's is.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

# Read at a time. Twice as much each time for an item that is longer, up to the longest that is read.
CHUNK_BYTES = 2**20
MAX_ITEM_CHARACTERS = 16 * 2**20

_SPACE = re.compile(r"[ \t\n\r]*")
_NEXT_OBJECT = re.compile(r",[ \t\n\r]*(?=\{)")
# Characters before the end of a chunk where an error may be but its cut: a literal, a number, an escape.
_CUT = 32


class BrokenJsonError(ValueError):
    """A place where a file is no JSON; never leaves this package.

    Attributes:
        offset: Byte of the file, from 0.
    """

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(f"broken JSON at byte {offset}: {why}")
        self.offset = offset


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class JsonStream:
    """Reads a binary file; after a :class:`BrokenJsonError` it can go on behind the broken item."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # What is no UTF-8 becomes halves of characters, which the check of the one record refuses.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
        self._text, self._at, self._base, self._ended = "", 0, 0, False

    @property
    def offset(self) -> int:
        """Byte of the file that is read next."""
        return self._base + byte_length(self._text[: self._at])

    def items(self) -> Iterator[tuple[str, Any]]:
        """Key and item, for all lists of the file; the key of a bare list is empty.

        Raises:
            BrokenJsonError: Where the file is no JSON, or ends too early.
        """
        first = self._peek()
        if first == "\ufeff":
            self._at += 1
            first = self._peek()
        if first == "[":
            for item in self.list_items():
                yield "", item
        elif first == "{":
            yield from self._object_items()
        else:
            raise self._broken("expected a list or an object", self._at)
        if self._peek():
            raise self._broken("something comes after the end", self._at)

    def list_items(self) -> Iterator[Any]:
        """The items of the list that begins here.

        Raises:
            BrokenJsonError: As above.
        """
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._ends("]"):
                return

    def after_broken(self) -> Iterator[Any]:
        """Search the next object that follows a comma, and read on from there to the end of the list.

        Raises:
            BrokenJsonError: Where the file is broken again.
        """
        while (found := _NEXT_OBJECT.search(self._text, self._at)) is None:
            self._at = max(self._at, len(self._text) - 2 * _CUT)
            if not self._more():
                self._at = len(self._text)
                return
        self._at = found.end()
        while True:
            yield self._value()
            if self._ends("]"):
                return

    def _object_items(self) -> Iterator[tuple[str, Any]]:
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            key = self._value() if self._peek() == '"' else None
            if key is None or self._peek() != ":":
                raise self._broken("expected a key and a colon", self._at)
            self._at += 1
            if self._peek() == "[":
                for item in self.list_items():
                    yield key, item
            else:
                self._value()
            if self._ends("}"):
                return

    def _ends(self, bracket: str) -> bool:
        sign = self._peek()
        if sign not in (",", bracket):
            raise self._broken(f"expected a comma or {bracket}" if sign else "the file ends too early", self._at)
        self._at += 1
        return sign == bracket

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        if not self._peek():
            raise self._broken("the file ends too early", self._at)
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error) or not self._more():
                    raise self._broken(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:  # a number of over 4300 digits, NaN, a thousand brackets
                raise self._broken(str(error), self._at) from error
            else:
                # A number may go on in the next chunk, also where it seems to end before ".", "e" or "e-".
                may_go_on = isinstance(value, int | float) and len(self._text) - end < 3
                if not may_go_on or not self._more():
                    self._at = end
                    return value

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        if self._ended or len(self._text) - self._at > MAX_ITEM_CHARACTERS:
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _CUT

    def _more(self) -> bool:
        """Append a chunk to what is not read yet; False at the end."""
        data = b"" if self._ended else self._file.read(max(CHUNK_BYTES, len(self._text) - self._at))
        if not data:
            self._ended = True
            return False
        self._base += byte_length(self._text[: self._at])
        self._text, self._at = self._text[self._at :] + self._utf8.decode(data), 0
        return True

    def _broken(self, why: str, position: int) -> BrokenJsonError:
        offset = self._base + byte_length(self._text[:position])
        self._at = max(self._at, min(position, len(self._text)))
        return BrokenJsonError(why, offset)


def byte_length(text: str) -> int:
    """Bytes of the UTF-8 that ``text`` was read from, with what is none."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))

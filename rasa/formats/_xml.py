"""XML of untrusted origin, element by element: no DTD, no entities, nothing of unbounded size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder  # the tree only; ET's own parser would expand entities
from xml.parsers import expat

from rasa.errors import FormatError, InputError

MAX_ELEMENT_BYTES = 256 * 2**20
"""Largest child of the root that is held: the guard against a file without an end."""
MAX_DEPTH = 32
"""Deepest nesting that is read; VOC has 5 levels, CVAT 7."""

_CHUNK_BYTES = 2**16
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_TO_ESCAPE = re.compile('[&<>"\t\n\r]')
# What XML 1.0 has no way to write, section 2.2.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escaped(text: str) -> str:
    """``text`` as it stands in an element or in an attribute with double quotes.

    Raises:
        InputError: If it has a character that XML cannot hold, such as a control character.
    """
    if found := _NOT_XML.search(text):
        raise InputError(f"{text!r} has {found.group()!r}, which XML cannot hold; rename it in the ontology")
    return _TO_ESCAPE.sub(lambda match: _ESCAPES[match.group()], text)


def attributes(values: Mapping[str, object]) -> str:
    """Attributes of a start tag, each with a space before it."""
    return "".join(f' {name}="{escaped(str(value))}"' for name, value in values.items())


def children_of_root(path: Path, *, root: str) -> Iterator[Element]:
    """The children of the root element one by one, in bounded memory.

    Args:
        path: XML file.
        root: Name that the root must have.

    Raises:
        FormatError: If it is no such XML, declares a DTD, or is nested too deep; the message names file and line.
        InputError: If the file cannot be read.
    """
    reader = _Reader(path, root)
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK_BYTES):
                yield from reader.feed(data)
            yield from reader.feed(b"", last=True)
    except expat.ExpatError as error:
        raise FormatError(f"{path} is no XML: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class _Reader:
    """Builds one child of the root at a time."""

    def __init__(self, path: Path, root: str) -> None:
        self._path, self._root = path, root
        self._depth, self._held = 0, 0
        self._builder = TreeBuilder()
        self._done: list[Element] = []
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        # Entities can only be declared in a DTD, and none of the formats has one.
        parser.StartDoctypeDeclHandler = self._refuse_dtd

    def feed(self, data: bytes, *, last: bool = False) -> list[Element]:
        self._held += len(data)
        self._parser.Parse(data, last)
        done, self._done = self._done, []
        if done:
            self._held = 0
        if self._held > MAX_ELEMENT_BYTES:
            raise self._wrong(f"an element of more than {MAX_ELEMENT_BYTES} bytes")
        return done

    def _start(self, tag: str, values: dict[str, str]) -> None:
        if self._depth == 0 and tag != self._root:
            raise self._wrong(f"the root is <{tag[:40]}>, expected <{self._root}>")
        if self._depth >= MAX_DEPTH:
            raise self._wrong(f"more than {MAX_DEPTH} levels")
        if self._depth:
            self._builder.start(tag, values)
        self._depth += 1

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if self._depth:
            self._builder.end(tag)
        if self._depth == 1:
            self._done.append(self._builder.close())
            self._builder = TreeBuilder()

    def _text(self, text: str) -> None:
        if self._depth > 1:
            self._builder.data(text)

    def _refuse_dtd(self, *_: object) -> None:
        raise self._wrong("a DTD, which may define entities; remove the DOCTYPE")

    def _wrong(self, what: str) -> FormatError:
        return FormatError(f"{self._path}, line {self._parser.CurrentLineNumber}: {what}")

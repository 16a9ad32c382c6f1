"""Vocabularies as files: the published text lists, CSV and JSON.

========  ==========================================================================================
``.txt``  one tag a line, as published; thresholds and translations in files of their own, line by line
``.csv``  a header with ``name`` and any of ``id``, ``threshold``, ``kind``, ``synonyms`` (separated by
          ``|``) and ``translation:<language>``
``.json`` a list of names, or the object that :func:`write_vocabulary` writes
========  ==========================================================================================
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from rasa._files import write_atomically
from rasa._suggest import did_you_mean
from rasa.errors import FormatError, InputError
from rasa.types import KINDS
from rasa_ram.vocabulary import Vocabulary, tag_problem

SCHEMA = "rasa.vocabulary/1"
VOCABULARY = "vocabulary.json"
"""Name of the vocabulary in a model's folder."""

_COLUMNS = ("name", "id", "threshold", "kind", "synonyms")
_TRANSLATION = "translation:"
_FIELDS = tuple(column.name for column in fields(Vocabulary) if column.init)

Value = TypeVar("Value")


def read_vocabulary(
    path: str | os.PathLike[str],
    *,
    thresholds: str | os.PathLike[str] | None = None,
    translations: Mapping[str, str | os.PathLike[str]] | None = None,
    allow_repeats: bool = False,
) -> Vocabulary:
    """Read a vocabulary; the ending of its name decides on the format, see :mod:`rasa_ram.vocabulary_files`.

    Args:
        path: ``.txt``, ``.csv`` or ``.json``; UTF-8.
        thresholds: Text file with one number a line, in the order of the tags.
        translations: Language to a text file with one name a line, in the order of the tags.
        allow_repeats: Whether several tags may have one name, as in Tag2Text's list; a JSON file of
            :func:`write_vocabulary` says so itself.

    Raises:
        FormatError: If a file is no UTF-8, or an entry is malformed or repeats; the message names file and line.
        InputError: If a file cannot be read, or its ending is none of the three.
    """
    path = Path(path)
    readers = {".txt": _read_text, ".csv": _read_csv, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} must end in one of {', '.join(readers)} for its format to be known")
    vocabulary = readers[path.suffix.lower()](path, allow_repeats)
    if thresholds is not None:
        values = _column(Path(thresholds), _threshold, len(vocabulary), path)
        vocabulary = vocabulary.with_thresholds(values)
    names = {key: tuple(_column(Path(file), _tag, len(vocabulary), path)) for key, file in (translations or {}).items()}
    return replace(vocabulary, translations={**vocabulary.translations, **names})


def write_vocabulary(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> None:
    """Write all of ``vocabulary`` as ``.csv`` or ``.json``; :func:`read_vocabulary` reads it back without loss.

    A file that is there is replaced in one step. CSV has no place for ``allow_repeats``: say it again when reading.

    Raises:
        InputError: If ``path`` ends in neither.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    writers = {".csv": _to_csv, ".json": _to_json}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path} must end in one of {', '.join(writers)}; a text list has no place for all columns")
    text = writers[path.suffix.lower()](vocabulary)
    with write_atomically(path, text=True) as file:
        file.write(text)


# Text lists


def _read_text(path: Path, allow_repeats: bool) -> Vocabulary:
    names = _column(path, _tag)
    if not allow_repeats:
        _refuse_repeats(path, enumerate(names, start=1))
    return _built(path, {"names": tuple(names), "allow_repeats": allow_repeats})


def _column(path: Path, parse: Callable[[str], Value], count: int | None = None, of: Path | None = None) -> list[Value]:
    lines = _text_of(path).removesuffix("\n").split("\n")
    values = [_parsed(path, number, parse, line) for number, line in enumerate(lines, start=1)]
    if count is not None and len(values) != count:
        raise FormatError(f"{path} has {len(values)} lines, expected {count}, one per tag of {of}")
    return values


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        # Editors on Windows put a byte order mark in front and end lines with two characters.
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _parsed(path: Path, line: int, parse: Callable[[str], Value], text: str) -> Value:
    try:
        return parse(text)
    except ValueError as error:
        raise FormatError(f"{path}:{line}: {error}") from error


def _tag(text: str) -> str:
    text = text.strip()
    problem = tag_problem(text)
    if problem is not None:
        raise ValueError(f"the tag {problem}")
    return text


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ValueError(f"a threshold must be a number in [0, 1], got {text.strip()[:40]!r}")
    return value


def _refuse_repeats(path: Path, numbered: Iterator[tuple[int, str]]) -> None:
    seen: dict[str, int] = {}
    for line, name in numbered:
        if name in seen:
            hint = "pass allow_repeats=True if a word stands for several meanings, as in Tag2Text's list"
            raise FormatError(f"{path}:{line}: the tag {name!r} stands in line {seen[name]} already; {hint}")
        seen[name] = line


# CSV


def _read_csv(path: Path, allow_repeats: bool) -> Vocabulary:
    rows = _csv_rows(path)
    header = next((cells for _, cells in rows), [])
    _check_header(path, header)
    columns: dict[str, list[Any]] = {name: [] for name in header}
    lines = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise FormatError(f"{path}:{line}: expected {len(header)} columns as in the header, got {len(cells)}")
        for name, cell in zip(header, cells, strict=True):
            columns[name].append(_parsed(path, line, _cell_parser(name), cell))
        lines.append(line)
    if not allow_repeats:
        _refuse_repeats(path, zip(lines, columns["name"], strict=True))
    values = {field: columns.get(column) for field, column in zip(_FIELDS_OF_CSV, _COLUMNS, strict=True)}
    translations = {name.removeprefix(_TRANSLATION): tuple(columns[name]) for name in header if _is_translation(name)}
    return _built(path, {**values, "translations": translations, "allow_repeats": allow_repeats})


_FIELDS_OF_CSV = ("names", "ids", "thresholds", "kinds", "synonyms")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise FormatError(f"{path}:{reader.line_num}: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    for column in header:
        if column not in _COLUMNS and not _is_translation(column):
            known = ", ".join((*_COLUMNS, f"{_TRANSLATION}<language>"))
            raise FormatError(f'{path}:1: unknown column "{column}"{did_you_mean(column, _COLUMNS)} (known: {known})')
    if "name" not in header or len(set(header)) != len(header):
        raise FormatError(f'{path}:1: the header must have the column "name", and each column once')


def _is_translation(column: str) -> bool:
    return column.startswith(_TRANSLATION) and len(column) > len(_TRANSLATION)


def _cell_parser(column: str) -> Callable[[str], Any]:
    return {"id": _id, "threshold": _threshold, "kind": _kind, "synonyms": _synonyms}.get(column, _tag)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"an id must be a whole number from 0, got {text!r}")
    return int(text)


def _kind(text: str) -> str | None:
    if text and text not in KINDS:
        raise ValueError(f"a kind must be one of {', '.join(KINDS)} or empty, got {text!r}")
    return text or None


def _synonyms(text: str) -> tuple[str, ...]:
    return tuple(_tag(part) for part in text.split("|")) if text else ()


def _to_csv(vocabulary: Vocabulary) -> str:
    data = vocabulary.to_dict()
    columns: dict[str, list[Any]] = {"name": data["names"], "id": data["ids"]}
    if data["thresholds"] is not None:
        columns["threshold"] = data["thresholds"]
    if data["kinds"] is not None:
        columns["kind"] = [kind or "" for kind in data["kinds"]]
    if data["synonyms"] is not None:
        columns["synonyms"] = ["|".join(row) for row in data["synonyms"]]
    columns |= {_TRANSLATION + language: names for language, names in data["translations"].items()}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


# JSON


def _read_json(path: Path, allow_repeats: bool) -> Vocabulary:
    try:
        data = json.loads(_text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise FormatError(f"{path}:{line}: no valid JSON: {getattr(error, 'msg', 'nested too deeply')}") from error
    if isinstance(data, list):
        return _built(path, {"names": data, "allow_repeats": allow_repeats})
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        raise FormatError(f'{path}: expected a list of names, or an object with "schema": "{SCHEMA}"')
    for key in data:
        if key not in _FIELDS:
            raise FormatError(f'{path}: unknown key "{key}"{did_you_mean(key, _FIELDS)}')
    repeats = allow_repeats or data.get("allow_repeats") is True
    return _built(path, {"translations": {}, **data, "allow_repeats": repeats})


def _to_json(vocabulary: Vocabulary) -> str:
    return json.dumps({"schema": SCHEMA, **vocabulary.to_dict()}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _built(path: Path, values: Mapping[str, Any]) -> Vocabulary:
    try:
        return Vocabulary(**values)
    except (InputError, TypeError) as error:
        raise FormatError(f"{path}: {error}") from error

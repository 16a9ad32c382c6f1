"""Parquet files for other tools: rows in groups of bounded size, and the features that Hugging Face reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasa.errors import FormatError, InputError
from rasa.formats._class_ids import class_ids

Feature = Mapping[str, Any]


def feature(dtype: str) -> Feature:
    """A single value, such as ``feature("int64")``, as Hugging Face's `datasets` writes it."""
    return {"dtype": dtype, "_type": "Value"}


def list_of(inner: Feature, *, length: int = -1) -> Feature:
    """A list; the older name ``Sequence`` is understood by all versions of `datasets`."""
    return {"feature": inner, "length": length, "_type": "Sequence"}


def class_label(classes: Sequence[str]) -> Feature:
    """An id of one of ``classes``."""
    return {"names": list(classes), "_type": "ClassLabel"}


def schema_of(columns: Mapping[str, pa.DataType], features: Mapping[str, Any], own: Mapping[str, Any]) -> pa.Schema:
    """A schema with the metadata of `datasets` and with ours.

    Args:
        columns: Name to type.
        features: What `datasets` is told about them.
        own: Plain JSON values for :func:`own_metadata`.
    """
    huggingface = {"info": {"features": dict(features)}}
    metadata = {"huggingface": _json(huggingface), "rasa": _json(own)}
    return pa.schema(list(columns.items()), metadata=metadata)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"))


class GroupedWriter:
    """Writes rows to a Parquet file, a row group whenever enough are there.

    Args:
        path: A new file.
        schema: Of the rows.
        most_rows: Rows of a group.
        most_bytes: Bytes that a group may hold, as the caller counts them.
        verbatim: Columns that are compressed already.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, *, most_rows: int, most_bytes: int, verbatim: Sequence[str] = ()
    ) -> None:
        self._schema, self._most_rows, self._most_bytes = schema, most_rows, most_bytes
        leaves = _leaves(schema)
        codec = {leaf: "NONE" if leaf in verbatim else "ZSTD" for leaf in leaves}
        words = [leaf for leaf in leaves if leaf not in verbatim]
        self._file = path.open("xb")
        self._writer = pq.ParquetWriter(self._file, schema, compression=codec, use_dictionary=words)
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0
        self.written = 0  # bytes given so far, also those of the open group

    def add(self, row: Mapping[str, Any], *, size: int) -> None:
        """Add a row of about ``size`` bytes."""
        self._rows.append(row)
        self._bytes += size
        self.written += size
        if len(self._rows) >= self._most_rows or self._bytes >= self._most_bytes:
            self._flush()

    def close(self) -> None:
        """Write what is left and the end of the file."""
        try:
            self._flush()
            self._writer.close()
        finally:
            self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0


def own_metadata(path: Path, *, schema: str) -> Mapping[str, Any]:
    """What :func:`schema_of` was given as ``own``.

    Raises:
        FormatError: If the file is no Parquet, or is not of the kind ``schema``.
        InputError: If it cannot be read.
    """
    metadata = _opened(path).schema_arrow.metadata or {}
    try:
        own = json.loads(metadata.get(b"rasa", b"null"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: the metadata of the schema is no JSON: {error}") from error
    if not isinstance(own, dict) or own.get("schema") != schema:
        raise FormatError(f"{path} was not written by rasa as {schema!r}; its schema does not say so")
    return own


def own_classes(path: Path, *, schema: str) -> tuple[str, ...]:
    """The class names that a file of the kind ``schema`` was written with, in the order of their ids.

    Raises:
        FormatError: If the file is no Parquet, is of another kind, or has no list of distinct classes.
        InputError: If it cannot be read.
    """
    own = own_metadata(path, schema=schema)
    try:
        return tuple(class_ids(own["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} has no list of classes in its metadata: {error}") from error


def read_rows(path: Path, columns: Sequence[str], *, batch_rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers, ``batch_rows`` of them in memory at a time.

    Raises:
        FormatError: If the file is damaged, or a column is missing.
        InputError: If it cannot be read.
    """
    file = _opened(path)
    if missing := [column for column in columns if column not in file.schema_arrow.names]:
        raise FormatError(f"{path} has no column {missing[0]!r}; expected {', '.join(columns)}")
    number = 0
    try:
        for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns), use_threads=False):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is damaged after row {number}: {error}") from error
    finally:
        file.close()


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise FormatError(f"{path} is no Parquet file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as Parquet counts them: those of structs and lists one by one."""
    parquet = pq.ParquetFile(pa.BufferReader(_empty(schema))).schema
    return [parquet.column(position).path for position in range(len(parquet))]


def _empty(schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()

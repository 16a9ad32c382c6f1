"""Parquet manifests: the published keys as columns, read and written in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rasa._files import write_atomically
from rasa.errors import InputError
from rasa_ram.data.manifest_faults import RowError
from rasa_ram.data.manifest_rows import RowCheck, row_of
from rasa_ram.data.records import Record

SCHEMA = pa.schema(
    [
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("caption", pa.list_(pa.string()), nullable=False),
        pa.field("union_label_id", pa.list_(pa.int32())),
        pa.field("parse_label_id", pa.list_(pa.list_(pa.int32())), nullable=False),
    ]
)
ROWS_PER_GROUP = 65_536
_READ_ROWS = 4096
_COLUMNS = ("image_path", "image", "caption", "union_label_id", "parse_label_id")


def read_parquet(path: Path, check: RowCheck) -> Iterator[Record]:
    """The good records of a Parquet file, some thousand rows in memory at a time.

    Raises:
        FormatError: At a bad record, unless they are skipped; or if the file is no Parquet.
        InputError: If the file cannot be read.
    """
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
            for batch in file.iter_batches(batch_size=_READ_ROWS, columns=columns):
                for row in batch.to_pylist():
                    record = check.record(row, number)
                    number += 1
                    if record is not None:
                        yield record
    except pa.ArrowException as error:
        why = f"is no whole Parquet file ({_first_line(error)}); {number} records were read before"
        check.fail(RowError("broken-file", why), number, error)
    except OSError as error:
        raise InputError(f"cannot read {path}: {_first_line(error)}") from error


def write_parquet(records: Iterable[Record], path: Path) -> int:
    """Write a Parquet file; returns how many records. The file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    count, left = 0, iter(records)
    with (
        write_atomically(path, make_folder=True) as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        while rows := [row_of(record) for record in islice(left, ROWS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            count += len(rows)
    return count


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

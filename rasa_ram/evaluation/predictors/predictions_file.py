"""Predictions that something else made, such as ODISE, SEEM, MKT or a commercial service, from a file."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import DependencyError, FormatError, InputError, RasaWarning
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.lines import read_lines
from rasa_ram.evaluation.benchmarks.table import IMAGE_COLUMNS
from rasa_ram.evaluation.predictors.asked import places_of_words

Row = tuple[str, str, str, float]


def read_predictions(path: Path, benchmark: Benchmark) -> FloatArray:
    """Scores of a file of predictions.

    Each row has an image (``image``, ``id``, ``path`` or ``file_name``), a ``tag`` and maybe a ``score`` (else 1). An
    image is found by the benchmark's name of it, with or without folder and ending where that is not ambiguous; a tag
    by any word of a class, whatever its case. Of a pair that comes twice the better score counts.

    Args:
        path: ``.csv``, ``.jsonl`` (an object per line) or ``.parquet``.
        benchmark: Gives images and classes.

    Returns:
        float32 ``(N, T)``, minus infinity where the file has no score.

    Raises:
        FormatError: If a row is malformed; the message names it.
        InputError: If the file cannot be read, or none of its images is the benchmark's.

    Warns:
        RasaWarning: Of images and tags that the benchmark has not, and of its images that the file has not.
    """
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path} must be a .csv, .jsonl or .parquet file of predictions")
    rows, places = _image_rows(benchmark), places_of_words(benchmark.words or ())
    scores = np.full(benchmark.truth.shape, -np.inf, np.float32)
    seen, unknown_images, unknown_tags = set[int](), set[str](), set[str]()
    for _, image, tag, score in _READERS[path.suffix.lower()](path):
        row = _found(rows, image)
        if row is None:
            unknown_images.add(image)
            continue
        seen.add(row)
        columns = places.get(tag.casefold())
        if columns is None and tag:
            unknown_tags.add(tag)
        for column in columns or ():
            scores[row, column] = max(scores[row, column], score)
    if not seen:
        raise InputError(f"{path} has none of the {len(benchmark.images)} images, such as {benchmark.images[0]!r}")
    _warn(path, len(benchmark.images) - len(seen), "images of the benchmark are not in it and count as without tags")
    _warn(
        path,
        len(unknown_images),
        f"of its images are not in the benchmark, such as {min(unknown_images, default='')!r}",
    )
    _warn(path, len(unknown_tags), f"of its tags are no class of it, such as {min(unknown_tags, default='')!r}")
    return scores


def _warn(path: Path, count: int, what: str) -> None:
    if count:
        warnings.warn(f"{path}: {count} {what}", RasaWarning, stacklevel=3)


def _image_rows(benchmark: Benchmark) -> dict[str, int]:
    """Names that an image may be called by to its row; -1 where it would be ambiguous."""
    rows: dict[str, int] = {}
    for row, image in enumerate(benchmark.images):
        for name in _shorter(image):
            rows[name] = -1 if name in rows else row
    return rows | {image: row for row, image in enumerate(benchmark.images)}


def _shorter(image: str) -> set[str]:
    path = PurePosixPath(image)
    return {str(path.with_suffix("")), path.name, path.stem}


def _found(rows: Mapping[str, int], image: str) -> int | None:
    name = image.replace("\\", "/")
    for candidate in (
        name,
        str(PurePosixPath(name).with_suffix("")),
        PurePosixPath(name).name,
        PurePosixPath(name).stem,
    ):
        if rows.get(candidate, -1) >= 0:
            return rows[candidate]
    return None


def _row(where: str, content: Any) -> Row:
    if not isinstance(content, dict):
        raise FormatError(f"{where}: expected an object with image, tag and score")
    image = next((content[name] for name in ("image", *IMAGE_COLUMNS) if content.get(name)), None)
    tag, score = content.get("tag"), content.get("score")
    if not isinstance(image, str) or not isinstance(tag, str):
        raise FormatError(f"{where}: expected an image ({', '.join(IMAGE_COLUMNS)}) and a tag, got {str(content)[:80]}")
    try:
        number = 1.0 if score is None or score == "" else float(score)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"{where}: a score must be a finite number, got {str(score)[:40]!r}")
    return where, image, tag.strip(), number


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                yield _row(f"{path}, line {reader.line_num}", row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    for where, text in read_lines(path):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: no JSON: {str(error)[:200]}") from error
        yield _row(where, content)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa  # noqa: PLC0415  (needed for this format alone)
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise DependencyError(f'{path} needs the package pyarrow; install the extra "label"') from error
    try:
        number = 0
        with pq.ParquetFile(path) as file:
            wanted = [name for name in file.schema_arrow.names if name in {"image", *IMAGE_COLUMNS, "tag", "score"}]
            for batch in file.iter_batches(batch_size=65_536, columns=wanted):
                for content in batch.to_pylist():
                    number += 1
                    yield _row(f"{path}, row {number}", content)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path} is no Parquet file that can be read: {str(error)[:200]}") from error


_READERS = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}

"""Evaluation: the figures of one predictor on one benchmark, and their file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.bootstrap import Interval

SCHEMA = "rasa_ram.evaluation/1"
# Bytes that are read; a result of 20,000 classes has about 5 MB.
_MAX_FILE = 100_000_000


@dataclass(frozen=True, slots=True)
class TagFigures:
    """What was measured of one class; all in [0, 1], NaN where it has no meaning.

    Attributes:
        name: The class.
        positives: Images that show it.
        average_precision: Equal scores share the last of their ranks; NaN without positives.
        lowest: Average precision in the worst order of equal scores.
        highest: In the best order.
        threshold: NaN where there is none.
        precision: NaN without a threshold or without positives.
        recall: Likewise.
        f1: Likewise.
    """

    name: str
    positives: int
    average_precision: float
    lowest: float
    highest: float
    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one predictor on one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        model: Name of the predictor, by which tables find it.
        images: How many were scored.
        classes: How many there are.
        skipped: Images left out because they could not be read.
        published: The original's figures: ``map``, and with thresholds ``precision`` and ``recall`` (means over
            classes); classes without positives count as 0, equal scores stand last image first.
        figures: Ours: ``map`` and, with thresholds, ``class_precision``, ``class_recall``, ``class_f1``,
            ``overall_precision``, ``overall_recall`` and ``overall_f1``, classes without positives left out;
            ``micro_ap`` of all scores of all classes together; ``map_lowest`` and ``map_highest``, in the worst and
            the best order of equal scores.
        intervals: Of some of ``figures``, from the bootstrap over images; ``published_map`` is that of the original's.
        without_positives: Classes that no image shows.
        with_ties: Classes whose average precision depends on the order of equal scores.
        settings: Thresholds, resamples and seed, and what the predictor says of itself.
        notes: What a reader of the figures must know.
        tags: Figures of each class.
    """

    benchmark: str
    model: str
    images: int
    classes: int
    skipped: int
    published: Mapping[str, float]
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    without_positives: int
    with_ties: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tags: tuple[TagFigures, ...] = ()

    def write(self, path: Path) -> None:
        """Write a JSON file; NaN becomes null.

        Raises:
            OutputError: If the file cannot be written.
        """
        content = {"schema": SCHEMA, **_without_nan(asdict(self))}
        with write_atomically(path, text=True, make_folder=True) as file:
            json.dump(content, file, indent=1, ensure_ascii=False, default=str)
            file.write("\n")


def read_evaluation(path: Path) -> Evaluation:
    """Read what :meth:`Evaluation.write` wrote.

    Raises:
        FormatError: If the file is no such JSON.
        InputError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        return _evaluation(json.loads(data))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise FormatError(f"{path} is no result of `rasa-ram evaluate`: {str(error)[:200]}") from error


def _evaluation(content: dict[str, Any]) -> Evaluation:
    if content.pop("schema", None) != SCHEMA:
        raise FormatError(f'the schema is not "{SCHEMA}"')
    names = {item.name for item in fields(Evaluation)}
    if unknown := content.keys() ^ names:
        raise FormatError(f"fields {', '.join(sorted(unknown))} are missing or unknown")
    for key in ("images", "classes", "skipped", "without_positives", "with_ties"):
        content[key] = int(content[key])
    for key in ("published", "figures"):
        content[key] = {name: _number(value) for name, value in content[key].items()}
    content["intervals"] = {
        name: Interval(_number(value["low"]), _number(value["high"])) for name, value in content["intervals"].items()
    }
    content["tags"] = tuple(_tag(row) for row in content["tags"])
    content["notes"] = tuple(map(str, content["notes"]))
    content["benchmark"], content["model"] = str(content["benchmark"]), str(content["model"])
    return Evaluation(**content)


def _tag(row: Mapping[str, Any]) -> TagFigures:
    numbers = [item.name for item in fields(TagFigures)][2:]
    return TagFigures(str(row["name"]), int(row["positives"]), *(_number(row[name]) for name in numbers))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value

"""The papers' tables with the published figures beside the measured ones; what was not run is marked so."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rasa_ram.evaluation.benchmarks.known import BENCHMARKS
from rasa_ram.evaluation.evaluation import Evaluation

NOT_RUN = "not run"
NOT_PRINTED = "-"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table of a paper, beside what was measured.

    Attributes:
        name: Such as ``"ram-2"``.
        title: Paper, table and figure.
        source: Where the published figures are from.
        columns: Titles, ``method`` first.
        rows: A text for each column: the published figure, then the measured one or :data:`NOT_RUN`.
        notes: What a reader must know, with the notes of the results.
    """

    name: str
    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def compare(evaluations: Sequence[Evaluation]) -> tuple[Comparison, ...]:
    """All tables; of two results of one model on one benchmark the last one counts.

    Models that the papers have not get a row of their own in the tables whose benchmarks they were measured on.
    """
    found = {(result.model, _column_of(result.benchmark)): result for result in evaluations}
    return tuple(_comparison(table, found) for table in _tables())


def _column_of(benchmark: str) -> str:
    known = BENCHMARKS.get(benchmark)
    return benchmark if known is None else known.same_as or benchmark


def to_markdown(comparison: Comparison) -> str:
    """The table as a section of Markdown."""
    rows = [comparison.columns, tuple("---" for _ in comparison.columns), *comparison.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    notes = [f"- {note}" for note in comparison.notes]
    head = [f"## {comparison.title}", "", "Published | measured, in percent.", f"Published: {comparison.source}.", ""]
    return "\n".join([*head, *lines, "", *notes, ""])


def _comparison(table: Mapping[str, Any], found: Mapping[tuple[str, str], Evaluation]) -> Comparison:
    figure, benchmarks = table["figure"], table["benchmarks"]
    rows, used = [], []
    listed = {model for row in table["rows"] for model in row["models"]}
    others = sorted({model for model, benchmark in found if benchmark in benchmarks and model not in listed})
    empty = [""] * len(benchmarks)
    for row in [*table["rows"], *({"method": model, "models": [model], "cells": empty} for model in others)]:
        cells = [row["method"]]
        for benchmark, cell in zip(benchmarks, row["cells"], strict=True):
            result = next((found[model, benchmark] for model in row["models"] if (model, benchmark) in found), None)
            used += [] if result is None else [result]
            cells.append(f"{cell or NOT_PRINTED} | {measured(result, figure)}")
        rows.append(tuple(cells))
    carried = [f"{result.benchmark}: {note}" for result in used for note in result.notes]
    skipped = [
        f"{result.model} on {result.benchmark}: {result.skipped} images could not be read"
        for result in used
        if result.skipped
    ]
    notes = tuple(dict.fromkeys([*table["notes"], *carried, *skipped]))
    return Comparison(table["name"], table["title"], table["source"], ("method", *table["columns"]), tuple(rows), notes)


def measured(result: Evaluation | None, figure: str) -> str:
    """The published kind of figure of a result, in percent; mAP with its interval if there is one."""
    if result is None:
        return NOT_RUN
    values = [result.published.get(name, math.nan) for name in figure.split("/")]
    if any(math.isnan(value) for value in values):
        return "no threshold"
    text = "/".join(f"{100 * value:.1f}" for value in values)
    interval = result.intervals.get(f"published_{figure}")  # that of our own figure does not belong to this one
    return text if interval is None else f"{text} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


@cache
def _tables() -> Sequence[Mapping[str, Any]]:
    text = (files("rasa_ram.evaluation") / "published_tables.toml").read_text(encoding="utf-8")
    tables: Sequence[Mapping[str, Any]] = tomllib.loads(text)["tables"]
    return tables

"""The text files of the published evaluation: a list of tags, and a line for each image.

OpenImages gives the tags of an image by name (``test/0000c64e1253d68f,car``) or by the Tag2Text class ids of its list;
HICO and ImageNet-multi give places in the list (``HICO_test2015_00000002.jpg,131 139 143``), counted from 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from rasa._suggest import did_you_mean
from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark, TruthBuilder
from rasa_ram.evaluation.benchmarks.lines import read_lines, read_names

Labels = Literal["names", "ids", "places"]


def read_tag_lists(
    annotations: Path,
    taglist: Path,
    *,
    name: str,
    labels: Labels = "names",
    vocabulary: Sequence[str] | None = None,
    notes: tuple[str, ...] = (),
) -> Benchmark:
    """Read a benchmark from its two text files.

    Args:
        annotations: A line for each image: its name, then its labels; no labels mean that it shows no class.
        taglist: A class per line.
        name: What to call the benchmark.
        labels: ``"names"``: comma-separated names of the list. ``"ids"``: the list holds rows of a model's label
            table, and so do the lines. ``"places"``: space-separated places in the list, from 0.
        vocabulary: For ``"ids"``: the names of that table, by row; without it the classes are called by their ids.
        notes: Of the benchmark.

    Raises:
        FormatError: If a line or name is malformed; the message names the line.
        InputError: If a file cannot be read or the vocabulary does not fit.
    """
    classes = read_names(taglist)
    columns: dict[str, list[int]] = defaultdict(list)
    for column, label in enumerate(map(str, range(len(classes))) if labels == "places" else classes):
        columns[label].append(column)
    builder = TruthBuilder(annotations, len(classes))
    for where, text in read_lines(annotations):
        image, _, rest = text.partition(",")
        row = builder.add_image(image.strip(), where)
        found = rest.split() if labels == "places" else [label.strip() for label in rest.split(",") if label.strip()]
        for label in found:
            for column in _columns(label, columns, where):
                builder.add(row, column)
    images, truth = builder.build()
    ids = _ids(classes, taglist) if labels == "ids" else None
    named = classes if ids is None or vocabulary is None else _named(ids, vocabulary)
    return Benchmark(name, images, named, truth, class_ids=ids, notes=notes)


def _columns(label: str, columns: Mapping[str, Sequence[int]], where: str) -> Sequence[int]:
    if label not in columns:
        raise FormatError(f"{where}: {label[:80]!r} is none of the {len(columns)} labels{did_you_mean(label, columns)}")
    return columns[label]


def _ids(classes: Sequence[str], taglist: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    for number, text in enumerate(classes, 1):
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise FormatError(f"{taglist}, line {number}: expected a row of the label table, got {text[:80]!r}")
    return np.array(classes, np.int64)


def _named(ids: np.ndarray[tuple[int], np.dtype[np.int64]], vocabulary: Sequence[str]) -> tuple[str, ...]:
    if ids.max() >= len(vocabulary):
        raise InputError(f"class id {ids.max()} is none of the {len(vocabulary)} rows; give the vocabulary of Tag2Text")
    return tuple(vocabulary[int(i)] for i in ids)

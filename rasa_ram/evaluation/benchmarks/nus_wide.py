"""NUS-WIDE 81: the folders of its text files."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark, TruthBuilder
from rasa_ram.evaluation.benchmarks.lines import read_lines, read_names

_LISTS = {"concepts": "Concepts81.txt", "images": "TestImagelist.txt"}


def read_nus_wide(folder: Path, *, name: str, notes: tuple[str, ...] = ()) -> Benchmark:
    r"""Read the test part of NUS-WIDE from the folder that holds its archives unpacked.

    Looked for at any depth: ``Concepts81.txt``, ``TestImagelist.txt`` (``actor\0001_2124494179.jpg``) and, for each
    concept, ``Labels_<concept>_Test.txt``, which has a 0 or 1 for each line of the list. Images without any of the
    concepts are left out, as Tag2Text's figures are of images with tags.

    Raises:
        FormatError: If a file is malformed; the message names the line.
        InputError: If a file is missing or cannot be read.
    """
    concepts = read_names(_find(folder, _LISTS["concepts"]))
    images = [(where, text.strip().replace("\\", "/")) for where, text in read_lines(_find(folder, _LISTS["images"]))]
    found: list[list[int]] = [[] for _ in images]
    for column, concept in enumerate(concepts):
        labels = read_lines(_find(folder, f"Labels_{concept}_Test.txt"))
        for row, (_, label) in enumerate(zip_longest(images, labels)):
            if label is None or row >= len(images):
                raise FormatError(f"Labels_{concept}_Test.txt must have {len(images)} lines, a 0 or 1 for each image")
            where, text = label
            if text.strip() not in {"0", "1"}:
                raise FormatError(f"{where}: expected 0 or 1, got {text[:80]!r}")
            if text.strip() == "1":
                found[row].append(column)
    builder = TruthBuilder(folder, len(concepts))
    for (where, image), columns in zip(images, found, strict=True):
        if columns:
            row = builder.add_image(image, where)
            for column in columns:
                builder.add(row, column)
    names, truth = builder.build()
    return Benchmark(name, names, concepts, truth, notes=notes)


def _find(folder: Path, file: str) -> Path:
    path = next(iter(sorted(folder.rglob(file))), None) if folder.is_dir() else None
    if path is None:
        raise InputError(f"{folder} has no {file}; unpack the concept list, image list and ground truth of NUS-WIDE")
    return path

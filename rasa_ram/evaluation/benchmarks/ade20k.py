"""ADE20k 150 and our clean subset of it: from the label images of the scene parsing benchmark."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import PIL.Image

from rasa.arrays import ByteArray
from rasa.errors import FormatError, InputError
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark, TruthBuilder
from rasa_ram.evaluation.benchmarks.class_words import dropped_from_ade20k, words_of
from rasa_ram.evaluation.benchmarks.lines import read_lines

# Pixels; the largest label image of the validation set has 2100 x 2100.
MAX_PIXELS = 50_000_000


def read_ade20k(annotations: Path, objects: Path, *, name: str, notes: tuple[str, ...] = ()) -> Benchmark:
    """Read a benchmark from a folder of label images.

    A pixel holds 0 for none or the number of its class; an image shows a class if a single pixel does.

    Args:
        annotations: The folder ``annotations/validation``, a PNG file per image.
        objects: ``objectInfo150.txt``: number, shares, and the class's names separated by commas; tabs between them.
        name: What to call the benchmark.
        notes: Of the benchmark.

    Raises:
        FormatError: If a file is malformed; the message names it, and the line.
        InputError: If a file cannot be read.
    """
    classes = _read_classes(objects)
    paths = sorted(annotations.glob("*.png")) if annotations.is_dir() else []
    if not paths:
        raise InputError(
            f"{annotations} must be a folder with the label images of ADE20k, such as ADE_val_00000001.png"
        )
    builder = TruthBuilder(annotations, len(classes))
    for path in paths:
        row = builder.add_image(path.stem, str(path))
        found = np.flatnonzero(np.bincount(_read_labels(path).ravel(), minlength=1))
        if found[-1] > len(classes):
            raise FormatError(f"{path}: a pixel has class {found[-1]}, there are {len(classes)}")
        for number in found[found > 0]:
            builder.add(row, int(number) - 1)
    images, truth = builder.build()
    return Benchmark(name, images, classes, truth, words=words_of("ade20k", classes), notes=notes)


def clean_subset(benchmark: Benchmark, *, name: str) -> Benchmark:
    """The classes without those that cannot be told by their name; our choice, for the paper's 143 are not published.

    Raises:
        InputError: If one of the dropped classes is not in the benchmark.
    """
    dropped = dropped_from_ade20k()
    if missing := sorted(dropped.keys() - set(benchmark.classes)):
        raise InputError(f"{benchmark.name} has no class {missing[0]!r}; read ADE20k with its objectInfo150.txt")
    kept = [i for i, label in enumerate(benchmark.classes) if label not in dropped]
    note = f"our protocol: without {', '.join(sorted(dropped))}; the paper's list of {len(kept)} is not published"
    return benchmark.take_classes(kept, name=name, note=note)


def _read_classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for where, text in read_lines(path):
        cells = [cell.strip() for cell in text.split("\t")]
        if cells[0] == "Idx":
            continue
        name = cells[-1].partition(",")[0].strip()
        if cells[0] != str(len(names) + 1) or len(cells) < 2 or not name:
            raise FormatError(f"{where}: expected number {len(names) + 1}, shares and names between tabs")
        names.append(name)
    if not names:
        raise FormatError(f"{path} has no classes; give objectInfo150.txt")
    return tuple(names)


def _read_labels(path: Path) -> ByteArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=["PNG"]) as image:
                _check_labels(image, path)
                return np.asarray(image)
    except FormatError:
        raise
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombWarning) as error:
        raise FormatError(f"{path} is no label image: {error}") from error
    except PIL.Image.DecompressionBombError as error:
        raise FormatError(f"{path} is too large: {error}") from error


def _check_labels(image: PIL.Image.Image, path: Path) -> None:
    """Before the pixels are decoded."""
    if image.mode not in {"L", "P"} or image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} of {image.mode}"
        raise FormatError(f"{path}: expected 8-bit labels of at most {MAX_PIXELS} pixels, got {size}")

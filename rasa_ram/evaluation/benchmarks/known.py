"""The benchmarks of the papers by name: which reader, how many images and classes, and what to know about each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rasa._suggest import did_you_mean
from rasa.errors import DependencyError, InputError, RasaWarning
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.tag_lists import Labels, read_tag_lists

Reader = Literal["lists", "coco", "ade20k", "ade20k-clean", "nus-wide", "table"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a published benchmark.

    Attributes:
        reader: Which family of formats.
        classes: How many there are; None if that is free.
        images: How many the papers measured on; None if that is free.
        labels: How its text files label images, for the reader ``lists``.
        notes: Sentences that results carry along.
        same_as: The benchmark that has the same images and classes, labelled otherwise; tables show both as this one.
    """

    reader: Reader
    classes: int | None
    images: int | None
    labels: Labels = "names"
    notes: tuple[str, ...] = ()
    same_as: str | None = None


_OWN_WORDS = "our protocol: which words stand for a class is our choice; the paper's mapping is not published"
_REAL_50000 = "the published file has 50,000 images, the paper measured on 5,000 that it does not list"
BENCHMARKS: Mapping[str, Known] = {
    "openimages-common-214": Known("lists", 214, 57224),
    "openimages-common-214-ids": Known(
        "lists",
        214,
        57224,
        "ids",
        ("classes are rows of Tag2Text's label table",),
        same_as="openimages-common-214",
    ),
    "openimages-rare-200": Known("lists", 200, 21991, notes=("RAM++ calls this set OpenImages-uncommon",)),
    "hico-600": Known("lists", 600, 9658, "places", ("underscores of the published names are asked for as spaces",)),
    "imagenet-multi": Known("lists", 1000, 50000, "places", (_REAL_50000,)),
    "coco-80": Known("coco", 80, 5000, notes=(_OWN_WORDS,)),
    "coco-133": Known("coco", 133, 5000, notes=(_OWN_WORDS,)),
    "ade20k-150": Known("ade20k", 150, 2000, notes=(_OWN_WORDS,)),
    "ade20k-clean-143": Known("ade20k-clean", 143, 2000, notes=(_OWN_WORDS,)),
    "nus-wide-81": Known("nus-wide", 81, 50720, notes=("images without any of the 81 concepts are left out",)),
    "csv": Known("table", None, None),
}


def open_benchmark(
    name: str, annotations: Path, taglist: Path | None = None, *, vocabulary: Sequence[str] | None = None
) -> Benchmark:
    """Read a benchmark of :data:`BENCHMARKS` from its published files.

    Args:
        name: A key of :data:`BENCHMARKS`.
        annotations: The file, or the folder for ADE20k and NUS-WIDE.
        taglist: The list of classes, where the annotations do not hold it; ``objectInfo150.txt`` for ADE20k.
        vocabulary: Names of Tag2Text's label table by row, for the benchmark of ids.

    Raises:
        InputError: If there is no such benchmark, the list is missing, or a file cannot be read.
        FormatError: If a file is malformed.
        DependencyError: If a package that reads the file is not installed.

    Warns:
        RasaWarning: If images or classes are not as many as published.
    """
    if name not in BENCHMARKS:
        raise InputError(f'unknown benchmark "{name}"{did_you_mean(name, BENCHMARKS)}; known: {", ".join(BENCHMARKS)}')
    known = BENCHMARKS[name]
    if known.reader == "lists":
        list_of = _required(taglist, name)
        benchmark = read_tag_lists(
            annotations, list_of, name=name, labels=known.labels, vocabulary=vocabulary, notes=known.notes
        )
        benchmark = _without_underscores(benchmark) if name == "hico-600" else benchmark
    else:
        benchmark = _READERS[known.reader](name, annotations, taglist)
    for what, expected, got in (
        ("classes", known.classes, len(benchmark.classes)),
        ("images", known.images, len(benchmark.images)),
    ):
        if expected is not None and got != expected:
            message = f"{name} has {expected} {what} as published, {annotations} has {got}; figures do not compare"
            warnings.warn(message, RasaWarning, stacklevel=2)
    return benchmark


def split_by_vocabulary(benchmark: Benchmark, vocabulary: Sequence[str], *, common: bool) -> Benchmark:
    """The classes that a vocabulary has (common), or the others (uncommon), as RAM++ splits ImageNet.

    Our protocol: a class counts as common if its name is a tag, whatever the case. The paper counts 492 of 1,000
    and does not list them.

    Raises:
        InputError: If no class is left.
    """
    known = {tag.casefold() for tag in vocabulary}
    kept = [i for i, name in enumerate(benchmark.classes) if (name.casefold() in known) == common]
    part = "common" if common else "uncommon"
    if not kept:
        raise InputError(f"{benchmark.name} has no {part} classes for this vocabulary of {len(vocabulary)} tags")
    note = f"our protocol: {len(kept)} classes whose name is {'' if common else 'not '}in the vocabulary"
    return benchmark.take_classes(kept, name=f"{benchmark.name}-{part}", note=note)


def _without_underscores(benchmark: Benchmark) -> Benchmark:
    return Benchmark(
        benchmark.name,
        benchmark.images,
        benchmark.classes,
        benchmark.truth,
        words=tuple((name.replace("_", " "),) for name in benchmark.classes),
        notes=benchmark.notes,
    )


def _required(taglist: Path | None, name: str) -> Path:
    if taglist is None:
        raise InputError(f"benchmark {name} needs its list of classes beside the annotations; give it as the tag list")
    return taglist


# The packages of a reader (ijson, Pillow) are imported when a benchmark needs them.
def _read_coco(name: str, annotations: Path, _: Path | None) -> Benchmark:
    if find_spec("ijson") is None:
        raise DependencyError(f'benchmark {name} needs the package "ijson"; install the extra "train"')
    from rasa_ram.evaluation.benchmarks.coco import read_coco  # noqa: PLC0415

    return read_coco(annotations, name=name, notes=BENCHMARKS[name].notes)


def _read_ade20k(name: str, annotations: Path, objects: Path | None) -> Benchmark:
    from rasa_ram.evaluation.benchmarks.ade20k import clean_subset, read_ade20k  # noqa: PLC0415

    read = read_ade20k(annotations, _required(objects, name), name=name, notes=BENCHMARKS[name].notes)
    return clean_subset(read, name=name) if BENCHMARKS[name].reader == "ade20k-clean" else read


def _read_nus_wide(name: str, annotations: Path, _: Path | None) -> Benchmark:
    from rasa_ram.evaluation.benchmarks.nus_wide import read_nus_wide  # noqa: PLC0415

    return read_nus_wide(annotations, name=name, notes=BENCHMARKS[name].notes)


def _read_table(name: str, annotations: Path, taglist: Path | None) -> Benchmark:
    from rasa_ram.evaluation.benchmarks.table import read_table  # noqa: PLC0415

    return read_table(annotations, taglist, name=name)


_READERS: Mapping[str, Callable[[str, Path, Path | None], Benchmark]] = {
    "coco": _read_coco,
    "ade20k": _read_ade20k,
    "ade20k-clean": _read_ade20k,
    "nus-wide": _read_nus_wide,
    "table": _read_table,
}

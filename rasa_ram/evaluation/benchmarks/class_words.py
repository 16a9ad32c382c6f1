"""Words for classes whose published name no tagger would use; the table is ``class_words.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from rasa_ram.evaluation.benchmarks.benchmark import Benchmark


def words_of(table: str, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """For each class its words by the table ``"coco"`` or ``"ade20k"``; a class that is not there keeps its name."""
    known = _tables()[table]
    return tuple(tuple(known.get(name, (name,))) for name in classes)


def dropped_from_ade20k() -> Mapping[str, str]:
    """The classes that our clean subset leaves out, and why each."""
    return dict(_tables()["ade20k-clean"])


def prefer(benchmark: Benchmark, vocabulary: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The words of each class with the first one of ``vocabulary``, if any is, in front.

    A closed-set tagger is asked for the class by that word; compared without regard to case.
    """
    known = {name.casefold(): name for name in reversed(list(vocabulary))}
    return tuple(_in_front(row, known) for row in benchmark.words or ())


def _in_front(words: Sequence[str], known: Mapping[str, str]) -> tuple[str, ...]:
    for word in words:
        if word.casefold() in known:
            own = known[word.casefold()]
            return (own, *(other for other in words if other != word))
    return tuple(words)


@cache
def _tables() -> dict[str, dict[str, Any]]:
    source = files("rasa_ram.evaluation.benchmarks") / "class_words.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))

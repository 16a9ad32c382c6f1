"""The words of the lite preset: what its two networks can see, in everyday English.

A word stands for ImageNet classes, for a class of COCO, or for both; a parent such as "dog" stands
for all classes below it. The tables beside this file are curated by hand: ``imagenet.tsv`` (one row
a class: name, parents, synonyms), ``coco.tsv`` (one row a class: name, parents, and the words whose
sight on a crop confirms it) and ``words.tsv`` (kind and synonyms of words).
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from rasa.adapters.lite.efficientnet import CLASS_COUNT
from rasa.arrays import FloatArray
from rasa.errors import InputError

_IRREGULAR_PLURALS = {"children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox"}


@dataclass(frozen=True, slots=True)
class Word:
    """One tag that the preset can give.

    Attributes:
        name: Lower-case everyday English, but for proper names.
        classes: The ImageNet classes it covers, as indices in [0, 999]; empty where only COCO knows it.
        is_own_name: Whether it is the name of one class, and no parent.
        is_object: Whether it has an outline that a box can hold, unlike a scene or a material.
        ancestors: All words that cover it.
    """

    name: str
    classes: frozenset[int]
    is_own_name: bool
    is_object: bool
    ancestors: frozenset[str]


@dataclass(frozen=True, slots=True)
class CocoClass:
    """One class of the detector.

    Attributes:
        name: Its word.
        lookalikes: Words that confirm it when the classifier sees them on the crop; empty if ImageNet
            has nothing like it, and the classifier has no say.
    """

    name: str
    lookalikes: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """All words, with the tables that lead to them.

    Attributes:
        words: By name, in a fixed order: a word's position is its id.
        coco: By COCO's class number, 1 to 90.
        synonyms: Lower-case word to name.
        members: float32 ``(T, 1000)``, 1 where word t covers class c.
        own_names: By ImageNet index.
    """

    words: Mapping[str, Word]
    coco: Mapping[int, CocoClass]
    synonyms: Mapping[str, str]
    members: FloatArray
    own_names: tuple[str, ...]
    names: tuple[str, ...] = field(init=False)
    positions: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.words))
        object.__setattr__(self, "positions", MappingProxyType({name: i for i, name in enumerate(self.words)}))

    def find(self, text: str) -> str | None:
        """The name of the word that a user means: by name, synonym or plural, in any case.

        >>> load_vocabulary().find("Puppies")
        'dog'
        """
        text = " ".join(text.lower().replace("_", " ").split())
        return next((self.synonyms[form] for form in _singulars(text) if form in self.synonyms), None)

    def covers(self, general: str, special: str) -> bool:
        """Whether ``special`` is ``general`` or a kind of it."""
        return general == special or general in self.words[special].ancestors

    def are_related(self, name: str, other: str) -> bool:
        """Whether the words share a kind: one covers the other, or a third covers both."""
        return bool((self.words[name].ancestors | {name}) & (self.words[other].ancestors | {other}))

    def broadest(self, name: str) -> str:
        """The widest word that covers ``name``, or ``name`` itself."""
        return max(sorted(self.words[name].ancestors | {name}), key=lambda word: len(self.words[word].classes))

    def rolled_up(self, probabilities: FloatArray) -> FloatArray:
        """Probability of each word, corrected for label smoothing.

        The classifier was trained with smoothed labels: it leaves about 1/1000 to each class that is
        not there, so a word of n classes never falls under n/1000. That floor is taken off.

        Args:
            probabilities: ``(1000, N)``, each column a distribution.

        Returns:
            float32 ``(T, N)`` in [0, 1].
        """
        floors = self.members.sum(1, keepdims=True) / CLASS_COUNT
        corrected: FloatArray = np.clip((self.members @ probabilities - floors) / (1 - floors), 0, 1)
        return corrected.astype(np.float32, copy=False)


@functools.cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary that ships with the preset."""
    imagenet, coco, notes = (_read_table(f"{name}.tsv") for name in ("imagenet", "coco", "words"))
    own_names = tuple(row["name"] for row in imagenet)
    classes: dict[str, set[int]] = defaultdict(set)
    stated: dict[str, set[str]] = defaultdict(set)
    parents = {name for row in imagenet for name in _split(row["parents"])}
    for row in imagenet:
        for name in (row["name"], *_split(row["parents"])):
            classes[name].add(int(row["index"]))
        # What is said of one class need not hold for a word that gathers several under its name.
        if row["name"] not in parents:
            stated[row["name"]] |= set(_split(row["parents"]))
    for row in coco:
        stated[row["name"]] |= set(_split(row["parents"]))
    scenes = {row["name"] for row in notes if row["kind"] == "scene"}
    names = sorted({*classes, *stated, *(name for group in stated.values() for name in group)}, key=str.lower)
    ancestors = _ancestors(names, classes, stated)
    words = {
        name: Word(
            name,
            frozenset(classes.get(name, ())),
            bool(classes.get(name)) and name not in parents,
            name not in scenes,
            ancestors[name],
        )
        for name in names
    }
    members = np.zeros((len(names), CLASS_COUNT), np.float32)
    for i, name in enumerate(names):
        members[i, list(words[name].classes)] = 1
    members.flags.writeable = False
    return Vocabulary(
        words=MappingProxyType(words),
        coco=MappingProxyType(
            {int(row["id"]): CocoClass(row["name"], frozenset(_split(row["lookalikes"]))) for row in coco}
        ),
        synonyms=MappingProxyType(_synonyms(names, [*notes, *imagenet])),
        members=members,
        own_names=own_names,
    )


def imagenet_index(wnid: str) -> int:
    """Position of an ImageNet class, in [0, 999], by its WordNet id.

    >>> imagenet_index("n02099601"), load_vocabulary().own_names[207]
    (207, 'golden retriever')

    Raises:
        InputError: If ImageNet has no such class.
    """
    for row in _read_table("imagenet.tsv"):
        if row["wnid"] == wnid:
            return int(row["index"])
    raise InputError(f"no ImageNet class has the WordNet id {wnid!r}; ids look like n02099601")


def _ancestors(
    names: Iterable[str], classes: Mapping[str, set[int]], stated: Mapping[str, set[str]]
) -> dict[str, frozenset[str]]:
    """A word covers another if its classes hold all of the other's and more, or if a table says so."""
    direct = {name: set(stated.get(name, ())) for name in names}
    for name, covered in direct.items():
        if classes.get(name):
            covered |= {other for other, members in classes.items() if classes[name] < members}
    for name, covered in direct.items():
        waiting = list(covered)
        while waiting:
            more = direct[waiting.pop()] - covered - {name}
            covered.update(more)
            waiting += more
    return {name: frozenset(covered) for name, covered in direct.items()}


def _synonyms(names: Iterable[str], tables: Iterable[Mapping[str, str]]) -> dict[str, str]:
    synonyms = {name.lower(): name for name in names}
    for row in tables:
        for synonym in _split(row["synonyms"]):
            synonyms.setdefault(synonym.lower(), row["name"])
    return synonyms


def _singulars(text: str) -> Iterable[str]:
    """The text as it is, then what it may be the plural of, most likely first."""
    yield text
    head, _, last = text.rpartition(" ")
    prefix = f"{head} " if head else ""
    if last in _IRREGULAR_PLURALS:
        yield prefix + _IRREGULAR_PLURALS[last]
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("s", ""), ("es", "")):
        if last.endswith(ending) and len(last) > len(ending) + 1:
            yield prefix + last.removesuffix(ending) + replacement


def _split(cell: str) -> list[str]:
    return [part for part in cell.split("; ") if part]


@functools.cache
def _read_table(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))

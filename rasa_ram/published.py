"""The vocabularies of models: those of the published ones, with what their authors set, and those in folders."""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from rasa._suggest import did_you_mean
from rasa.errors import InputError, RasaWarning, UnknownModelError, WeightsError
from rasa.weights import checkpoints, fetch
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import VOCABULARY, read_vocabulary

CHINESE = "ram-tags-chinese"
# What the letters of tag_kinds.toml stand for.
_LETTERS = {"o": "object", "s": "scene", "a": "action", "t": "attribute"}


@dataclass(frozen=True, slots=True)
class _Lists:
    """Names in :mod:`rasa.weights` of a model's lists, and what their authors set in code.

    Attributes:
        tags: The list of names.
        thresholds: The list of thresholds, else one number for all tags.
        changed: Tags with thresholds of their own beside that number.
        denied: Tags that the authors take out of the output.
    """

    tags: str
    thresholds: str | float
    changed: Mapping[str, float]
    denied: tuple[str, ...]


_RAM = _Lists("ram-tags", "ram-tag-thresholds", {}, ())
# github.com/xinyu1205/recognize-anything at 7cb804a: ram/models/tag2text.py and inference_tag2text.py, there by index.
_TAG2TEXT = _Lists(
    "tag2text-tags",
    0.68,
    {"person": 0.7, "man": 0.7, "woman": 0.7},
    ("quarter", "back", "one", "two", "three", "four", "five"),
)
_LISTS = {"ram-swin-l.14m": _RAM, "ram-plus-swin-l.14m": _RAM, "tag2text-swin-b.14m": _TAG2TEXT}
PUBLISHED = tuple(_LISTS)
"""Names of the published models."""


def load_vocabulary(name: str) -> Vocabulary:
    """The vocabulary of a published model with its thresholds, fetched if need be.

    RAM's and RAM++'s has Chinese names too, where they can be had. The lists name no kinds; those of the vocabulary
    are this package's own, made by ``tools/tag_kinds.py``.

    Args:
        name: ``"ram-swin-l.14m"``, ``"ram-plus-swin-l.14m"`` or ``"tag2text-swin-b.14m"``.

    Raises:
        UnknownModelError: If no published model has this name.
        WeightsError: If a list cannot be fetched.
    """
    lists = _lists_of(name)
    if not isinstance(lists.thresholds, str):
        table = _with_kinds(read_vocabulary(fetch(lists.tags), allow_repeats=True), lists.tags)
        return table.with_thresholds(lists.thresholds).with_thresholds(lists.changed)
    names, thresholds = fetch(lists.tags), fetch(lists.thresholds)
    try:
        translations = {"zh": fetch(CHINESE)}
    except WeightsError as error:
        warnings.warn(f"no Chinese names of the tags: {error}", RasaWarning, stacklevel=2)
        translations = {}
    return _with_kinds(read_vocabulary(names, thresholds=thresholds, translations=translations), lists.tags)


def denied_tags(name: str) -> tuple[str, ...]:
    """Tags that the authors of a published model take out of its output.

    Raises:
        UnknownModelError: If no published model has this name.
    """
    return _lists_of(name).denied


@dataclass(frozen=True, slots=True)
class ModelTags:
    """The tags of a model.

    Attributes:
        vocabulary: One tag per row of the model.
        denied: Those that its authors take out of its output.
    """

    vocabulary: Vocabulary
    denied: tuple[str, ...] = ()


def model_tags(source: str | os.PathLike[str], vocabulary: Vocabulary | None = None) -> ModelTags:
    """The tags of what :func:`rasa_ram.load` takes.

    Args:
        source: A published model's name, or a file or folder of weights.
        vocabulary: One that the user gave: it is taken as it is. None takes the published one, or
            ``vocabulary.json`` of a folder.

    Raises:
        InputError: If neither the user nor the folder tells the tags.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If a list cannot be fetched.
    """
    name, path = os.fspath(source), Path(source).expanduser()
    if vocabulary is not None:
        return ModelTags(vocabulary)
    if name in _LISTS or not path.exists():
        return ModelTags(load_vocabulary(name), denied_tags(name))
    if not (path / VOCABULARY).is_file():
        raise InputError(
            f"{name} does not tell its tags; pass vocabulary= (--vocabulary), for example load_vocabulary(...)"
        )
    return ModelTags(read_vocabulary(path / VOCABULARY))


def _with_kinds(vocabulary: Vocabulary, tags: str) -> Vocabulary:
    table = _tag_kinds()[tags]
    # The rows are those of one file; of another list, as a newer table of checkpoints may name, nothing is known.
    if table["sha256"] != checkpoints()[tags].sha256:
        return vocabulary
    return replace(vocabulary, kinds=tuple(_LETTERS[letter] for letter in table["kinds"].replace("\n", "")))


@cache
def _tag_kinds() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads((files("rasa_ram") / "tag_kinds.toml").read_text(encoding="ascii"))


def _lists_of(name: str) -> _Lists:
    if name not in _LISTS:
        hint = did_you_mean(name, _LISTS)
        raise UnknownModelError(f'no published model is called "{name}"{hint}; known are {", ".join(_LISTS)}')
    return _LISTS[name]

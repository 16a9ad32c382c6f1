"""From what a detector was asked for to the classes of a dataset: labels are renamed, merged and dropped."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from rasa._suggest import did_you_mean
from rasa.errors import ConfigError
from rasa.types import Result, Tags

Unknown = Literal["keep", "drop"]
_KEYS = ("classes", "drop", "unknown")


@dataclass(frozen=True, slots=True)
class Ontology:
    """Which label becomes which class.

    A label is compared whole, with upper and lower case as it stands. A class is a label of itself, and no class is
    renamed a second time: with ``{"puppy": "dog", "dog": "animal"}`` a puppy is a dog, not an animal.

    Attributes:
        classes: Label to class; labels with the same class merge.
        drop: Labels that are left out.
        unknown: What happens to a label that is named nowhere: ``"keep"`` it as a class, or ``"drop"`` it.

    Raises:
        ConfigError: If a label or class is no text, a label is both mapped and dropped, or ``unknown`` is none of two.

    Example:
        >>> ontology = Ontology({"puppy": "dog", "a photo of a cat": "cat"}, drop=["shadow"])
        >>> [ontology.class_of(label) for label in ("puppy", "cat", "shadow", "tree")]
        ['dog', 'cat', None, 'tree']
    """

    classes: Mapping[str, str] = field(default_factory=dict)
    drop: Collection[str] = frozenset()
    unknown: Unknown = "keep"

    def __post_init__(self) -> None:
        if self.unknown not in get_args(Unknown):
            raise ConfigError(f'unknown must be "keep" or "drop", got {self.unknown!r}')
        if not isinstance(self.classes, Mapping) or isinstance(self.drop, str):
            raise ConfigError("classes must map labels to classes, and drop be a list of labels")
        for text in (*self.classes, *self.classes.values(), *self.drop):
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(f"labels and classes must be non-empty strings, got {text!r}")
        if both := sorted(self.classes.keys() & set(self.drop)):
            raise ConfigError(f"label {both[0]!r} is mapped and dropped; take it out of one of the two")
        object.__setattr__(self, "classes", MappingProxyType(dict(self.classes)))
        object.__setattr__(self, "drop", frozenset(self.drop))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Ontology:
        """An ontology from plain values, as TOML gives them.

        Raises:
            ConfigError: If a key is unknown or a value wrong.
        """
        for key in values:
            if key not in _KEYS:
                raise ConfigError(f'unknown key "{key}"{did_you_mean(key, _KEYS)} (keys: {", ".join(_KEYS)})')
        drop = values.get("drop", [])
        if not isinstance(drop, list | tuple):
            raise ConfigError(f"drop must be a list of labels, got {drop!r}")
        return cls(values.get("classes", {}), drop, values.get("unknown", "keep"))

    def to_mapping(self) -> dict[str, Any]:
        """Plain values that :meth:`from_mapping` reads, in an order of their own."""
        return {"unknown": self.unknown, "drop": sorted(self.drop), "classes": dict(sorted(self.classes.items()))}

    def class_of(self, label: str) -> str | None:
        """The class of ``label``; None if it is dropped."""
        if label in self.drop:
            return None
        named = self.classes.get(label)
        if named is not None or self.unknown == "keep":
            return named or label
        return label if label in self.classes.values() else None

    def names(self, labels: Iterable[str] = ()) -> tuple[str, ...]:
        """The classes that data with these ``labels`` has: those of the ontology in its order, then others, sorted."""
        named = dict.fromkeys(self.classes.values())
        others = {name for name in map(self.class_of, labels) if name is not None} - named.keys()
        return (*named, *sorted(others))

    def apply(self, result: Result) -> Result:
        """The same result with classes for labels and tags, without what is dropped.

        Tags that merge keep the place of the first, and the score and kind of the best; positions in the tagger's
        vocabulary are left out where a tag changed.
        """
        found = result.instances
        classes = [self.class_of(label) for label in found.labels]
        kept = found.take([i for i, name in enumerate(classes) if name is not None])
        instances = replace(kept, labels=tuple(name for name in classes if name is not None))
        return result.with_instances(instances).with_tags(self._tags(result.tags))

    def _tags(self, tags: Tags) -> Tags:
        best: dict[str, int] = {}
        for i, name in enumerate(map(self.class_of, tags.names)):
            if name is not None and (name not in best or tags.scores[i] > tags.scores[best[name]]):
                best[name] = i
        at = np.array(list(best.values()), np.int64)
        same = all(tags.names[i] == name for name, i in best.items())
        return Tags(
            names=tuple(best),
            scores=tags.scores[at],
            ids=tags.ids[at] if tags.ids is not None and same else None,
            kinds=None if tags.kinds is None else tuple(tags.kinds[i] for i in at),
        )


def read_ontology(path: str | os.PathLike[str]) -> Ontology:
    """Read an ontology from a TOML file.

    The file has a table ``[classes]`` of label = class, a list ``drop``, and ``unknown``, which is ``"keep"`` unless
    given: see :class:`Ontology`.

    Raises:
        ConfigError: If the file cannot be read, is no TOML, or holds an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{os.fspath(path)}: not a readable UTF-8 text file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{os.fspath(path)}: no valid TOML: {error}") from error
    try:
        return Ontology.from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from None

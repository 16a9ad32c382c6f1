"""The vocabulary of a tagger: names, ids, translations, thresholds, kinds and synonyms as one checked table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rasa._suggest import did_you_mean
from rasa.arrays import FloatArray, IntArray, read_only
from rasa.errors import InputError
from rasa.types import KINDS

# The longest of the 4585 published tags has 31 characters, and CLIP's text encoder reads 77 tokens.
MAX_TAG_LENGTH = 200


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Tags as parallel columns; entry i of each column belongs to one tag.

    >>> pets = Vocabulary(("cat", "dog"), thresholds=[0.5, 0.6])
    >>> pets.subset(["dog"]).ids.tolist()
    [1]

    Attributes:
        names: T tags, distinct unless ``allow_repeats``; none is empty, padded with spaces,
            longer than :data:`MAX_TAG_LENGTH` characters or holds ``|`` or a control character.
        ids: int64 ``(T,)``, distinct and not negative; the positions unless given. A subset keeps them.
        translations: Language, such as ``"zh"``, to T names, which may repeat.
        thresholds: float32 ``(T,)`` in [0, 1]; a tag needs a score above its own. None where there are none.
        kinds: T of ``"object"``, ``"scene"``, ``"action"``, ``"attribute"`` or None; None where nothing is known.
        synonyms: T tuples of other words for the tag; None where nothing is known.
        allow_repeats: Whether two ids may have one name, as in Tag2Text's list, where a word with several
            meanings stands once for each.

    Raises:
        InputError: If there is no tag, a column has another length, or an entry is malformed.
    """

    names: tuple[str, ...]
    ids: IntArray = None  # type: ignore[assignment]  # filled in below
    translations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thresholds: FloatArray | None = None
    kinds: tuple[str | None, ...] | None = None
    synonyms: tuple[tuple[str, ...], ...] | None = None
    allow_repeats: bool = False
    _positions: Mapping[str, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._set(names=_checked_tags("names", self.names))
        self._set(_positions=_positions_of(self.names, allow_repeats=self.allow_repeats))
        self._set(ids=_checked_ids(self.ids, len(self)))
        columns = {
            language: self._column(f"translation {language!r}", column) for language, column in self._by_language()
        }
        self._set(translations=MappingProxyType(columns))
        if self.thresholds is not None:
            self._set(thresholds=_checked_thresholds(self.thresholds, self.names))
        if self.kinds is not None:
            self._set(kinds=self._checked_kinds(self.kinds))
        if self.synonyms is not None:
            self._check_length("synonyms", len(self.synonyms))
            rows = zip(self.names, self.synonyms, strict=True)
            self._set(synonyms=tuple(_checked_tags(f"synonyms of {name!r}", row, least=0) for name, row in rows))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    @property
    def fingerprint(self) -> str:
        """sha256 of the whole table, in hexadecimal: equal tables have equal ones."""
        text = json.dumps(self.to_dict(), ensure_ascii=True, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def positions(self, names: Iterable[str]) -> list[int]:
        """Where ``names`` stand in the table, in the order asked; all places of a name that repeats.

        Raises:
            InputError: If a name is not in the vocabulary, or is asked for twice.
        """
        if isinstance(names, str):
            raise InputError(f"expected a sequence of tags, got the single string {names!r}; pass [{names!r}]")
        names = list(names)
        if len(set(names)) != len(names):
            raise InputError(f"tag {_first_repeated(names)!r} is asked for twice; name each tag once")
        return [position for name in names for position in self._positions_of(name)]

    def subset(self, names: Iterable[str]) -> Vocabulary:
        """Only ``names``, in that order, with their ids and all else that is known of them.

        Raises:
            InputError: If a name is not in the vocabulary or is asked for twice, or there is none.
        """
        return self.take(self.positions(names))

    def without(self, names: Iterable[str]) -> Vocabulary:
        """All tags but ``names``.

        Raises:
            InputError: If a name is not in the vocabulary or is named twice, or nothing is left.
        """
        dropped = set(self.positions(names))
        return self.take([position for position in range(len(self)) if position not in dropped])

    def take(self, positions: Sequence[int]) -> Vocabulary:
        """The tags at ``positions``, in that order.

        Raises:
            InputError: If there is none, or one of them twice.
        """
        chosen = list(positions)
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            ids=self.ids[chosen] if chosen else self.ids[:0],
            translations={key: tuple(column[i] for i in chosen) for key, column in self.translations.items()},
            thresholds=None if self.thresholds is None else self.thresholds[np.asarray(chosen, np.int64)],
            kinds=None if self.kinds is None else tuple(self.kinds[i] for i in chosen),
            synonyms=None if self.synonyms is None else tuple(self.synonyms[i] for i in chosen),
        )

    def rename(self, mapping: Mapping[str, str]) -> Vocabulary:
        """The same tags, some under new names; ids stay.

        Raises:
            InputError: If an old name is not in the vocabulary, or a new one is malformed or taken.
        """
        self.positions(mapping)
        return replace(self, names=tuple(mapping.get(name, name) for name in self.names))

    def with_thresholds(self, thresholds: float | Mapping[str, float] | ArrayLike | None) -> Vocabulary:
        """The same tags with other thresholds.

        Args:
            thresholds: In [0, 1]: one for all tags, T of them, or some by name (the vocabulary must
                have thresholds then, and keeps the others). None takes them away.

        Raises:
            InputError: If one is out of range, the number of them is wrong, or a name is unknown.
        """
        if thresholds is None:
            return replace(self, thresholds=None)
        if isinstance(thresholds, Mapping):
            return replace(self, thresholds=self._patched(thresholds))
        if np.ndim(thresholds) == 0:
            thresholds = np.full(len(self), thresholds)
        return replace(self, thresholds=np.asarray(thresholds))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, column by column; columns without values are None."""
        return {
            "names": list(self.names),
            "ids": self.ids.tolist(),
            "translations": {language: list(column) for language, column in self.translations.items()},
            # The shortest decimals that read back as the same float32.
            "thresholds": None if self.thresholds is None else [float(str(value)) for value in self.thresholds],
            "kinds": None if self.kinds is None else list(self.kinds),
            "synonyms": None if self.synonyms is None else [list(row) for row in self.synonyms],
            "allow_repeats": self.allow_repeats,
        }

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_length(self, what: str, length: int) -> None:
        if length != len(self):
            raise InputError(f"{what} must have one entry per tag, {len(self)}, got {length}")

    def _by_language(self) -> list[tuple[str, Sequence[str]]]:
        if not isinstance(self.translations, Mapping):
            raise InputError(f"translations must map a language to names, got {type(self.translations).__name__}")
        return sorted(self.translations.items())

    def _column(self, what: str, column: Sequence[str]) -> tuple[str, ...]:
        checked = _checked_tags(what, column)
        self._check_length(what, len(checked))
        return checked

    def _checked_kinds(self, kinds: Sequence[str | None]) -> tuple[str | None, ...]:
        self._check_length("kinds", len(kinds))
        for name, kind in zip(self.names, kinds, strict=True):
            if kind is not None and kind not in KINDS:
                raise InputError(f"kind of tag {name!r} must be one of {', '.join(KINDS)} or None, got {kind!r}")
        return tuple(kinds)

    def _positions_of(self, name: str) -> tuple[int, ...]:
        if name in self._positions:
            return self._positions[name]
        hint = did_you_mean(str(name), self._positions)
        for tag, synonyms in zip(self.names, self.synonyms or (), strict=False):
            if name in synonyms:
                hint = f'; it is a synonym of "{tag}"'
        raise InputError(f'tag "{name}" is not in the vocabulary of {len(self)} tags{hint}')

    def _patched(self, thresholds: Mapping[str, float]) -> FloatArray:
        if self.thresholds is None:
            raise InputError("the vocabulary has no thresholds to change by name; give one number for all tags first")
        patched = self.thresholds.copy()
        for name, value in thresholds.items():
            patched[list(self._positions_of(name))] = value
        return patched


def tag_problem(text: object) -> str | None:
    """What is wrong with ``text`` as a tag, as the end of a sentence; None if nothing is.

    >>> tag_problem("  ")
    'is empty'
    """
    if not isinstance(text, str):
        return f"must be a string, got {text!r}"
    if len(text) > MAX_TAG_LENGTH:
        return f"has {len(text)} characters, at most {MAX_TAG_LENGTH} are allowed: {text[:40]!r}..."
    problems = {
        "is empty": not text.strip(),
        f"has spaces around it: {text!r}": text != text.strip(),
        f'holds "|", which separates tags: {text!r}': "|" in text,
        f"holds a control character: {text!r}": not text.isprintable(),
    }
    return next((problem for problem, is_so in problems.items() if is_so), None)


def _checked_tags(what: str, tags: Sequence[str], *, least: int = 1) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise InputError(f"{what} must be a sequence of strings, got the single string {tags!r}")
    if len(tags) < least:
        raise InputError(f"{what}: a vocabulary needs at least one tag, got none")
    for position, tag in enumerate(tags):
        problem = tag_problem(tag)
        if problem is not None:
            raise InputError(f"{what}: tag {position} {problem}")
    return tuple(tags)


def _positions_of(names: Sequence[str], *, allow_repeats: bool) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for position, name in enumerate(names):
        if name in found and not allow_repeats:
            raise InputError(
                f"tag {name!r} stands at positions {found[name][0]} and {position}; "
                "tags must be distinct, unless allow_repeats=True says that a word stands for several meanings"
            )
        found[name] = (*found.get(name, ()), position)
    return MappingProxyType(found)


def _checked_ids(ids: ArrayLike | None, count: int) -> IntArray:
    if ids is None:
        ids = np.arange(count)
    checked: IntArray = read_only("ids", ids, dtype=np.int64, shape=(count,), hint="one id per tag")
    if (checked < 0).any() or len(np.unique(checked)) != count:
        raise InputError("ids must be distinct and not negative")
    return checked


def _checked_thresholds(thresholds: ArrayLike, names: Sequence[str]) -> FloatArray:
    hint = "one threshold per tag"
    checked: FloatArray = read_only("thresholds", thresholds, dtype=np.float32, shape=(len(names),), hint=hint)
    wrong = np.flatnonzero(~((checked >= 0) & (checked <= 1)))  # NaN is wrong too
    if wrong.size:
        name, value = names[wrong[0]], str(checked[wrong[0]])
        raise InputError(f"threshold of tag {name!r} (position {wrong[0]}) must be in [0, 1], got {value}")
    return checked


def _first_repeated(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]

"""Merges of words into tags: every one with its source, its evidence and what was decided, as a table of a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from rasa._files import write_atomically
from rasa._suggest import did_you_mean
from rasa.errors import FormatError, InputError

Decision = Literal["accept", "reject", ""]
Source = Literal["inflection", "spelling", "synset", "embedding", "review"]


@dataclass(frozen=True, slots=True)
class Merge:
    """Two words that may be one tag.

    Attributes:
        canonical: The word that stays, the more frequent one.
        other: The word that becomes its synonym.
        source: ``"inflection"``, ``"spelling"``, ``"synset"`` or ``"embedding"``; ``"review"`` where only a person
            says so.
        score: How sure it is, in [0, 1]: 1 for a rule, the smaller share of the shared sense among each word's senses,
            or the cosine of their vectors.
        decision: ``"accept"``, ``"reject"``, or ``""`` for a proposal that nobody decided on; it is not merged.
        comment: The evidence in words.
        canonical_count: Captions with the one.
        other_count: Captions with the other.
    """

    canonical: str
    other: str
    source: str
    score: float
    decision: Decision
    comment: str
    canonical_count: int = 0
    other_count: int = 0


COLUMNS = tuple(field.name for field in fields(Merge))
_NEEDED = ("canonical", "other", "decision")
_RULES, _PROPOSERS = frozenset({"inflection", "spelling"}), frozenset({"synset", "embedding"})


def write_merges(merges: Iterable[Merge], path: str | os.PathLike[str]) -> None:
    """Write a table of merges as CSV, a row each; :func:`read_decisions` reads it again.

    Raises:
        OutputError: If the file cannot be written.
    """
    with write_atomically(path, text=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*values[:3], f"{values[3]:.4f}", *values[4:]) for values in map(astuple, merges))


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a person decided.

    Attributes:
        accepted: Word to the word that it becomes a synonym of.
        rejected: Pairs of words, by alphabet, whose proposals are refused.
        against_rules: Those of them that stay apart whatever a rule says.
        comments: Pair, by alphabet, to the person's comment.
    """

    accepted: Mapping[str, str]
    rejected: frozenset[tuple[str, str]]
    against_rules: frozenset[tuple[str, str]]
    comments: Mapping[tuple[str, str], str]


NO_DECISIONS = Decisions({}, frozenset(), frozenset(), {})


def read_decisions(path: str | os.PathLike[str]) -> Decisions:
    """Read the decisions of a reviewed table; rows without one count for nothing.

    A row decides about what its ``source`` says: an ``accept`` of a rule is the rule's own and adds nothing, and a
    ``reject`` of a proposal stops no rule. A row without a source, as a person adds it, decides about all.

    Args:
        path: CSV, UTF-8, whose header has ``canonical``, ``other`` and ``decision`` (accept, reject or empty) and may
            have the other columns of :class:`Merge`.

    Raises:
        InputError: If the file cannot be read.
        FormatError: If a row is malformed, two rows contradict each other, or acceptances go in a circle.
    """
    accepted: dict[str, str] = {}
    lines: dict[tuple[str, str], tuple[str, int]] = {}
    against_rules: set[tuple[str, str]] = set()
    comments: dict[tuple[str, str], str] = {}
    for line, row in _rows(Path(path)):
        canonical, other, decision = (row[name].strip() for name in _NEEDED)
        _check_row(f"{path}:{line}", canonical, other, decision)
        pair = ordered(canonical, other)
        source = (row.get("source") or "").strip()
        # "leaves" as a noun and as a verb is in two of the rules' rows, and the noun "ground" is none of "grind".
        if not decision or (decision == "accept" and source in _RULES):
            continue
        before, where = lines.setdefault(pair, (decision, line))
        if before != decision:
            raise FormatError(f"{path}:{line}: {decision} of {pair} contradicts line {where}, which says {before}")
        if decision == "accept":
            if accepted.setdefault(other, canonical) != canonical:
                raise FormatError(f"{path}:{line}: {other!r} is merged into {accepted[other]!r} already; choose one")
            _check_circle(path, line, other, accepted)
        elif source not in _PROPOSERS:
            against_rules.add(pair)
        comments[pair] = (row.get("comment") or "").strip()
    rejected = frozenset(pair for pair, (decision, _) in lines.items() if decision == "reject")
    return Decisions(accepted, rejected, frozenset(against_rules), comments)


def ordered(one: str, other: str) -> tuple[str, str]:
    """Two words by alphabet."""
    return (one, other) if one <= other else (other, one)


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header)
        for cells in reader:
            if len(cells) != len(header):
                raise FormatError(f"{path}:{reader.line_num}: expected {len(header)} columns, got {len(cells)}")
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise FormatError(f"{path}:{reader.line_num}: {error}") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    for column in header:
        if column not in COLUMNS:
            raise FormatError(
                f'{path}:1: unknown column "{column}"{did_you_mean(column, COLUMNS)} (known: {", ".join(COLUMNS)})'
            )
    missing = [column for column in _NEEDED if column not in header]
    if missing or len(set(header)) != len(header):
        raise FormatError(f"{path}:1: the header must have each of {', '.join(_NEEDED)} once")


def _check_row(place: str, canonical: str, other: str, decision: str) -> None:
    if decision not in get_args(Decision):
        raise FormatError(f"{place}: a decision must be accept, reject or empty, got {decision!r}")
    if not canonical or not other or canonical == other:
        raise FormatError(f"{place}: canonical and other must be two words, got {canonical!r} and {other!r}")


def _check_circle(path: str | os.PathLike[str], line: int, word: str, accepted: Mapping[str, str]) -> None:
    seen, at = [word], word
    while at in accepted:
        at = accepted[at]
        if at in seen:
            raise FormatError(f"{path}:{line}: {' -> '.join([*seen, at])} goes in a circle; take one of them back")
        seen.append(at)

"""A reader of WordNet's own files: words, their senses by frequency, synonyms, hypernyms and kinds.

It needs the folder that holds ``index.noun``, ``data.noun`` and their like (the format is described in WordNet's
manual pages wndb(5) and cntlist(5)): Debian's package ``wordnet-base``, or the archive of Princeton's site.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rasa.errors import FormatError, InputError

Part = Literal["noun", "verb", "adj"]
PARTS: tuple[Part, ...] = ("noun", "verb", "adj")

# Where Debian puts the files; WNSEARCHDIR is WordNet's own variable, see wnintro(1).
FOLDER = Path("/usr/share/wordnet")
VARIABLE = "WNSEARCHDIR"

# lexnames(5): the lexicographer files 3 to 28 are those of nouns, 0, 1 and 44 of adjectives, 29 to 43 of verbs.
_NOUN_FILES = (
    "Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip
_FIRST_NOUN_FILE = 3
# As in tools/tag_kinds.py, which made the kinds of the published lists.
_KINDS = {
    "act": "action",
    "event": "action",
    **dict.fromkeys(("location", "phenomenon", "time"), "scene"),
    **dict.fromkeys(("attribute", "cognition", "feeling", "motive", "relation", "state"), "attribute"),
}
# A noun under one of these is a place: room.n.01, establishment.n.04, facility.n.01, geological formation, land.
_PLACES = (("room", 1), ("establishment", 4))
_LETTERS = {"noun": "n", "verb": "v", "adj": "a"}
_DEPTH = 25  # the deepest noun of WordNet 3.0 has 19 hypernyms above it


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning, with the words for it.

    Attributes:
        offset: Byte offset in the data file; names the synset together with ``part``.
        part: ``"noun"``, ``"verb"`` or ``"adj"``.
        words: Its words, lower case, with spaces.
        kind: ``"object"``, ``"scene"``, ``"action"`` or ``"attribute"``, by the lexicographer file.
        hypernyms: Offsets of the meanings that are one step more general.
        antonyms: Words with the opposite meaning's offset.
        gloss: Definition and examples.
    """

    offset: int
    part: Part
    words: tuple[str, ...]
    kind: str
    hypernyms: tuple[int, ...]
    antonyms: tuple[int, ...]
    gloss: str


class WordNet:
    """WordNet's nouns, verbs and adjectives, read as they are asked for (indexes at once, 6 MB on disk).

    Args:
        folder: Holds ``index.noun``, ``data.noun``, and so on; else ``$WNSEARCHDIR``, else where Debian puts them.

    Raises:
        InputError: If the folder or one of its files is not there.
        FormatError: If a line of an index is broken.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder or os.environ.get(VARIABLE) or FOLDER)
        self._data = {part: self._bytes(f"data.{part}") for part in PARTS}
        self._index: dict[Part, dict[str, tuple[int, ...]]] = {part: self._read_index(part) for part in PARTS}
        self._counts = self._read_counts()
        self.synset = lru_cache(maxsize=1 << 16)(self._read_synset)

    def senses(self, word: str, part: Part = "noun") -> tuple[Synset, ...]:
        """The meanings of ``word``, the most frequent first; none if it is not known."""
        return tuple(self.synset(offset, part) for offset in self._index[part].get(_key(word), ()))

    def __contains__(self, word: str) -> bool:
        return any(_key(word) in self._index[part] for part in PARTS)

    def share(self, word: str, synset: Synset) -> float:
        """How often ``word`` has this meaning, in [0, 1], by the counts of WordNet's tagged texts.

        One is added to each count, so that a word that was never seen has all its meanings equally often. Words without
        counts at all go by the order of their senses: 1 over the rank, normalised.
        """
        offsets = self._index[synset.part].get(_key(word), ())
        if synset.offset not in offsets:
            return 0.0
        counts = [self._counts.get((_key(word), _LETTERS[synset.part], rank), 0) for rank in range(1, len(offsets) + 1)]
        weights = (
            [count + 1.0 for count in counts] if any(counts) else [1 / rank for rank in range(1, len(offsets) + 1)]
        )
        return weights[offsets.index(synset.offset)] / sum(weights)

    def kind(self, word: str, part: Part = "noun") -> str | None:
        """The kind of tag that ``word`` is in its most frequent sense; None if it is not known."""
        senses = self.senses(word, part)
        if not senses:
            return None
        first = senses[0]
        return "scene" if part == "noun" and self._is_place(first) else first.kind

    def above(self, synset: Synset) -> Iterator[Synset]:
        """All meanings that are more general, nearest first."""
        seen, layer = {synset.offset}, list(synset.hypernyms)
        for _ in range(_DEPTH):
            found = [self.synset(offset, synset.part) for offset in layer if offset not in seen]
            if not found:
                return
            yield from found
            seen.update(one.offset for one in found)
            layer = list(dict.fromkeys(offset for one in found for offset in one.hypernyms))

    def _is_place(self, synset: Synset) -> bool:
        places = self._places()
        return any(one.offset in places for one in (synset, *self.above(synset)))

    def _places(self) -> frozenset[int]:
        offsets = (self._index["noun"].get(word, ())[sense - 1 : sense] for word, sense in _PLACES)
        return frozenset(offset for found in offsets for offset in found)

    def _bytes(self, name: str) -> bytes:
        path = self.folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror or error}); name the folder of WordNet's files, install "
                f'Debian\'s "wordnet-base", or set {VARIABLE}'
            ) from error

    def _read_index(self, part: Part) -> dict[str, tuple[int, ...]]:
        name = f"index.{part}"
        entries: dict[str, tuple[int, ...]] = {}
        for number, line in enumerate(self._bytes(name).decode("utf-8", "replace").splitlines(), 1):
            if line.startswith(" "):  # the licence
                continue
            try:
                # lemma pos synset_cnt p_cnt [symbols] sense_cnt tagsense_cnt offsets
                word, _, count, *rest = line.split()
                entries[word] = tuple(int(offset) for offset in rest[-int(count) :])
            except ValueError as error:
                raise FormatError(
                    f"{self.folder / name}:{number}: expected a word, its part of speech, counts and offsets, got "
                    f"{line[:60]!r}"
                ) from error
        return entries

    def _read_counts(self) -> dict[tuple[str, str, int], int]:
        """Counts by word, part and sense number; none where the folder has no ``cntlist.rev``."""
        path = self.folder / "cntlist.rev"
        if not path.is_file():
            return {}
        counts: dict[tuple[str, str, int], int] = {}
        parts = {"1": "n", "2": "v", "3": "a", "5": "a"}  # 5 is an adjective near another, see senseidx(5)
        for number, line in enumerate(self._bytes("cntlist.rev").decode("utf-8", "replace").splitlines(), 1):
            try:
                key, sense, count = line.split()
                word, _, rest = key.partition("%")
                if rest[:1] in parts:
                    counts[word, parts[rest[0]], int(sense)] = int(count)
            except ValueError as error:
                raise FormatError(f"{path}:{number}: expected a sense key, a number and a count") from error
        return counts

    def _read_synset(self, offset: int, part: Part) -> Synset:
        data = self._data[part]
        end = data.find(b"\n", offset)
        line = data[offset : end if end >= 0 else len(data)].decode("utf-8", "replace")
        try:
            return _parse_synset(line, offset, part)
        except (ValueError, IndexError) as error:
            raise FormatError(
                f"{self.folder / f'data.{part}'}: there is no synset at byte {offset}; index and data are of two "
                "versions, or the file is damaged"
            ) from error


def _parse_synset(line: str, offset: int, part: Part) -> Synset:
    fields, _, gloss = line.partition(" | ")
    values = fields.split()
    if int(values[0]) != offset:
        raise ValueError("another offset")
    count = int(values[3], 16)
    words = tuple(_plain(word) for word in values[4 : 4 + 2 * count : 2])
    pointers = _pointers(values[4 + 2 * count :], part)
    return Synset(
        offset, part, words, _kind_of(int(values[1]), part),
        tuple(target for symbol, target in pointers if symbol in {"@", "@i"}),
        tuple(target for symbol, target in pointers if symbol == "!"), gloss.strip(),
    )  # fmt: skip


def _pointers(values: Sequence[str], part: Part) -> list[tuple[str, int]]:
    """Symbol and offset of each pointer within the same part of speech."""
    rows = [values[1 + 4 * i : 5 + 4 * i] for i in range(int(values[0]))]
    letters = {"a", "s"} if part == "adj" else {_LETTERS[part]}
    return [(symbol, int(target)) for symbol, target, letter, _ in rows if letter in letters]


def _kind_of(file: int, part: Part) -> str:
    if part != "noun":
        return "action" if part == "verb" else "attribute"
    return _KINDS.get(_NOUN_FILES[file - _FIRST_NOUN_FILE], "object")


def _key(word: str) -> str:
    return word.lower().replace(" ", "_")


def _plain(word: str) -> str:
    """Without the marker of a place that adjectives may have, as in "galore(ip)"."""
    return word.partition("(")[0].lower().replace("_", " ")

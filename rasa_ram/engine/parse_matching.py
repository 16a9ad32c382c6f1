"""From the words of a caption to ids of a vocabulary: longest match first, then by role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rasa_ram.engine.lemmas import lemma, plain_lemma
from rasa_ram.engine.parse_phrases import Role, Word
from rasa_ram.vocabulary import Vocabulary

Reason = Literal["not in vocabulary", "negated", "part of a longer match", "wrong kind"]

_PIECES = re.compile(r"'s\b|[^\W_]+|[^\w\s]")
# Kinds that a word of each role may name; the first that a tag has is taken. A noun names also what is done ("a
# walk") and a colour ("in red"); a modifier is no object: an orange shirt is no orange.
_KINDS_OF: dict[Role, tuple[str | None, ...]] = {
    "noun": ("object", "scene", None, "action", "attribute"),
    "modifier": ("attribute", "action", None),
    "verb": ("action", None, "attribute"),
}


@dataclass(frozen=True, slots=True)
class Match:
    """Words of a caption that name a tag.

    Attributes:
        id: Position of the tag in the vocabulary.
        surface: The words as they stand in the caption, lower case.
        lemma: The words under which the vocabulary knows the tag.
        kind: ``"object"``, ``"scene"``, ``"action"`` or ``"attribute"``: the tag's, or else what the words' role says.
    """

    id: int
    surface: str
    lemma: str
    kind: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A noun, modifier or verb of a caption that gave no tag, and why.

    Attributes:
        surface: The word as it stands in the caption, lower case.
        lemma: Its dictionary form.
        reason: ``"not in vocabulary"``, ``"negated"``, ``"part of a longer match"`` or ``"wrong kind"``.
    """

    surface: str
    lemma: str
    reason: Reason


class TagIndex:
    """The words of a vocabulary's names and synonyms, ready to be found in captions.

    A name is found in any number and tense. Where two tags share a word, a name goes before a synonym, then the order
    of the table; a word that stands for several meanings gives the tag whose kind fits.

    Args:
        vocabulary: The tags; without kinds, a word of any role gives a tag.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._kinds = vocabulary.kinds or (None,) * len(vocabulary)
        self._ids: dict[tuple[str, ...], list[int]] = {}
        rows = vocabulary.synonyms or ((),) * len(vocabulary)
        for position, name in enumerate(vocabulary.names):
            self._add(name, position)
        for position, words in enumerate(rows):
            for word in words:
                self._add(word, position)
        # The plain form of a phrase must not hide another tag's own name, so those go last.
        for position, name in enumerate(vocabulary.names):
            self._add_forms(name, position)
        self.longest = max(len(key) for key in self._ids)
        self._firsts = {key[0] for key in self._ids if len(key) > 1}

    def match(self, words: Sequence[Word]) -> tuple[list[Match], list[Dropped]]:
        """The tags that a caption names, in its order, and its words that gave none."""
        matches: list[tuple[int, Match]] = []
        dropped: list[tuple[int, Dropped]] = []
        free = self._match_phrases(words, matches, dropped)
        for position, word in enumerate(words):
            if word.role is None:
                continue
            if not free[position]:
                dropped.append((position, Dropped(word.surface, word.lemma, "part of a longer match")))
            elif word.denied:
                dropped.append((position, Dropped(word.surface, word.lemma, "negated")))
            else:
                self._match_word(position, words, matches, dropped)
        in_order = [match for _, match in sorted(matches, key=lambda item: item[0])]
        return in_order, [drop for _, drop in sorted(dropped, key=lambda item: item[0])]

    def _add(self, name: str, position: int) -> None:
        key = split_name(name)
        if key:
            places = self._ids.setdefault(key, [])
            if position not in places:
                places.append(position)
        if "-" in name:
            self._ids.setdefault(("".join(key),), [position])  # "tshirt"

    def _add_forms(self, name: str, position: int) -> None:
        *before, last = split_name(name) or ("",)
        for form in (lemma(last), plain_lemma(last)):
            self._ids.setdefault((*before, form), [position])

    def _match_phrases(
        self, words: Sequence[Word], matches: list[tuple[int, Match]], dropped: list[tuple[int, Dropped]]
    ) -> list[bool]:
        """Find names of several words; says which words are still free."""
        free = [True] * len(words)
        reach = self.longest + sum(word.surface == "-" for word in words)  # hyphens are no words of a name
        position = 0
        while position < len(words):
            end, key = self._longest_at(position, words, reach)
            if key:
                span = words[position:end]
                surface = " ".join(word.surface for word in span).replace(" - ", "-")
                if any(word.denied for word in span):
                    dropped.append((position, Dropped(surface, " ".join(key), "negated")))
                else:
                    matches.append((position, self._phrase(key, surface, span)))
                free[position:end] = [False] * len(span)
            position = max(end, position + 1)
        return free

    def _longest_at(self, start: int, words: Sequence[Word], reach: int) -> tuple[int, tuple[str, ...]]:
        if not self._firsts.intersection(_forms(words[start])):
            return start, ()
        for end in range(min(start + reach, len(words)), start + 1, -1):
            if words[end - 1].surface == "-":
                continue
            for key in _phrase_keys(words[start:end]):
                if key in self._ids:
                    return end, key
        return start, ()

    def _phrase(self, key: tuple[str, ...], surface: str, span: Sequence[Word]) -> Match:
        role: Role = "verb" if span[0].role == "verb" else "noun"
        tag = self._best(self._ids[key], role)
        chosen = self._ids[key][0] if tag is None else tag  # several words mean what they mean, whatever the role
        return self._made(chosen, surface, " ".join(key), role)

    def _match_word(
        self,
        position: int,
        words: Sequence[Word],
        matches: list[tuple[int, Match]],
        dropped: list[tuple[int, Dropped]],
    ) -> None:
        word = words[position]
        role = word.role or "noun"
        done = self._verb_with_object(word, words)
        if done is not None:
            matches.append((position, done))
        keys = [key for key in ((form,) for form in _forms(word)) if key in self._ids]
        for key in keys:
            tag = self._best(self._ids[key], role)
            if tag is not None:
                matches.append((position, self._made(tag, word.surface, key[0], role)))
                return
        if done is None:
            reason: Reason = "wrong kind" if keys else "not in vocabulary"
            dropped.append((position, Dropped(word.surface, word.lemma, reason)))

    def _verb_with_object(self, word: Word, words: Sequence[Word]) -> Match | None:
        """The tag of a verb and what it is done to, as in "playing the old guitar", although words stand between."""
        if word.object < 0 or words[word.object].denied:
            return None
        noun = words[word.object]
        for verb in (word.surface, word.lemma):
            for thing in (noun.surface, noun.lemma):
                if (verb, thing) in self._ids:
                    return self._made(
                        self._ids[verb, thing][0], f"{word.surface} {noun.surface}", f"{verb} {thing}", "verb"
                    )
        return None

    def _best(self, positions: Sequence[int], role: Role) -> int | None:
        for kind in _KINDS_OF[role]:
            for position in positions:
                if self._kinds[position] == kind:
                    return position
        return None

    def _made(self, position: int, surface: str, name: str, role: Role) -> Match:
        usual = {"noun": "object", "modifier": "attribute", "verb": "action"}[role]
        return Match(position, surface, name, self._kinds[position] or usual)


def split_name(name: str) -> tuple[str, ...]:
    """The words of a tag as spaCy splits a caption: signs are words of their own, and hyphens are none.

    >>> split_name("Rubik's cube")
    ('rubik', "'s", 'cube')
    """
    return tuple(piece for piece in _PIECES.findall(name.lower()) if piece != "-")


def _forms(word: Word) -> Iterator[str]:
    yield word.surface
    yield word.lemma
    if word.role is None or word.role == "noun":
        yield plain_lemma(word.surface)


def _phrase_keys(span: Sequence[Word]) -> Iterator[tuple[str, ...]]:
    """A phrase as it stands, with its last word in the singular, its first as a verb, and all as lemmas."""
    surfaces = tuple(word.surface for word in span if word.surface != "-")
    last = (lemma(surfaces[-1]), plain_lemma(surfaces[-1]))
    yield surfaces
    for form in last:
        yield (*surfaces[:-1], form)
    verb = lemma(surfaces[0], "verb")
    yield (verb, *surfaces[1:])
    for form in last:
        yield (verb, *surfaces[1:-1], form)
    yield (lemma(surfaces[0]), *surfaces[1:])

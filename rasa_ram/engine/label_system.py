"""A vocabulary from the counted words of a corpus: the frequent ones, with those that mean the same as one tag.

Inflections and spellings are merged by rule. WordNet's synonyms and neighbours of text vectors are proposals: what a
person accepted in the table of merges is merged when the table is given back, the rest is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from rasa.errors import InputError
from rasa_ram.engine.label_system_count import CaptionCounts
from rasa_ram.engine.label_system_merges import NO_DECISIONS, Decisions, Merge, ordered
from rasa_ram.engine.label_system_proposals import Encoder, Words, embedding_proposals, synset_proposals
from rasa_ram.engine.lemmas import Part as LemmaPart
from rasa_ram.engine.lemmas import lemma, phrase_lemma
from rasa_ram.engine.wordnet import Part, WordNet
from rasa_ram.vocabulary import Vocabulary

# The published list comes from the 10,000 most frequent words (arXiv:2306.03514, section 3.2).
TOP = 10_000
# Of OpenAI's CLIP, whose vectors of any two nouns have cosines of about 0.8; a caller's encoder may need another.
THRESHOLD = 0.95

_LEMMA_PARTS: dict[str, LemmaPart] = {"n": "noun", "a": "adjective", "v": "verb"}
_WORDNET_PARTS: dict[str, Part] = {"n": "noun", "a": "adj", "v": "verb"}
_SIGNS = re.compile(r"[\s'\-]")
# Parts of words that British and American English write differently, and words that they do.
_BRITISH = {
    "aeroplane": "airplane", "aluminium": "aluminum", "armour": "armor", "centre": "center", "colour": "color",
    "cosy": "cozy", "doughnut": "donut", "fibre": "fiber", "flavour": "flavor", "grey": "gray", "harbour": "harbor",
    "jewellery": "jewelry", "kerb": "curb", "labour": "labor", "litre": "liter", "moustache": "mustache",
    "mould": "mold", "neighbour": "neighbor", "plough": "plow", "pyjamas": "pajamas", "racquet": "racket",
    "theatre": "theater", "traveller": "traveler", "tyre": "tire", "woollen": "woolen", "yoghurt": "yogurt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelSystem:
    """A vocabulary and how it came about.

    Attributes:
        vocabulary: The tags, the most frequent first, with kinds and synonyms.
        counts: Captions that hold each tag, in the order of the tags: a word's forms and roles added up, so a caption
            that holds two of them counts twice.
        merges: All merges of the words that were kept: made, refused and proposed.
        uncertain: How much higher a count may be; 0 unless the counter had to forget words.
        unused: Decisions about words that are not among those kept.
    """

    vocabulary: Vocabulary
    counts: tuple[int, ...]
    merges: tuple[Merge, ...]
    uncertain: int
    unused: tuple[tuple[str, str], ...]


@dataclass
class _Entry:
    """A word to be: captions by role."""

    roles: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return sum(self.roles.values())

    @property
    def role(self) -> str:
        return min(self.roles, key=lambda role: (-self.roles[role], "nav".index(role)))


def build_label_system(
    counts: CaptionCounts,
    *,
    top: int = TOP,
    decisions: Decisions = NO_DECISIONS,
    wordnet: WordNet | None = None,
    encoder: Encoder | None = None,
    threshold: float = THRESHOLD,
) -> LabelSystem:
    """Make a vocabulary of the most frequent words.

    Equal arguments give equal systems. Ids are positions by frequency: build anew only before anything is trained.

    Args:
        counts: Of a corpus.
        top: Words to keep after inflections and spellings are merged, before all other merges; fewer if there are not
            as many.
        decisions: What a person decided on an earlier table; they go before every rule.
        wordnet: Gives kinds and proposals; without it all nouns are objects.
        encoder: Gives proposals, see :func:`embedding_proposals`.
        threshold: Least cosine of a proposal.

    Raises:
        InputError: If ``top`` is below 1, the threshold is out of range, or there are no words.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    merges: list[Merge] = []
    entries = _spelled(_inflected(counts.words.counts, decisions, merges), decisions, merges)
    kept = _top(entries, top)
    if not kept:
        raise InputError(f"the {counts.captions} captions hold no words to make tags of; are they English?")
    # A form of a spelling ("colours" of "colour") is a step away from the word that is kept ("color").
    words = {*kept, *(other for others in _spellings(merges, kept).values() for other in others)}
    merges = [merge for merge in merges if merge.canonical in words or merge.other in words]
    proposals = _proposals(kept, counts, wordnet=wordnet, encoder=encoder, threshold=threshold)
    merges.extend(_decided(proposals, kept, decisions))
    groups = _grouped(kept, decisions)
    unused = {pair for pair in decisions.comments if not all(word in kept for word in pair)}
    unused -= {ordered(merge.canonical, merge.other) for merge in merges}
    return LabelSystem(
        _vocabulary(groups, kept, merges, wordnet),
        tuple(sum(kept[word].count for word in words) for words in groups.values()),
        tuple(sorted(merges, key=_table_order)),
        counts.words.error,
        tuple(sorted(unused)),
    )


def _inflected(words: Mapping[str, int], decisions: Decisions, merges: list[Merge]) -> dict[str, _Entry]:
    """Words by their dictionary forms."""
    entries: dict[str, _Entry] = {}
    forms: Counter[tuple[str, str]] = Counter()
    for key, count in words.items():
        role, _, surface = key.partition(":")
        base = _dictionary_form(surface, role)
        if ordered(base, surface) in decisions.against_rules:
            merges.append(
                Merge(base, surface, "inflection", 1.0, "reject", "reviewed", words.get(f"{role}:{base}", 0), count)
            )
            base = surface
        if base != surface:
            forms[base, surface] += count
        entries.setdefault(base, _Entry()).roles[role] += count
    for (base, surface), count in forms.items():
        total = sum(words.get(f"{role}:{base}", 0) for role in "nav")
        merges.append(Merge(base, surface, "inflection", 1.0, "accept", "form of the word", total, count))
    return entries


def _dictionary_form(surface: str, role: str) -> str:
    return phrase_lemma(surface) if role == "n" else lemma(surface, _LEMMA_PARTS[role])


def _spelled(entries: dict[str, _Entry], decisions: Decisions, merges: list[Merge]) -> dict[str, _Entry]:
    """One entry for what differs in spaces, hyphens, or the side of the Atlantic."""
    by_letters: dict[str, list[str]] = {}
    for word in entries:
        by_letters.setdefault(spelling_key(word), []).append(word)
    kept = dict(entries)
    for words in by_letters.values():
        canonical, *others = sorted(words, key=lambda word: (-entries[word].count, word))
        for other in others:
            refused = ordered(canonical, other) in decisions.against_rules
            merges.append(
                Merge(
                    canonical, other, "spelling", 1.0, "reject" if refused else "accept",
                    "reviewed" if refused else "the same letters, or British and American",
                    entries[canonical].count, entries[other].count,
                )
            )  # fmt: skip
            if not refused:
                kept[canonical] = _Entry(kept[canonical].roles + kept.pop(other).roles)
    return kept


def spelling_key(word: str) -> str:
    """What all spellings of a word share.

    >>> spelling_key("ice-cream") == spelling_key("ice cream"), spelling_key("grey t-shirt")
    (True, 'graytshirt')
    """
    pieces = (_BRITISH.get(piece, piece) for piece in _SIGNS.split(word))
    return "".join(pieces)


def _top(entries: Mapping[str, _Entry], top: int) -> dict[str, _Entry]:
    order = sorted(entries, key=lambda word: (-entries[word].count, word))
    return {word: entries[word] for word in order[:top]}


def _proposals(
    kept: Mapping[str, _Entry],
    corpus: CaptionCounts,
    *,
    wordnet: WordNet | None,
    encoder: Encoder | None,
    threshold: float,
) -> Iterator[Merge]:
    counts = {word: entry.count for word, entry in kept.items()}
    words = Words(counts, {word: _WORDNET_PARTS[entry.role] for word, entry in kept.items()}, corpus)
    if wordnet is not None:
        yield from synset_proposals(words, wordnet)
    if encoder is not None:
        yield from embedding_proposals(words, encoder, threshold=threshold, wordnet=wordnet)


def _decided(proposals: Iterable[Merge], kept: Mapping[str, _Entry], decisions: Decisions) -> Iterator[Merge]:
    """The proposals with what a person decided on them, and rows for what only the person named."""
    seen = set()
    for merge in proposals:
        pair = ordered(merge.canonical, merge.other)
        seen.add(pair)
        if pair in decisions.rejected:
            yield replace(merge, decision="reject", comment=_remark(pair, decisions))
        elif decisions.accepted.get(merge.other) == merge.canonical:
            yield replace(merge, decision="accept", comment=_remark(pair, decisions))
        elif decisions.accepted.get(merge.canonical) == merge.other:
            yield _turned(merge, comment=_remark(pair, decisions))
        else:
            yield merge
    for other, canonical in decisions.accepted.items():
        pair = ordered(canonical, other)
        if pair not in seen and other in kept and canonical in kept:
            remark = _remark(pair, decisions)
            yield Merge(canonical, other, "review", 1.0, "accept", remark, kept[canonical].count, kept[other].count)


def _turned(merge: Merge, *, comment: str) -> Merge:
    return replace(
        merge, canonical=merge.other, other=merge.canonical, decision="accept", comment=comment,
        canonical_count=merge.other_count, other_count=merge.canonical_count,
    )  # fmt: skip


def _remark(pair: tuple[str, str], decisions: Decisions) -> str:
    return decisions.comments.get(pair) or "reviewed"


def _grouped(kept: Mapping[str, _Entry], decisions: Decisions) -> dict[str, list[str]]:
    """The tags, each with the words that a person made its synonyms; the most frequent group first."""
    groups: dict[str, list[str]] = {}
    for word in kept:
        groups.setdefault(_end_of_chain(word, kept, decisions.accepted), []).append(word)
    total = {tag: sum(kept[word].count for word in words) for tag, words in groups.items()}
    return {tag: groups[tag] for tag in sorted(groups, key=lambda tag: (-total[tag], tag))}


def _end_of_chain(word: str, kept: Mapping[str, _Entry], accepted: Mapping[str, str]) -> str:
    while accepted.get(word) in kept:
        word = accepted[word]
    return word


def _vocabulary(
    groups: Mapping[str, list[str]], kept: Mapping[str, _Entry], merges: Iterable[Merge], wordnet: WordNet | None
) -> Vocabulary:
    spelled = _spellings(merges, kept)
    synonyms = []
    for tag, words in groups.items():
        others = [other for word in words for other in (word, *sorted(spelled.get(word, ()))) if other != tag]
        synonyms.append(tuple(dict.fromkeys(others)))
    kinds = tuple(tag_kind(tag, kept[tag].role, wordnet) for tag in groups)
    return Vocabulary(tuple(groups), kinds=kinds, synonyms=tuple(synonyms))


def _spellings(merges: Iterable[Merge], kept: Mapping[str, _Entry]) -> dict[str, list[str]]:
    """The kept words, each with the spellings that were merged into it."""
    spelled: dict[str, list[str]] = {}
    for merge in merges:
        if merge.source == "spelling" and merge.decision == "accept" and merge.canonical in kept:
            spelled.setdefault(merge.canonical, []).append(merge.other)
    return spelled


def tag_kind(word: str, role: str, wordnet: WordNet | None) -> str:
    """The kind of a word by what it mostly does (``"n"``, ``"a"`` or ``"v"``), and of a noun by its first sense.

    A phrase that WordNet does not know has the kind of its last word; a noun that it does not know is an object.
    """
    if role != "n" or wordnet is None:
        return {"n": "object", "a": "attribute", "v": "action"}[role]
    last = word.replace("-", " ").rpartition(" ")[2]
    return wordnet.kind(word) or wordnet.kind(last) or "object"


def _table_order(merge: Merge) -> tuple[int, str, str, str]:
    # Open proposals first: they are what a person looks for.
    rank = {"": 0, "accept": 1, "reject": 2}[cast("str", merge.decision)]
    return rank, merge.source, merge.canonical, merge.other

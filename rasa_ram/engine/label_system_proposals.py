"""Pairs of words that may mean the same: from WordNet and from text vectors, each with its evidence and its doubts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa_ram.engine.label_system_count import CaptionCounts
from rasa_ram.engine.label_system_merges import Decision, Merge, ordered
from rasa_ram.engine.wordnet import Part, Synset, WordNet

# "couch" and "sofa" share the sense that both mostly have. Below this, one of them mostly means another thing.
MIN_SHARE = 0.5
# Joined by "and" in more than this share of the rarer word's captions, two words name two things.
MAX_JOINED = 0.005
_ROWS = 1024  # of the matrix of cosines at a time: 40 MB for 10,000 words


class Encoder(Protocol):
    """What is needed of a :class:`rasa_ram.text_encoder.TextEncoder`."""

    def prompts(self, tag: str) -> Sequence[str]:
        """The texts that stand for a word; the first is taken."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """float32 ``(N, C)``."""
        ...


@dataclass(frozen=True)
class Words:
    """The words of a label system to come.

    Attributes:
        counts: Word to number of captions.
        parts: Word to its part of speech in WordNet's terms.
        corpus: For the words that stand joined by "and".
    """

    counts: Mapping[str, int]
    parts: Mapping[str, Part]
    corpus: CaptionCounts

    def proposal(self, one: str, other: str, *, source: str, score: float, comment: str, doubt: str | None) -> Merge:
        """A row of the table; with a doubt it is rejected, else nobody has decided yet."""
        canonical, rare = sorted((one, other), key=lambda word: (-self.counts[word], word))
        decision: Decision = "" if doubt is None else "reject"
        text = comment if doubt is None else f"{comment}; {doubt}"
        return Merge(canonical, rare, source, score, decision, text, self.counts[canonical], self.counts[rare])

    def doubt_of_corpus(self, one: str, other: str) -> str | None:
        """Whether captions name both beside each other, as they do cats and dogs."""
        joined = self.corpus.pairs["|".join(ordered(one, other))]
        rarer = min(self.counts[one], self.counts[other])
        if joined < 2 or joined <= MAX_JOINED * rarer:  # once may be the parser's mistake
            return None
        return f'joined by "and" or "or" in {joined} captions'


def synset_proposals(words: Words, wordnet: WordNet, *, min_share: float = MIN_SHARE) -> Iterator[Merge]:
    """Words that share the most frequent sense of each.

    Args:
        words: Those to look at.
        wordnet: Where the senses are.
        min_share: Least share of that sense among the senses of each word; in [0, 1].

    Raises:
        InputError: If ``min_share`` is out of range.
    """
    if not 0 <= min_share <= 1:
        raise InputError(f"min_share must be in [0, 1], got {min_share}")
    by_sense: dict[tuple[Part, int], list[str]] = {}
    for word in sorted(words.counts):
        for sense in wordnet.senses(word, words.parts[word])[:1]:
            by_sense.setdefault((sense.part, sense.offset), []).append(word)
    for (part, offset), same in sorted(by_sense.items()):
        sense = wordnet.synset(offset, part)
        for one, other in combinations(same, 2):
            share = min(wordnet.share(one, sense), wordnet.share(other, sense))
            if share >= min_share:
                comment = f"first sense of both: {sense.gloss[:120]}"
                doubt = words.doubt_of_corpus(one, other)
                yield words.proposal(one, other, source="synset", score=share, comment=comment, doubt=doubt)


def embedding_proposals(
    words: Words, encoder: Encoder, *, threshold: float, wordnet: WordNet | None = None
) -> Iterator[Merge]:
    """Words whose vectors are each other's nearest, with a cosine of at least ``threshold``.

    Vectors bring together what occurs in like places, also opposites and kinds of one thing; those that WordNet or
    the captions tell apart are in the table as rejected.

    Args:
        words: Those to look at; the first prompt of each is encoded.
        encoder: Any text encoder.
        threshold: Least cosine, in [-1, 1]; what is high depends on the encoder.
        wordnet: Knows opposites, and kinds of one thing.

    Raises:
        InputError: If the threshold is out of range, or the encoder gives other than one finite vector per text.
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"threshold must be in [-1, 1], got {threshold}")
    names = sorted(words.counts)
    if len(names) < 2:
        return
    vectors = _unit_vectors(encoder, names)
    nearest, cosines = _nearest(vectors)
    for position, other in enumerate(nearest):
        if position < other and nearest[other] == position and cosines[position] >= threshold:
            pair = names[position], names[other]
            doubt = words.doubt_of_corpus(*pair) or (
                None if wordnet is None else doubt_of_wordnet(*pair, wordnet=wordnet)
            )
            score = float(min(cosines[position], 1.0))
            yield words.proposal(*pair, source="embedding", score=score, comment="each other's nearest", doubt=doubt)


def doubt_of_wordnet(one: str, other: str, *, wordnet: WordNet) -> str | None:
    """Why two words are not one, by their first senses as nouns, adjectives or verbs; None if WordNet says nothing."""
    checks: tuple[tuple[Callable[[Synset, Synset, WordNet], bool], str], ...] = (
        (_are_opposite, "opposites in WordNet"),
        (_is_above, "one is a kind of the other in WordNet"),
        (_are_siblings, "two kinds of one thing in WordNet"),
    )
    parts: tuple[Part, ...] = ("noun", "adj", "verb")
    for part in parts:
        senses = [wordnet.senses(word, part)[:1] for word in (one, other)]
        if all(senses) and senses[0] != senses[1]:
            found = (reason for is_so, reason in checks if is_so(senses[0][0], senses[1][0], wordnet))
            reason = next(found, None)
            if reason is not None:
                return reason
    return None


def _are_opposite(one: Synset, other: Synset, _: WordNet) -> bool:
    return other.offset in one.antonyms or one.offset in other.antonyms


def _is_above(one: Synset, other: Synset, wordnet: WordNet) -> bool:
    return any(general.offset == other.offset for general in wordnet.above(one)) or any(
        general.offset == one.offset for general in wordnet.above(other)
    )


def _are_siblings(one: Synset, other: Synset, wordnet: WordNet) -> bool:
    """Whether they meet at most two steps up, as cats and dogs do in "carnivore"."""
    return bool(_two_steps_up(one, wordnet) & _two_steps_up(other, wordnet))


def _two_steps_up(synset: Synset, wordnet: WordNet) -> set[int]:
    nearest = set(synset.hypernyms)
    return nearest.union(*(wordnet.synset(offset, synset.part).hypernyms for offset in nearest))


def _unit_vectors(encoder: Encoder, names: Sequence[str]) -> FloatArray:
    vectors = np.asarray(encoder.encode([encoder.prompts(name)[0] for name in names]), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(names) or not np.isfinite(vectors).all():
        raise InputError(f"the text encoder must give {len(names)} finite vectors, one per text, got {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _nearest(vectors: FloatArray) -> tuple[list[int], list[float]]:
    """The nearest other vector of each, and their cosine."""
    nearest: list[int] = []
    cosines: list[float] = []
    for start in range(0, len(vectors), _ROWS):
        block = vectors[start : start + _ROWS] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -2
        best = block.argmax(axis=1)
        nearest.extend(best.tolist())
        cosines.extend(block[rows, best].tolist())
    return nearest, cosines

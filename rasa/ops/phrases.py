"""Tags as token spans of captions: which tag a detector's box belongs to, without a string comparison.

A caption is ``[CLS] phrase . phrase . [SEP]`` as token ids. Each phrase keeps the positions of its tokens, so a score
per token becomes a score per phrase, and a box belongs to the tag of its best phrase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from rasa._suggest import did_you_mean
from rasa.arrays import BoolArray, FloatArray, IntArray
from rasa.errors import InputError
from rasa.ops.packing import pack

# Ids of bert-base-uncased that the networks know by number (GroundingDINO, bertwarper.py; transformers likewise).
CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029
# Tokens that the network's text side reads (GroundingDINO, max_text_len).
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Caption:
    """One text for the detector, and where its phrases are; hashable, so text features can be kept by it.

    Attributes:
        token_ids: L ids: ``[CLS]``, then each phrase and a period, then ``[SEP]``.
        spans: Positions of each of the P phrases in ``token_ids``, consecutive, without the period.
        owners: Per phrase, the index of its tag in the list of tags asked for.

    Raises:
        InputError: If a span is not of consecutive positions before the last token, spans overlap or are out of
            order, or there is not one owner per span.
    """

    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        end = 0
        for span in self.spans:
            consecutive = span and span == tuple(range(span[0], span[0] + len(span)))
            if not consecutive or not end <= span[0] < span[-1] + 1 < len(self.token_ids):
                where = f"between {end} and {len(self.token_ids) - 1}, the last token"
                raise InputError(f"spans must be consecutive positions {where}, got {span}; see build_captions")
            end = span[-1] + 1
        if len(self.owners) != len(self.spans):
            raise InputError(f"owners must have {len(self.spans)} entries, one per span, got {len(self.owners)}")

    def __len__(self) -> int:
        """Number of tokens, the delimiters included."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The best tag of each query.

    Attributes:
        owners: int64 ``(Q,)``, index of the tag in the list of tags asked for.
        scores: float32 ``(Q,)`` in [0, 1].
    """

    owners: IntArray
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class ScoreMethod:
    """How token probabilities become the score of a box.

    Attributes:
        mean: Whether a span scores the mean of its tokens, else their maximum.
        whole_caption: Whether the box, once it has its tag, scores the maximum over all tokens of the caption.
    """

    mean: bool = False
    whole_caption: bool = False


SCORES: Mapping[str, ScoreMethod] = MappingProxyType({
    # The original's score, taken over the span of the tag alone.
    "max": ScoreMethod(),
    # The published zero-shot COCO protocol.
    "mean": ScoreMethod(mean=True),
    # What the original demo compares with its box threshold: delimiters and other tags' tokens count.
    "caption": ScoreMethod(whole_caption=True),
})  # fmt: skip
"""Score methods by name."""


def build_captions(
    phrases: Sequence[Sequence[int]], owners: Sequence[int], *, names: Sequence[str], limit: int = MAX_TOKENS
) -> list[Caption]:
    """Pack phrases into captions of like length, as few as can be found, none over ``limit`` tokens.

    The answer depends on the arguments alone. Phrases of a caption are in the order of their tags. Equal phrases are
    sent once and belong to the earliest tag.

    Args:
        phrases: P token ids per phrase, without delimiters.
        owners: Per phrase, the index of its tag in ``names``; a tag may own several.
        names: The tags asked for, for error messages.
        limit: Most tokens of a caption, the delimiters included.

    Returns:
        The captions, ordered by their first phrase; none if there are no phrases.

    Raises:
        InputError: If a phrase is empty, holds a delimiter or is over the limit, or an owner is no index of ``names``.
    """
    distinct = _distinct(phrases, owners, names=names)
    for phrase, owner in distinct:
        _check_phrase(phrase, names[owner], limit)
    groups = pack([len(phrase) + 1 for phrase, _ in distinct], capacity=limit - 2)
    return [_caption([distinct[i] for i in group]) for group in groups]


def positive_map(caption: Caption, length: int) -> BoolArray:
    """Which of ``length`` token positions belong to each phrase, bool ``(P, length)``.

    Raises:
        InputError: If the caption is longer than ``length``.
    """
    if length < len(caption):
        raise InputError(f"length must be at least {len(caption)}, the tokens of the caption, got {length}")
    positions = np.zeros((len(caption.spans), length), np.bool_)
    for row, span in zip(positions, caption.spans, strict=True):
        row[list(span)] = True
    return positions


def span_scores(probabilities: FloatArray, caption: Caption, *, method: str = "max") -> FloatArray:
    """Score of every phrase for every query.

    Args:
        probabilities: ``(Q, L)`` per token, after the sigmoid; columns behind the caption's tokens are not read.
        caption: P phrases.
        method: A name of :data:`SCORES`; ``"caption"`` ranks phrases as ``"max"`` does.

    Returns:
        float32 ``(Q, P)`` in [0, 1].

    Raises:
        InputError: If the method is unknown, or there are fewer columns than tokens.
    """
    how = score_method(method)
    tokens = _tokens(probabilities, caption)
    if not caption.spans:
        return np.zeros((len(tokens), 0), np.float32)
    # A period follows every phrase, so each second piece between these edges is a span.
    edges = np.array([(span[0], span[-1] + 1) for span in caption.spans], np.int64).ravel()
    scores: FloatArray = (np.add if how.mean else np.maximum).reduceat(tokens, edges, axis=1)[:, ::2]
    lengths = np.array([len(span) if how.mean else 1 for span in caption.spans], np.float32)
    return np.divide(scores, lengths, dtype=np.float32)


def assign(probabilities: FloatArray, caption: Caption, *, method: str = "max") -> Assignment:
    """The tag whose span scores highest, and the score, of every query; ties go to the earlier tag.

    A tag with several phrases has the score of the best.

    Args:
        probabilities: ``(Q, L)`` per token, after the sigmoid; columns behind the caption's tokens are not read.
        caption: One phrase at least.
        method: A name of :data:`SCORES`.

    Raises:
        InputError: If the method is unknown, there are fewer columns than tokens, or the caption has no phrase.
    """
    if not caption.spans:
        raise InputError("the caption has no phrase, so no box can belong to one; ask for at least one tag")
    scores = span_scores(probabilities, caption, method=method)
    best = scores.argmax(axis=1)  # the first of equals, and phrases are in the order of their tags
    whole = score_method(method).whole_caption
    chosen = _tokens(probabilities, caption).max(axis=1) if whole else scores[np.arange(len(best)), best]
    return Assignment(np.array(caption.owners, np.int64)[best], chosen.astype(np.float32))


def score_method(name: str) -> ScoreMethod:
    """The score method of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in SCORES:
        known = ", ".join(f'"{method}"' for method in SCORES)
        raise InputError(f'unknown score method "{name}"{did_you_mean(name, SCORES)}; it must be one of {known}')
    return SCORES[name]


def _tokens(probabilities: FloatArray, caption: Caption) -> FloatArray:
    if probabilities.ndim != 2 or probabilities.shape[1] < len(caption):
        raise InputError(
            f"probabilities must have shape (any, {len(caption)}) or more columns, got {probabilities.shape}; "
            "pass one row per query and one column per token of the caption"
        )
    return probabilities[:, : len(caption)]


def _distinct(
    phrases: Sequence[Sequence[int]], owners: Sequence[int], *, names: Sequence[str]
) -> list[tuple[tuple[int, ...], int]]:
    """Phrases and owners in the order of the tags, each phrase once."""
    if len(phrases) != len(owners):
        raise InputError(f"owners must have {len(phrases)} entries, one per phrase, got {len(owners)}")
    if wrong := [owner for owner in owners if not 0 <= owner < len(names)]:
        raise InputError(f"owners must be in [0, {len(names)}), the tags asked for, got {wrong[0]}")
    order = sorted(range(len(owners)), key=lambda i: owners[i])  # stable: a tag's phrases stay in their order
    first: dict[tuple[int, ...], int] = {}
    for i in order:
        first.setdefault(tuple(int(token) for token in phrases[i]), int(owners[i]))
    return list(first.items())


def _check_phrase(phrase: tuple[int, ...], name: str, limit: int) -> None:
    if not phrase:
        raise InputError(f"tag {name!r} has a phrase without tokens; give it a prompt with at least one word")
    if {CLS, SEP, STOP, QUESTION} & {*phrase}:
        raise InputError(f"a phrase of tag {name!r} holds a delimiter, which would split it; leave delimiters out")
    if len(phrase) + 3 > limit:
        start = name if len(name) <= 60 else f"{name[:57]}..."
        raise InputError(
            f"tag {start!r} has a phrase of {len(phrase)} tokens, and a caption has room for {limit - 3}; "
            "give it a shorter prompt"
        )


def _caption(phrases: Sequence[tuple[tuple[int, ...], int]]) -> Caption:
    token_ids, spans = [CLS], []
    for phrase, _ in phrases:
        spans.append(tuple(range(len(token_ids), len(token_ids) + len(phrase))))
        token_ids += [*phrase, STOP]
    return Caption((*token_ids, SEP), tuple(spans), tuple(owner for _, owner in phrases))

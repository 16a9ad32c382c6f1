"""Objects in a photo: the detector's boxes after the second opinion of the classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rasa.adapters.lite.sight import Looker, Proposals
from rasa.adapters.lite.vocabulary import Vocabulary
from rasa.arrays import FloatArray
from rasa.ops.boxes import box_areas, box_coverage, box_iou
from rasa.types import Image

FLOOR = 0.3
"""The detector's boxes below this score are not looked at, unless a threshold asks for them."""

# Second opinion. "Own" is how sure the classifiers are of what the detector says, "other" of their best other word.
_OWN_WEAK, _OTHER_SURE = 0.12, 0.55
_OTHER_SURE_ALONE = 0.75  # where ImageNet has nothing like what the detector says
_ANIMAL_SURE = 0.7  # against "person": ImageNet knows nearly no people, only an animal that is clearly seen counts
_DROP_OWN, _DROP_BELOW = 0.03, 0.8
_SEEN_IN_PHOTO = 0.1  # a renamed object must be this likely in some window of the photo

# How sure the classifiers must be of a word on a crop for the box to bear it. A wrong special name looks
# worse than a right general one, so the name of a single class needs more than a parent.
_SUPPORT, _SUPPORT_OWN_NAME = 0.3, 0.75

_TWIN_IOU, _OTHER_TWIN_IOU = 0.5, 0.8
_SHARE_OF_WEAK, _WEAK = 0.6, 0.7  # a weak box mostly inside a better one of its kind is a part of that object
_NESTED, _LARGE_ENOUGH = 0.85, 0.7  # of two nested boxes the larger stays if its score is this share of the other's
_GROUP_COVERAGE, _GROUP_AREA, _GROUP_SIZE = 0.8, 0.75, 2


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One object.

    Attributes:
        box: float32 ``(4,)``, xyxy in pixels.
        score: In [0, 1].
        word: What it is.
        opinion: float32 ``(T,)``, how sure the classifiers are of each word on its crop; None if it is too small.
        kin: Words that may name the same object, beside those that cover ``word`` and those it covers.
        is_renamed: Whether the classifiers overruled the detector; the box is then less exact.
    """

    box: FloatArray
    score: float
    word: str
    opinion: FloatArray | None = None
    kin: frozenset[str] = frozenset()
    is_renamed: bool = False


def sightings(looker: Looker, image: Image, *, threshold: float) -> list[Sighting]:
    """The objects with a score of at least ``threshold``, best first."""
    proposals = looker.propose(image, floor=min(FLOOR, threshold))
    judged = [_judge(proposals, i, looker.vocabulary) for i in range(len(proposals.scores))]
    found = [sighting for sighting in judged if sighting is not None and sighting.score >= threshold]
    # The detector's own words first: among equals, what both networks say is the better box.
    found.sort(key=lambda sighting: (sighting.is_renamed, -sighting.score))
    kept = _without_nested(_without_groups(_without_twins(found)))
    kept = [s for s in kept if not s.is_renamed or _is_sound(s, kept, looker, image)]
    return sorted(kept, key=lambda sighting: -sighting.score)


def fits(sighting: Sighting, name: str, vocabulary: Vocabulary) -> bool:
    """Whether the object may be called ``name``.

    Its own word and all that cover it fit; a more special word, or one of its kin, needs the classifiers' support.
    """
    if vocabulary.covers(name, sighting.word):
        return True
    if sighting.opinion is None or not is_akin(sighting, name, vocabulary):
        return False
    needed = _SUPPORT_OWN_NAME if vocabulary.words[name].is_own_name else _SUPPORT
    return bool(sighting.opinion[vocabulary.positions[name]] >= needed)


def best_label(sighting: Sighting, names: Iterable[str], vocabulary: Vocabulary) -> str | None:
    """The most special of the names that fits the object; None if none does."""
    fitting = [name for name in names if fits(sighting, name, vocabulary)]
    in_line = [n for n in fitting if vocabulary.covers(n, sighting.word) or vocabulary.covers(sighting.word, n)]
    better = [n for n in fitting if n not in in_line and _outweighs(sighting, n, vocabulary)]

    def rank(name: str) -> tuple[int, float]:
        sureness = 0.0 if sighting.opinion is None else float(sighting.opinion[vocabulary.positions[name]])
        return -len(vocabulary.words[name].ancestors), -sureness

    return min(better or in_line or fitting, key=rank, default=None)


def is_akin(sighting: Sighting, name: str, vocabulary: Vocabulary) -> bool:
    """Whether ``name`` could be another word for the object, whatever the classifiers say."""
    words = (sighting.word, *sighting.kin)
    return any(vocabulary.covers(word, name) or vocabulary.covers(name, word) for word in words)


def _outweighs(sighting: Sighting, name: str, vocabulary: Vocabulary) -> bool:
    """Whether the classifiers see a thing of the same broad kind instead: a freight car, not a truck."""
    if sighting.opinion is None or vocabulary.broadest(name) != vocabulary.broadest(sighting.word):
        return False
    own, other = (sighting.opinion[vocabulary.positions[word]] for word in (sighting.word, name))
    return bool(own < _OWN_WEAK and other >= _OTHER_SURE)


def _judge(proposals: Proposals, index: int, vocabulary: Vocabulary) -> Sighting | None:
    box, score = proposals.boxes[index], float(proposals.scores[index])
    coco = vocabulary.coco[int(proposals.classes[index])]
    opinion = proposals.opinions[index]
    as_is = Sighting(box, score, coco.name, opinion, coco.lookalikes)
    if opinion is None:
        return as_is
    own = max((float(opinion[vocabulary.positions[name]]) for name in coco.lookalikes), default=0.0)
    other, sureness = _best_other(opinion, vocabulary)
    if coco.name == "person":
        overruled = sureness >= _ANIMAL_SURE and vocabulary.covers("animal", other)
        return Sighting(box, (score + sureness) / 2, other, opinion, is_renamed=True) if overruled else as_is
    if own < _OWN_WEAK and sureness >= (_OTHER_SURE if coco.lookalikes else _OTHER_SURE_ALONE):
        return Sighting(box, (score + sureness) / 2, other, opinion, is_renamed=True)
    return None if coco.lookalikes and own < _DROP_OWN and score < _DROP_BELOW else as_is


def _best_other(opinion: FloatArray, vocabulary: Vocabulary) -> tuple[str, float]:
    """The most special object that the classifiers are sure of, and how sure they are of it."""
    positions = [vocabulary.positions[name] for name in vocabulary.own_names]
    leaf = vocabulary.own_names[int(np.argmax(opinion[positions]))]
    ancestors = sorted(vocabulary.words[leaf].ancestors, key=lambda name: (len(vocabulary.words[name].classes), name))
    chain = [name for name in (leaf, *ancestors) if vocabulary.words[name].is_object] or [leaf]
    sureness = {name: float(opinion[vocabulary.positions[name]]) for name in chain}
    return next(((name, value) for name, value in sureness.items() if value >= _OTHER_SURE), (chain[0], 0.0))


def _is_sound(sighting: Sighting, found: Sequence[Sighting], looker: Looker, image: Image) -> bool:
    """Whether a renamed object is one: seen in the photo too, and not a neighbour that reaches into the crop."""
    vocabulary = looker.vocabulary
    if looker.classify(image).scores[vocabulary.positions[sighting.word]] < _SEEN_IN_PHOTO:
        return False
    return not any(
        not other.is_renamed
        and is_akin(other, sighting.word, vocabulary)
        and box_iou(sighting.box[None], other.box[None])[0, 0] > 0
        for other in found
    )


def _without_twins(found: Iterable[Sighting]) -> list[Sighting]:
    kept: list[Sighting] = []
    for sighting in found:
        if not any(_is_twin(sighting, better) for better in kept):
            kept.append(sighting)
    return kept


def _is_twin(sighting: Sighting, better: Sighting) -> bool:
    iou = box_iou(sighting.box[None], better.box[None])[0, 0]
    if sighting.word != better.word:
        return bool(iou > _OTHER_TWIN_IOU)
    share = box_coverage(sighting.box[None], better.box[None])[0, 0]
    return bool(iou > _TWIN_IOU or (share > _SHARE_OF_WEAK and (sighting.score < _WEAK or sighting.is_renamed)))


def _without_groups(found: list[Sighting]) -> list[Sighting]:
    """Drop a box that holds two or more of its own kind: it shows the group, and they show its members."""
    if not found:
        return found
    boxes = np.stack([sighting.box for sighting in found])
    areas = box_areas(boxes)
    same = np.array([[a.word == b.word for b in found] for a in found])
    holds = same & (box_coverage(boxes, boxes).T > _GROUP_COVERAGE) & (areas[None] < _GROUP_AREA * areas[:, None])
    return [sighting for sighting, count in zip(found, holds.sum(1), strict=True) if count < _GROUP_SIZE]


def _without_nested(found: list[Sighting]) -> list[Sighting]:
    """Of a head and its body keep the body, unless the detector is far surer of the head."""
    kept: list[Sighting] = []
    for sighting in sorted(found, key=lambda s: -float(box_areas(s.box[None])[0])):
        around = [s for s in kept if s.word == sighting.word and _share(sighting, s) > _NESTED]
        if any(s.score >= _LARGE_ENOUGH * sighting.score for s in around):
            continue
        kept = [s for s in kept if not any(s is outer for outer in around)] + [sighting]
    return kept


def _share(sighting: Sighting, other: Sighting) -> float:
    return float(box_coverage(sighting.box[None], other.box[None])[0, 0])

"""Boxes for tags: SSD-MobileNetV2, checked by the classifiers; class maps and DINOv2 for what it does not know."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rasa.adapters.lite._dinov2_network import DinoV2Focus
from rasa.adapters.lite.dinov2 import load_dinov2, photo_features
from rasa.adapters.lite.evidence import Sighting, best_label, is_akin, sightings
from rasa.adapters.lite.localise import Place, places_from_maps, places_from_patches
from rasa.adapters.lite.sight import Looker, describe_looker, load_looker
from rasa.arrays import FloatArray
from rasa.errors import InputError, RasaWarning, WeightsError
from rasa.ops.boxes import box_coverage, box_iou, clip_boxes
from rasa.types import Image, Instances
from rasa.weights import checkpoints, fetch

BOX_THRESHOLD = 0.5
REFINER = "dinov2-vits14.focus"

_SURE = 0.45  # a word must be this likely in the photo before its class map is searched
_SURE_OWN_NAME = 0.75  # the name of a single class, where a parent was asked for too: a wrong special name looks worse
_MOST_SEARCHES = 3  # words searched for in class maps, most likely first
_SAME_IOU, _SAME_COVERAGE = 0.5, 0.7  # a box this much like another, or inside it, is that object again
_APART_IOU = 0.1
# Makes the sureness of a place comparable to the detector's scores: at the default of 0.5 it needs 0.45.
_PLACE_POWER = 0.87


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    box: FloatArray
    score: float
    label: str
    sighting: Sighting | None = None


class LiteDetector:
    """Finds objects by name: the 80 kinds of COCO, and less exactly the objects among ImageNet's classes.

    Every object has one box. It bears the most special of the tags asked for that the evidence supports: asked for
    "animal", "dog" and "golden retriever", a dog is a golden retriever if the classifiers agree, else a dog.

    Args:
        looker: The networks that look at the photo.
        refiner: DINOv2, for the outlines of what the detector does not know; None leaves class maps alone.
        box_threshold: Lowest score of a box, in [0, 1].

    Raises:
        InputError: If the threshold is outside [0, 1].
    """

    def __init__(
        self, looker: Looker, refiner: DinoV2Focus | None = None, *, box_threshold: float = BOX_THRESHOLD
    ) -> None:
        if not 0 <= box_threshold <= 1:
            raise InputError(f"box_threshold must be in [0, 1], got {box_threshold}")
        self._looker = looker
        self._refiner = refiner
        self._threshold = float(box_threshold)

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image; see :class:`rasa.protocols.Detector`.

        Tags are understood by name, synonym and plural ("puppies", "automobile"); one that is unknown gets no
        box and a :class:`rasa.errors.RasaWarning`.

        Raises:
            InputError: If there are not as many lists of tags as images.
        """
        if len(images) != len(tags):
            raise InputError(f"{len(images)} images need as many lists of tags, got {len(tags)}")
        asked = [self._asked(names) for names in tags]
        return [self._detect(image, wanted) for image, wanted in zip(images, asked, strict=True)]

    def describe(self) -> Mapping[str, Any]:
        """Name, checkpoints and threshold."""
        shared = describe_looker(self._looker)["checkpoints"]
        refiner = {} if self._refiner is None else {REFINER: checkpoints()[REFINER].sha256}
        return {"model": "lite-detector", "checkpoints": shared | refiner, "box_threshold": self._threshold}

    def _asked(self, tags: Sequence[str]) -> dict[str, str]:
        """Word of the vocabulary to the tag that asked for it; of two tags for one word the first counts."""
        asked: dict[str, str] = {}
        unknown = []
        for tag in tags:
            name = self._looker.vocabulary.find(tag)
            if name is None:
                unknown.append(tag)
            else:
                asked.setdefault(name, tag)
        if unknown:
            names = ", ".join(repr(tag) for tag in unknown)
            message = f"the lite detector does not know {names} and finds no boxes for it; use everyday words"
            warnings.warn(message, RasaWarning, stacklevel=3)
        return asked

    def _detect(self, image: Image, asked: Mapping[str, str]) -> Instances:
        if not asked:
            return Instances()
        objects = sightings(self._looker, image, threshold=self._threshold)
        seen = self._labelled(image, [s for s in objects if not s.is_renamed], asked)
        # A renamed box is less exact than what the class maps lead to, so they are asked about its word too.
        renamed = self._labelled(image, [s for s in objects if s.is_renamed], asked)
        found = seen + _settled(renamed, self._searched(image, seen, asked))
        found.sort(key=lambda item: -item.score)
        boxes = np.array([item.box for item in found], np.float32).reshape(-1, 4)
        return Instances(
            boxes=clip_boxes(boxes, image.size),
            scores=np.array([item.score for item in found], np.float32),
            labels=tuple(asked[item.label] for item in found),
        )

    def _labelled(self, image: Image, objects: Sequence[Sighting], asked: Mapping[str, str]) -> list[_Found]:
        """The objects that an asked word fits."""
        vocabulary = self._looker.vocabulary
        labels = [best_label(sighting, asked, vocabulary) for sighting in objects]
        if objects:
            self._lend_labels(image, objects, labels, asked)
        pairs = zip(objects, labels, strict=True)
        return [_Found(s.box, s.score, label, s) for s, label in pairs if label is not None]

    def _lend_labels(
        self, image: Image, objects: Sequence[Sighting], labels: list[str | None], asked: Mapping[str, str]
    ) -> None:
        """Give a word that is sure in the photo, but on no crop, to the best object it could be."""
        vocabulary = self._looker.vocabulary
        scores = self._looker.classify(image).scores
        for name in asked:
            free = [i for i, s in enumerate(objects) if labels[i] is None and vocabulary.covers(s.word, name)]
            if free and name not in labels and scores[vocabulary.positions[name]] >= _SURE:
                labels[free[0]] = name

    def _searched(self, image: Image, seen: Sequence[_Found], asked: Mapping[str, str]) -> list[_Found]:
        """Places of words that no object explains."""
        view = self._looker.classify(image)
        places: list[_Found] = []
        for name in self._to_search(view.scores, seen, asked):
            sureness = float(view.scores[self._looker.vocabulary.positions[name]])
            for place in self._places(image, name):
                item = _Found(place.box, (sureness * place.peak) ** _PLACE_POWER, name)
                if item.score >= self._threshold and not self._repeats(item, seen, places):
                    places.append(item)
        return places

    def _repeats(self, item: _Found, seen: Sequence[_Found], places: Sequence[_Found]) -> bool:
        """Whether the place shows an object that has a box already; what lies in a box of another kind does not."""
        related = self._looker.vocabulary.are_related
        return any(_is_same_place(item.box, place.box) for place in places) or any(
            box_iou(item.box[None], other.box[None])[0, 0] > _SAME_IOU
            or (related(item.label, other.label) and _is_same_place(item.box, other.box))
            for other in seen
        )

    def _to_search(self, scores: FloatArray, seen: Sequence[_Found], asked: Mapping[str, str]) -> list[str]:
        """The words to look for in class maps: sure in the photo, with an outline, and not named yet."""
        vocabulary = self._looker.vocabulary
        # What is sure and has no outline, such as a restaurant, explains its parents too: no box for its building.
        scenes = [n for n in asked if not vocabulary.words[n].is_object and scores[vocabulary.positions[n]] >= _SURE]
        candidates = [
            name
            for name in asked
            if not any(vocabulary.covers(name, scene) for scene in scenes)
            and vocabulary.words[name].is_object
            and vocabulary.words[name].classes
            and scores[vocabulary.positions[name]] >= self._needed(name, asked)
            and not any(item.sighting and is_akin(item.sighting, name, vocabulary) for item in seen)
        ]
        # A parent is searched for only if none of its kinds is.
        special = [n for n in candidates if not any(n != m and vocabulary.covers(n, m) for m in candidates)]
        return sorted(special, key=lambda name: -scores[vocabulary.positions[name]])[:_MOST_SEARCHES]

    def _needed(self, name: str, asked: Mapping[str, str]) -> float:
        """How likely ``name`` must be in the photo before its class map is searched."""
        vocabulary = self._looker.vocabulary
        has_parent = any(other != name and vocabulary.covers(other, name) for other in asked)
        return _SURE_OWN_NAME if has_parent and vocabulary.words[name].is_own_name else _SURE

    def _places(self, image: Image, name: str) -> list[Place]:
        maps = self._looker.classify(image).maps
        classes = sorted(self._looker.vocabulary.words[name].classes)
        if self._refiner is None:
            return places_from_maps(maps, classes, image.size)
        return places_from_patches(maps, classes, photo_features(self._refiner, image), image.size)


def build_detector(*, device: str = "cpu", dtype: str = "float32", box_threshold: float | None = None) -> LiteDetector:
    """The detector with its weights, fetched if need be; shares the networks of the tagger.

    Without the weights of SSD or DINOv2 it works on class maps alone, and warns.

    Args:
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        box_threshold: Lowest score of a box, in [0, 1]; None is :data:`BOX_THRESHOLD`.

    Raises:
        WeightsError: If the classifier's weights cannot be had.
        InputError: If an argument is out of range.
    """
    looker = load_looker(device=device, dtype=dtype)
    threshold = BOX_THRESHOLD if box_threshold is None else box_threshold
    try:
        refiner = load_dinov2(fetch(REFINER), device=device, dtype=dtype)
    except WeightsError as error:
        message = f"lite: without {REFINER}, boxes of what the detector does not know are rough ({error})"
        warnings.warn(message, RasaWarning, stacklevel=2)
        refiner = None
    return LiteDetector(looker, refiner, box_threshold=threshold)


def _settled(renamed: Sequence[_Found], places: Sequence[_Found]) -> list[_Found]:
    """Renamed boxes and places of the same objects, each object once.

    A place goes before the boxes in it, unless they are several and apart: then it is their group.
    """
    kept = []
    for place in places:
        inside = [item for item in renamed if box_coverage(item.box[None], place.box[None])[0, 0] > _SAME_COVERAGE]
        boxes = np.array([item.box for item in inside], np.float32).reshape(-1, 4)
        apart = len(inside) > 1 and not (np.triu(box_iou(boxes, boxes), 1) > _APART_IOU).any()
        if not apart:
            kept.append(place)
    return kept + [item for item in renamed if not any(_is_same_place(item.box, place.box) for place in kept)]


def _is_same_place(box: FloatArray, other: FloatArray) -> bool:
    """Whether the boxes overlap much, or one lies in the other."""
    share, counter_share = box_coverage(box[None], other[None]), box_coverage(other[None], box[None])
    iou = box_iou(box[None], other[None])
    return bool(iou[0, 0] > _SAME_IOU or max(share[0, 0], counter_share[0, 0]) > _SAME_COVERAGE)

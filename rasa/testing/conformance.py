"""Does a model keep the promises of its role? For anybody's tagger, detector, segmenter or stage.

Every check runs the model on a few small pictures and raises
:class:`rasa.errors.ContractError` at the first promise that is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import FloatArray
from rasa.errors import ContractError
from rasa.protocols import Described, Detector, DetectorSegmenter, Segmenter, Stage, Tagger
from rasa.testing.pictures import sample_images
from rasa.types import Image, Instances, Masks, Result, Tags

Answer = TypeVar("Answer")


def check_tagger(tagger: Tagger, *, images: Sequence[Image] | None = None, tolerance: float = 1e-4) -> None:
    """Check the promises of :class:`rasa.protocols.Tagger`.

    One ``Tags`` per image in order, an empty list for an empty list, a batch like its
    images one by one, the same answer twice, images unchanged, a ``describe`` that is JSON.

    Args:
        tagger: The model.
        images: Pictures to try; :func:`rasa.testing.sample_images` unless given.
        tolerance: Largest difference of scores between a batch and single images.

    Raises:
        ContractError: If a promise is broken; it says which, and on which image.
    """
    pictures = _pictures(images)
    _require(isinstance(tagger, Tagger), f"{type(tagger).__name__} has no method tag(images)")
    _check_calls(lambda chosen: tagger.tag([pictures[i] for i in chosen]), pictures, Tags, tolerance)
    _check_description(tagger)


def check_detector(
    detector: Detector,
    *,
    tags: Sequence[str] = ("cat", "dog"),
    images: Sequence[Image] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check the promises of :class:`rasa.protocols.Detector`.

    As for a tagger, and: labels are among the tags asked for, boxes lie inside the
    image, no tags give no boxes, and each image is asked for its own tags.

    Args:
        detector: The model.
        tags: Two or more tags that it understands.
        images: Pictures to try; :func:`rasa.testing.sample_images` unless given.
        tolerance: Largest difference of scores, and of boxes as a share of the
            image's longer side, between a batch and single images.

    Raises:
        ContractError: If a promise is broken; it says which, and on which image.
    """
    _require(isinstance(detector, Detector), f"{type(detector).__name__} has no method detect(images, tags)")
    for image, found in _check_detection(detector.detect, tags, images=images, tolerance=tolerance):
        _require(found.masks is None, f"{image.name}: a detector gives no masks")
    _check_description(detector)


def check_detector_segmenter(
    model: DetectorSegmenter,
    *,
    tags: Sequence[str] = ("cat", "dog"),
    images: Sequence[Image] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check the promises of :class:`rasa.protocols.DetectorSegmenter`.

    As for a detector, and: one mask of the image's size per box, also for no boxes.

    Args:
        model: The model.
        tags: Two or more tags that it understands.
        images: Pictures to try; :func:`rasa.testing.sample_images` unless given.
        tolerance: As for a detector, and the largest share of a mask's pixels that may
            differ between a batch and single images.

    Raises:
        ContractError: If a promise is broken; it says which, and on which image.
    """
    fits = isinstance(model, DetectorSegmenter)
    _require(fits, f"{type(model).__name__} has no method detect_and_segment(images, tags)")
    for image, found in _check_detection(model.detect_and_segment, tags, images=images, tolerance=tolerance):
        expected = (len(found), *image.size)
        got = "none" if found.masks is None else found.masks.shape
        _require(got == expected, f"{image.name}: {len(found)} boxes need masks of shape {expected}, got {got}")
    _check_description(model)


def check_segmenter(segmenter: Segmenter, *, images: Sequence[Image] | None = None, tolerance: float = 1e-4) -> None:
    """Check the promises of :class:`rasa.protocols.Segmenter`.

    As for a tagger, and: one mask of the image's size per box, also for no boxes, for a
    box without area, for the whole image and for a box that reaches outside.

    Args:
        segmenter: The model.
        images: Pictures to try; :func:`rasa.testing.sample_images` unless given.
        tolerance: Largest share of a mask's pixels, and difference of its score,
            that may differ between a batch and single images.

    Raises:
        ContractError: If a promise is broken; it says which, and on which image.
    """
    pictures = _pictures(images)
    _require(isinstance(segmenter, Segmenter), f"{type(segmenter).__name__} has no method segment(images, boxes)")
    # The number of boxes differs by image, and one image has none.
    boxes = [_awkward_boxes(image)[: i % 6] for i, image in enumerate(pictures)]
    answers = _check_calls(
        lambda chosen: segmenter.segment([pictures[i] for i in chosen], [boxes[i] for i in chosen]),
        pictures,
        Masks,
        tolerance,
    )
    for image, rows, found in zip(pictures, boxes, answers, strict=True):
        expected = (len(rows), *image.size)
        got = found.masks.shape
        _require(got == expected, f"{image.name}: {len(rows)} boxes need masks of shape {expected}, got {got}")
    _check_description(segmenter)


def check_stage(
    stage: Stage,
    *,
    images: Sequence[Image] | None = None,
    results: Sequence[Result] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check the promises of :class:`rasa.protocols.Stage`.

    Args:
        stage: The stage.
        images: Pictures to try; :func:`rasa.testing.sample_images` unless given.
        results: One per image; empty ones unless given.
        tolerance: Largest difference of numbers between a batch and single images.

    Raises:
        ContractError: If a promise is broken; it says which, and on which image.
    """
    pictures = _pictures(images)
    before = [Result(image.name, image.size) for image in pictures] if results is None else list(results)
    texts = [result.to_json() for result in before]
    answers = _check_calls(
        lambda chosen: stage([pictures[i] for i in chosen], [before[i] for i in chosen]), pictures, Result, tolerance
    )
    _require([result.to_json() for result in before] == texts, "the stage changed the results that it was given")
    for old, new in zip(before, answers, strict=True):
        same = (old.name, old.size) == (new.name, new.size)
        _require(same, f"{old.name}: the stage must keep the name and size of an image, got {new.name}, {new.size}")
    _check_description(stage)


def _check_detection(
    detect: Callable[[Sequence[Image], Sequence[Sequence[str]]], Sequence[Instances]],
    tags: Sequence[str],
    *,
    images: Sequence[Image] | None,
    tolerance: float,
) -> list[tuple[Image, Instances]]:
    """Check what holds of boxes with and without masks; return the images with their answers."""
    pictures = _pictures(images)
    # Every image asks for something else: all tags, none, or one of them.
    choices = [tuple(tags), (), *((tag,) for tag in tags)]
    asked = [choices[i % len(choices)] for i in range(len(pictures))]
    answers = _check_calls(
        lambda chosen: detect([pictures[i] for i in chosen], [asked[i] for i in chosen]),
        pictures,
        Instances,
        tolerance,
    )
    for image, names, found in zip(pictures, asked, answers, strict=True):
        strays = sorted(set(found.labels) - set(names))
        _require(not strays, f"{image.name}: asked for {list(names)}, got boxes labelled {strays}")
        height, width = image.size
        inside = (found.boxes >= 0) & (found.boxes <= np.array([width, height, width, height], np.float32))
        _require(bool(inside.all()), f"{image.name}: a box reaches outside the image of size {image.size}")
    return list(zip(pictures, answers, strict=True))


def _check_calls(
    call: Callable[[Sequence[int]], Sequence[Answer]], images: Sequence[Image], kind: type[Answer], tolerance: float
) -> Sequence[Answer]:
    """Call a model on a batch, on no image, twice, and one by one; return the batch's answers."""
    pixels = [image.pixels.tobytes() for image in images]
    everything = range(len(images))
    batch = call(everything)
    _require(len(batch) == len(images), f"{len(images)} images need as many answers, got {len(batch)}")
    for image, answer in zip(images, batch, strict=True):
        _require(isinstance(answer, kind), f"{image.name}: expected {kind.__name__}, got {type(answer).__name__}")
    _require(len(call([])) == 0, "no images must give an empty list")
    again, single = call(everything), [call([i])[0] for i in everything]
    for image, first, second, alone in zip(images, batch, again, single, strict=True):
        _require(_equal(first, second, tolerance), f"{image.name}: the same call gave another answer")
        _require(_equal(first, alone, tolerance), f"{image.name}: a batch gave another answer than the image alone")
    _require(pixels == [image.pixels.tobytes() for image in images], "the pixels of an image were changed")
    return batch


def _awkward_boxes(image: Image) -> FloatArray:
    height, width = image.size
    rows = [
        (width / 4, height / 4, width * 3 / 4, height * 3 / 4),
        (0, 0, width, height),
        (width / 2, height / 2, width / 2, height / 2),
        (width / 4, height / 4, width * 3 / 4, height * 3 / 4),
        (-5, -5, width + 5, height / 2),
    ]
    return np.array(rows, np.float32)


def _equal(left: object, right: object, tolerance: float) -> bool:
    """Whether two answers agree: text exactly, numbers and masks within ``tolerance``."""
    match left, right:
        case Result(), Result():
            return _equal(left.tags, right.tags, tolerance) and _equal(left.instances, right.instances, tolerance)
        case Tags(), Tags():
            same = left.names == right.names and left.kinds == right.kinds
            return same and _close(left.scores, right.scores, tolerance)
        case Masks(), Masks():
            return _close(left.masks, right.masks, tolerance) and _close(left.scores, right.scores, tolerance)
        case Instances(), Instances():
            reach = max(1.0, float(np.abs(left.boxes).max(initial=0)))
            return (
                left.labels == right.labels
                and _close(left.boxes, right.boxes, tolerance * reach)
                and _close(left.scores, right.scores, tolerance)
                and _close(left.masks, right.masks, tolerance)
                and _close(left.mask_scores, right.mask_scores, tolerance)
            )
    return False


def _close(left: NDArray[Any] | None, right: NDArray[Any] | None, tolerance: float) -> bool:
    if left is None or right is None:
        return left is right
    if left.shape != right.shape:
        return False
    if left.dtype == np.bool_:
        return bool(np.count_nonzero(left != right) <= tolerance * left.size)
    return bool(np.allclose(left, right, rtol=0, atol=tolerance))


def _check_description(model: object) -> None:
    if not isinstance(model, Described):
        return
    try:
        json.dumps(model.describe(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{type(model).__name__}.describe() must give plain JSON values: {error}") from error


def _pictures(images: Sequence[Image] | None) -> list[Image]:
    return sample_images() if images is None else list(images)


def _require(kept: bool, promise: str) -> None:
    if not kept:
        raise ContractError(promise)

"""Labelled images that every format has to hold, by name and at random, and how a read one is compared."""

import functools
import hashlib
import io
import itertools
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import PIL.Image
from hypothesis.extra.numpy import arrays

from rasa import Instances, Result, Tags
from rasa.formats.samples import SPLITS, Sample
from rasa.ops.masks import masks_to_boxes

UNICODE_LABELS = (
    "café au lait",
    "犬",
    "собака",
    "शेर",
    "🐕‍🦺 guide dog",
    "a, b & <c> \"d\" 'e'",
    "C:\\x/y",
    "tree 100 %",
)
MANY_LABELS = tuple(f"class {number:03}" for number in range(300))
_KINDS = ("object", "scene", "action", "attribute", "")


@functools.cache
def image_bytes(height, width, *, seed=0, kind="PNG"):
    """The bytes of an image file of that size, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def sample_of(masks=None, labels=(), *, size=None, seed=0, split="train", suffix=".png", **fields):
    """A sample with an image of noise; what is not given is made up from ``seed``.

    ``fields`` may hold boxes, scores, mask_scores and tags.
    """
    rng = np.random.default_rng(seed)
    masks = None if masks is None else np.asarray(masks, np.bool_)
    height, width = size or masks.shape[1:]
    count = len(labels)
    boxes = masks_to_boxes(masks) if masks is not None else _boxes(rng, count, height, width)
    instances = Instances(
        boxes=fields.get("boxes", boxes),
        scores=fields.get("scores", rng.random(count, np.float32)),
        labels=tuple(labels),
        masks=masks,
        mask_scores=fields.get("mask_scores", None if masks is None else rng.random(count, np.float32)),
    )
    data = image_bytes(height, width, seed=seed, kind={".png": "PNG", ".jpg": "JPEG"}[suffix])
    identity = hashlib.sha256(data).hexdigest()
    result = Result(f"photos/{seed}{suffix}", (height, width), fields.get("tags", Tags()), instances)
    return Sample(identity, f"{identity[:16]}-{seed}{suffix}", result, split, lambda: data)


def _boxes(rng, count, height, width):
    xs = np.sort(rng.random((count, 2)) * width, axis=1)
    ys = np.sort(rng.random((count, 2)) * height, axis=1)
    return np.stack([xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]], axis=1).astype(np.float32)


def disc(size, centre, radius):
    """A bool mask with one filled circle; all in pixels."""
    y, x = np.indices(size)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def named_samples():
    """Samples by what is special about them; all have different file names."""
    size, count = (48, 64), itertools.count(1)
    ring = disc(size, (24, 30), 18) & ~disc(size, (24, 30), 9)
    target = ring | disc(size, (24, 30), 4)
    parts = disc(size, (10, 10), 6) | disc(size, (36, 50), 8) | disc(size, (40, 10), 1)
    one, corner, diagonal = np.zeros((3, *size), np.bool_)
    one[7, 9] = corner[0, 0] = corner[47, 63] = True
    diagonal[[3, 4, 5], [3, 4, 5]] = True
    edges = np.zeros(size, np.bool_)
    edges[[0, -1], :] = edges[:, [0, -1]] = True
    nothing, everything = np.zeros(size, np.bool_), np.ones(size, np.bool_)
    many = np.stack([disc(size, (i % 48, i * 7 % 64), 2) for i in range(300)])
    tags = Tags(("dog", "park", "犬 & cat"), np.array([0.9, 0.5, 0.1], np.float32), None, ("object", "scene", ""))

    def one_of(masks, labels=None, **fields):
        return sample_of(np.stack(masks), labels or ["dog"] * len(masks), seed=next(count), **fields)

    return {
        "no objects": sample_of(np.zeros((0, *size), np.bool_), (), seed=next(count)),
        "tags only": sample_of(None, (), size=size, tags=tags, seed=next(count)),
        "one pixel": one_of([one]),
        "image of one pixel": sample_of(np.ones((1, 1, 1), np.bool_), ["dog"], seed=next(count)),
        "borders": one_of([edges, corner, everything]),
        "holes": one_of([ring]),
        "part in a hole": one_of([target]),
        "parts": one_of([parts]),
        "diagonal": one_of([diagonal]),
        "empty mask": one_of([nothing, one], boxes=np.array([[1, 2, 3, 4], [9, 7, 10, 8]], np.float32)),
        "overlap": one_of([disc(size, (20, 20), 12), disc(size, (24, 26), 9)], ["dog", "cat"], tags=tags),
        "boxes only": sample_of(None, ["dog", "cat", "dog"], size=size, seed=next(count)),
        "unicode": one_of([disc(size, (5 * i + 5, 20), 2) for i in range(8)], UNICODE_LABELS),
        "300 classes": one_of(list(many), MANY_LABELS),
        "jpeg": one_of([parts], suffix=".jpg", split="val"),
        "test split": one_of([ring, parts], split="test"),
    }


def classes_of(samples):
    """The class names of ``samples``, sorted."""
    return sorted({label for sample in samples for label in sample.result.instances.labels})


# Any text that is no control character and has something to see; spaces at its ends are no part of a name.
labels = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text
)
scores = st.floats(0, 1, width=32)


@st.composite
def tags(draw, names=labels):
    """Up to five tags with scores, with kinds or without."""
    chosen = draw(st.lists(names, max_size=5, unique=True))
    kinds = draw(st.none() | st.tuples(*[st.sampled_from(_KINDS)] * len(chosen)))
    return Tags(tuple(chosen), np.array([draw(scores) for _ in chosen], np.float32), None, kinds)


@st.composite
def samples(draw, *, classes, seed=0, masks=True, max_objects=4, max_side=20):
    """One sample whose objects are of ``classes``; masks are any pixels at all."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    chosen = draw(st.lists(st.sampled_from(classes), max_size=max_objects))
    drawn = [draw(arrays(np.bool_, (height, width))) for _ in chosen] if masks else None
    stack = None if drawn is None else np.array(drawn, np.bool_).reshape(-1, height, width)
    numbers = np.array([draw(scores) for _ in chosen], np.float32)
    fields = {"scores": numbers, "mask_scores": numbers[::-1].copy() if masks and draw(st.booleans()) else None}
    split = draw(st.sampled_from(SPLITS))
    return sample_of(stack, chosen, size=(height, width), seed=seed, split=split, tags=draw(tags()), **fields)


@st.composite
def datasets(draw, *, max_images=4, **options):
    """``(classes, samples)``; the classes are more than the objects need, in any order."""
    classes = draw(st.lists(labels, min_size=1, max_size=6, unique=True))
    count = draw(st.integers(0, max_images))
    return classes, [draw(samples(classes=classes, seed=seed, **options)) for seed in range(count)]


def assert_same(read, written, *, boxes=0.0, masks=True, scores=True, mask_scores=True, tags=True, order=True):
    """Check that samples came back; a False says that the format does not hold that.

    Args:
        read: Any order; matched by file name.
        written: What was given to the writer.
        boxes: Largest difference of a coordinate, in pixels.
        masks: Whether masks are equal.
        scores: Whether scores of objects are equal.
        mask_scores: Whether the segmenter's scores are.
        tags: Whether names and scores of tags are; kinds too.
        order: Whether the objects keep their order; otherwise they are compared by label and box.
    """
    found = {sample.file_name: sample for sample in read}
    assert sorted(found) == sorted(sample.file_name for sample in written)
    for sample in written:
        other = found[sample.file_name]
        assert other.split == sample.split
        assert other.result.size == sample.result.size
        if tags:
            assert_same_tags(other.result.tags, sample.result.tags)
        one, two = (s.result.instances if order else _sorted(s.result.instances) for s in (other, sample))
        assert one.labels == two.labels
        np.testing.assert_allclose(one.boxes, two.boxes, atol=boxes, rtol=0)
        if scores:
            np.testing.assert_array_equal(one.scores, two.scores)
        if masks:
            assert_same_masks(one.masks, two.masks)
        if mask_scores and two.mask_scores is not None and len(two):
            np.testing.assert_array_equal(one.mask_scores, two.mask_scores)


def assert_same_tags(read, written):
    """Check names, scores and kinds."""
    assert read.names == written.names
    np.testing.assert_array_equal(read.scores, written.scores)
    blank = ("",) * len(written)
    assert (read.kinds or blank) == (written.kinds or blank)


def assert_same_masks(read, written):
    """Check pixels; no masks are the same as masks of no objects."""
    if written is None or not len(written):
        assert read is None or not len(read)
        return
    np.testing.assert_array_equal(read, written)


def _sorted(found):
    return found.take(sorted(range(len(found)), key=lambda i: (found.labels[i], *found.boxes[i].tolist())))


def without_masks(sample):
    """The same sample before segmentation."""
    found = sample.result.instances
    instances = Instances(found.boxes, found.scores, found.labels)
    return replace(sample, result=sample.result.with_instances(instances))

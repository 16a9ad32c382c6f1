"""The checks of the roles: the fakes pass, and every kind of broken model is caught."""

from dataclasses import replace

import numpy as np
import pytest

from rasa import Image, Instances, Masks, Result, Tags
from rasa.errors import ContractError
from rasa.testing import (
    FakeDetector,
    FakeDetectorSegmenter,
    FakeSegmenter,
    FakeTagger,
    check_detector,
    check_detector_segmenter,
    check_segmenter,
    check_stage,
    check_tagger,
    sample_image,
    sample_images,
)


def test_the_fakes_pass():
    check_tagger(FakeTagger())
    check_tagger(FakeTagger([]))
    check_detector(FakeDetector())
    check_segmenter(FakeSegmenter())
    check_detector_segmenter(FakeDetectorSegmenter())


class Short(FakeTagger):
    def tag(self, images):
        return super().tag(images)[1:]


class Listing(FakeTagger):
    def tag(self, images):
        return [["cat"] for _ in images]


class NeverEmpty(FakeTagger):
    def tag(self, images):
        return super().tag(images) or [Tags()]


class Moody(FakeTagger):
    count = 0

    def tag(self, images):
        self.count += 1
        return [Tags(("cat",), [0.5 + 0.001 * self.count]) for _ in images]


class BatchWise(FakeTagger):
    def tag(self, images):
        return [Tags(("cat",), [1 / len(images)]) for _ in images]


class Painter(FakeTagger):
    def tag(self, images):
        for image in images:
            pixels = image.pixels.base if image.pixels.base is not None else image.pixels
            if pixels.flags.writeable:
                pixels[...] = 0
        return super().tag(images)


class Mute(FakeTagger):
    def describe(self):
        return {"scores": np.ones(1, np.float32)}


@pytest.mark.parametrize(
    ("tagger", "message"),
    [
        (Short(), "need as many answers"),
        (Listing(), "expected Tags, got list"),
        (NeverEmpty(), "no images must give an empty list"),
        (Moody(), "the same call gave another answer"),
        (BatchWise(), "a batch gave another answer than the image alone"),
        (Painter(), "pixels of an image were changed"),
        (Mute(), "must give plain JSON values"),
        (FakeDetector(), "has no method tag"),
    ],
)
def test_broken_taggers_are_caught(tagger, message):
    with pytest.raises(ContractError, match=message):
        check_tagger(tagger)


class AsksNobody(FakeDetector):
    def detect(self, images, tags):
        return super().detect(images, [["cat"] for _ in images])


class Overreaching(FakeDetector):
    def detect(self, images, tags):
        return [replace(found, boxes=found.boxes + 0.5) for found in super().detect(images, tags)]


class Masking(FakeDetector):
    def detect(self, images, tags):
        found = zip(images, super().detect(images, tags), strict=True)
        return [replace(one, masks=np.zeros((len(one), *image.size), bool)) for image, one in found]


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (AsksNobody(), r"asked for \[\], got boxes labelled \['cat'\]"),
        (Overreaching(), "reaches outside the image"),
        (Masking(), "a detector gives no masks"),
        (FakeTagger(), "has no method detect"),
    ],
)
def test_broken_detectors_are_caught(detector, message):
    with pytest.raises(ContractError, match=message):
        check_detector(detector)


class Maskless(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return FakeDetector().detect(images, tags)


class MasklessIfEmpty(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return [found if len(found) else Instances() for found in super().detect_and_segment(images, tags)]


class Cropped(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        found = super().detect_and_segment(images, tags)
        return [replace(one, masks=one.masks[:, 1:]) for one in found]


class Garrulous(FakeDetectorSegmenter):
    def detect_and_segment(self, images, tags):
        return super().detect_and_segment(images, [["cat"] for _ in images])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Maskless(), r"2 boxes need masks of shape \(2, 96, 128\), got none"),
        (MasklessIfEmpty(), r"0 boxes need masks of shape \(0, 128, 96\), got none"),
        (Cropped(), r"got \(2, 95, 128\)"),
        (Garrulous(), r"asked for \[\], got boxes labelled \['cat'\]"),
        (FakeDetector(), "has no method detect_and_segment"),
    ],
)
def test_broken_detector_segmenters_are_caught(model, message):
    with pytest.raises(ContractError, match=message):
        check_detector_segmenter(model)


class FirstOnly(FakeSegmenter):
    def segment(self, images, boxes):
        return super().segment(images, [rows[:1] for rows in boxes])


class Squeezed(FakeSegmenter):
    def segment(self, images, boxes):
        return [Masks(np.zeros((len(rows), 8, 8), bool)) for rows in boxes]


@pytest.mark.parametrize(("segmenter", "message"), [(FirstOnly(), "boxes need masks of shape"), (Squeezed(), "8, 8")])
def test_broken_segmenters_are_caught(segmenter, message):
    with pytest.raises(ContractError, match=message):
        check_segmenter(segmenter)


def rename(images, results):
    return [replace(result, name="x") for result in results]


def reverse(images, results):
    return list(results)[::-1]


@pytest.mark.parametrize("stage", [rename, reverse])
def test_broken_stages_are_caught(stage):
    with pytest.raises(ContractError, match=r"must keep the name and size|another answer"):
        check_stage(stage)


def test_a_function_is_a_stage():
    check_stage(lambda images, results: [result.with_tags(Tags.of(["seen"])) for result in results])


def test_sample_images_are_awkward_and_stable():
    images = sample_images()
    assert {(1, 1), (8, 600), (600, 8)} <= {image.size for image in images}
    assert len({image.name for image in images}) == len(images) == 7
    again = sample_images()
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(images, again, strict=True))
    assert isinstance(sample_image(), Image)


def test_own_pictures_and_results_are_used():
    image = sample_image(height=10, width=20)
    with pytest.raises(ContractError, match="sample-10x20-0"):
        check_segmenter(Squeezed(), images=[image, image])
    check_stage(lambda images, results: list(results), images=[image], results=[Result(image.name, image.size)])
    assert Instances().take([]).labels == ()

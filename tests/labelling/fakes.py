"""Pipelines that cost next to nothing, built by name in worker processes: ``"fakes:fast"``.

The folder of this file has to be on ``sys.path``; ``tests/labelling/conftest.py`` puts it there.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np

from rasa import Filter, Pipeline, Tag
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger
from rasa.types import Tags

HERE = Path(__file__).resolve().parent


class ByPixels:
    """Tags that depend on the pixels, so that a mixed-up image shows in the labels."""

    def __init__(self, threshold=0.0):
        self.threshold = threshold

    def tag(self, images):
        return [self._tags(image) for image in images]

    def _tags(self, image):
        names = ("red", "green", "blue")
        scores = image.pixels.reshape(-1, 3)[:: max(1, image.size[1] // 16)].mean(axis=0) / 255
        order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= self.threshold]
        return Tags(tuple(names[i] for i in order), scores[order].astype(np.float32), np.array(order, np.int64))

    def describe(self):
        return {"model": "by-pixels", "threshold": self.threshold}


class Stage:
    """Does something to an image before its result is passed on."""

    name = "act"

    def __init__(self, act):
        self.act = act

    def __call__(self, images, results):
        for image in images:
            self.act(image)
        return list(results)


def fast():
    """Tags, boxes and masks by rule."""
    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter())


def fast_at(threshold):
    """A factory with another threshold, for ``functools.partial``."""
    return Pipeline(ByPixels(threshold), FakeDetector(), FakeSegmenter())


def zero():
    """Two constant tags and nothing else: what is left is the cost of labelling itself."""
    return Pipeline(Tag(FakeTagger()), Filter())


def slow():
    """As :func:`fast`, at 20 ms an image."""
    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter(), Stage(lambda image: time.sleep(0.02)))


def slower():
    """As :func:`fast`, at 150 ms an image."""
    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter(), Stage(lambda image: time.sleep(0.15)))


def noted():
    """As :func:`fast`; appends the name of every image that it sees to the file ``RASA_TEST_NOTES``."""

    def note(image):
        with Path(os.environ["RASA_TEST_NOTES"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {image.name}\n")

    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter(), Stage(note))


def slow_noted():
    """As :func:`noted`, at 20 ms an image."""
    return Pipeline(*noted().stages, Stage(lambda image: time.sleep(0.02)))


def moody():
    """As :func:`noted`; while the file ``RASA_TEST_MOOD`` is there, as :func:`poison`."""
    if Path(os.environ["RASA_TEST_MOOD"]).exists():
        return Pipeline(*noted().stages, *poison().stages[-1:])
    return Pipeline(*noted().stages, Stage(lambda image: None))


def poison():
    """Kills its process at an image 13 px wide, and raises at one 17 px wide."""

    def act(image):
        if image.size[1] == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if image.size[1] == 17:
            raise RuntimeError("unlucky")

    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter(), Stage(act))


class Limited:
    """A stage whose device holds ``most`` images at once; notes the sizes of the batches that it took."""

    name = "limited"

    def __init__(self, most, error=MemoryError):
        self.most, self.error, self.taken = most, error, []

    def __call__(self, images, results):
        if len(images) > self.most:
            raise self.error(f"{len(images)} images are too many")
        self.taken.append(len(images))
        return list(results)


def cramped():
    """Room for three images."""
    return Pipeline(ByPixels(), FakeDetector(), FakeSegmenter(), Limited(3))


def broken():
    """Cannot be built."""
    raise RuntimeError("no such luck")


def dies():
    """Kills its process while it is built."""
    os.kill(os.getpid(), signal.SIGKILL)

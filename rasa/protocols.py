"""The roles that models play, and the promise that every stage keeps.

Nothing has to inherit from these classes: an object with the right methods fits.
``rasa.testing`` checks the promises below on any implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rasa.arrays import FloatArray
from rasa.types import Image, Instances, Masks, Result, Tags


@runtime_checkable
class Tagger(Protocol):
    """Names what images show."""

    def tag(self, images: Sequence[Image]) -> list[Tags]:
        """One :class:`Tags` per image, in order; no tag above the threshold is an empty one."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Finds the objects that tags name."""

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`Instances` per image, without masks.

        Args:
            images: B images.
            tags: B lists of tags, one list per image; an empty list asks for nothing.

        Returns:
            B instances; every label is one of the tags asked for, every box lies inside its image.
        """
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Gives every box the exact pixels of its object."""

    def segment(self, images: Sequence[Image], boxes: Sequence[FloatArray]) -> list[Masks]:
        """One :class:`Masks` per image.

        Args:
            images: B images.
            boxes: B float32 ``(N, 4)`` arrays, xyxy in pixels; N may be 0 and differs by image.

        Returns:
            B masks, each bool ``(N, H, W)`` at the size of its image, in the order of the boxes.
        """
        ...


@runtime_checkable
class DetectorSegmenter(Protocol):
    """Finds the objects that tags name, with the exact pixels of each."""

    def detect_and_segment(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`Instances` per image, with masks.

        Args:
            images: B images.
            tags: B lists of tags, one list per image; an empty list asks for nothing.

        Returns:
            B instances; every label is one of the tags asked for, every box lies inside its image, and the masks
            are bool ``(N, H, W)`` at the size of the image, also where N is 0.
        """
        ...


class Stage(Protocol):
    """One step of a pipeline: reads images and results, returns new results.

    A stage keeps length and order, changes none of its arguments, and answers
    the same for a batch as for its images one by one. Any callable fits.

    A stage may have these attributes, which :class:`rasa.Pipeline` reads:

    - ``name`` (str): what timings and errors call it; else the lower-case class or function name.
    - ``provides`` (str): ``"tags"`` or ``"boxes"``; such a stage is left out
      when the caller hands in tags or boxes of their own.
    - ``describe()``: plain JSON values for the result's provenance.
    """

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """One result per image, in order."""
        ...


@runtime_checkable
class Described(Protocol):
    """A model or stage that can say what it is: name, checkpoint hashes, thresholds."""

    def describe(self) -> Mapping[str, Any]:
        """Plain JSON values that, together, decide what the model answers."""
        ...


@runtime_checkable
class Movable(Protocol):
    """A model that can be moved between devices and answers the same wherever it is."""

    def to(self, device: str) -> object:
        """Move all that the model holds to ``device``, such as ``"cuda:1"`` or ``"cpu"``, in place."""
        ...

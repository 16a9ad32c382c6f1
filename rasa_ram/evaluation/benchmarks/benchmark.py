"""Benchmark: images, classes, and which image shows which class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from rasa.arrays import BoolArray, IntArray, read_only
from rasa.errors import FormatError, InputError

# Images times classes; 50,000 x 1,000 of ImageNet are 50 million, and each takes one byte.
MAX_CELLS = 4_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """What a tagger is measured on.

    Attributes:
        name: Such as ``"openimages-common-214"``.
        images: N distinct names of files, relative to the folder of images and with ``/``; endings may be left out.
        classes: T names as published; two classes may share one, as ``missile`` of ImageNet does.
        truth: bool ``(N, T)``, which image shows which class.
        words: For each class the words that mean it, the one that models are asked for first; None takes the names.
        class_ids: int64 ``(T,)``, rows of the label table of one model that are the classes; None if not given.
        notes: What a reader of the figures must know about the protocol, in sentences.

    Raises:
        InputError: If the lengths differ, an image repeats or leaves its folder, or a class has no word.
    """

    name: str
    images: tuple[str, ...]
    classes: tuple[str, ...]
    truth: BoolArray
    words: tuple[tuple[str, ...], ...] | None = None
    class_ids: IntArray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.classes))
        hint = "one row per image, one column per class"
        object.__setattr__(self, "truth", read_only("truth", self.truth, dtype=np.bool_, shape=shape, hint=hint))
        if self.class_ids is not None:
            object.__setattr__(self, "class_ids", read_only("ids", self.class_ids, dtype=np.int64, shape=shape[1:]))
        if len(set(self.images)) != len(self.images):
            raise InputError(f"benchmark {self.name}: an image stands twice; give one row for each")
        for image in self.images:
            check_image_name(image)
        words = self.words if self.words is not None else tuple((name,) for name in self.classes)
        if len(words) != shape[1] or not all(row and all(word.strip() for word in row) for row in words):
            raise InputError(f"benchmark {self.name}: give at least one word for each of the {shape[1]} classes")
        object.__setattr__(self, "words", words)

    @property
    def asked(self) -> tuple[str, ...]:
        """T words that models are asked for."""
        return tuple(row[0] for row in self.words or ())

    @property
    def fingerprint(self) -> str:
        """sha256 of images, classes and words, on which scores depend; not of the truth."""
        digest = hashlib.sha256()
        for part in (*self.images, "", *self.classes, "", *("\t".join(row) for row in self.words or ())):
            digest.update(part.encode() + b"\n")
        digest.update(b"" if self.class_ids is None else self.class_ids.tobytes())
        return digest.hexdigest()

    def take_classes(self, columns: Sequence[int], *, name: str, note: str) -> Benchmark:
        """The same images with some of the classes, in the order of ``columns``."""
        chosen = list(columns)
        return replace(
            self,
            name=name,
            classes=tuple(self.classes[i] for i in chosen),
            truth=self.truth[:, chosen],
            words=tuple((self.words or ())[i] for i in chosen),
            class_ids=None if self.class_ids is None else self.class_ids[chosen],
            notes=(*self.notes, note),
        )

    def take_images(self, rows: Sequence[int], *, note: str) -> Benchmark:
        """The same classes with some of the images, in the order of ``rows``."""
        chosen = list(rows)
        images = tuple(self.images[i] for i in chosen)
        return replace(self, images=images, truth=self.truth[chosen], notes=(*self.notes, note))


def check_image_name(image: str, where: str = "") -> None:
    """Refuse a name that leads out of the folder of images.

    Raises:
        FormatError: If it is empty or absolute, or has a part ``..``, a drive or a NUL.
    """
    path = PurePosixPath(image)
    if not image or path.is_absolute() or ".." in path.parts or "\\" in image or "\0" in image or ":" in image[:2]:
        place = f"{where}: " if where else ""
        raise FormatError(f"{place}an image must be a path inside its folder, with '/', got {image[:80]!r}")


class TruthBuilder:
    """Collects images and their classes one after the other; the matrix is made at the end.

    Args:
        path: The file that is read, for messages.
        classes: How many there are.
    """

    def __init__(self, path: object, classes: int) -> None:
        self._path, self._classes = path, classes
        self._rows: dict[str, int] = {}
        self._pairs: list[tuple[int, int]] = []

    def add_image(self, image: str, where: str) -> int:
        """The row of a new image.

        Raises:
            FormatError: If it was there before, or its name leads out of the folder.
        """
        check_image_name(image, where)
        if image in self._rows:
            raise FormatError(f"{where}: image {image!r} stands twice")
        return self._rows.setdefault(image, len(self._rows))

    def row(self, image: str, where: str) -> int:
        """The row of an image, new or known."""
        known = self._rows.get(image)
        return self.add_image(image, where) if known is None else known

    def add(self, row: int, column: int) -> None:
        """Say that the image shows the class."""
        self._pairs.append((row, column))

    def build(self) -> tuple[tuple[str, ...], BoolArray]:
        """The images and the truth.

        Raises:
            FormatError: If there is no image or no class, or there are too many.
        """
        count = len(self._rows)
        if not count or not self._classes:
            raise FormatError(f"{self._path} has {count} images and {self._classes} classes; both must be there")
        if count * self._classes > MAX_CELLS:
            raise FormatError(f"{self._path}: {count} images x {self._classes} classes are more than {MAX_CELLS} cells")
        truth = np.zeros((count, self._classes), np.bool_)
        if self._pairs:
            truth[tuple(np.array(self._pairs, np.int64).T)] = True
        return tuple(self._rows), truth

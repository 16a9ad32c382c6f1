"""Toy scenes as training data: records, images by name, and data sets on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import PIL.Image

from rasa._files import write_atomically
from rasa.arrays import BoolArray, ByteArray
from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.data.manifest import write_records
from rasa_ram.data.records import Record
from rasa_ram.toy.captions import parse_caption, write_captions
from rasa_ram.toy.scenes import Scene, Split, draw_scene
from rasa_ram.toy.words import UNSEEN_SYNONYMS, new_tags
from rasa_ram.vocabulary import Vocabulary

# Added to a scene's seed for its captions, which so depend on nothing that the picture drew.
_CAPTIONS = 77


def image_path(index: int, *, seed: int, split: Split) -> str:
    """The name of a scene, from which it can be drawn again: ``seen-1-000042.png``."""
    return f"{split}-{seed}-{index:06d}.png"


def scene_of(path: str) -> Scene:
    """Draw the scene that a name stands for. Scene ``i`` of the split ``"new"`` has new tag number ``i % 30``.

    Raises:
        InputError: If the name is not one of :func:`image_path`.
    """
    split, seed, index = _parts(path)
    return draw_scene(seed, index, split=split, new_tag=new_tags()[index % len(new_tags())] if split == "new" else None)


class DrawnImages:
    """Reads the images of toy records, for a training loader: draws each, and keeps it unless told otherwise.

    Args:
        keep: Whether to keep drawn pixels: 12 kB each.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._kept: dict[str, ByteArray] = {}

    def __call__(self, path: str) -> Image:
        """The image of that name.

        Raises:
            InputError: If the name is not one of :func:`image_path`.
        """
        return Image(self.pixels(path), path)

    def pixels(self, path: str) -> ByteArray:
        """uint8 ``(64, 64, 3)``, as :meth:`__call__`."""
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = scene_of(path).pixels
            self.add(path, pixels)
        return pixels

    def add(self, path: str, pixels: ByteArray) -> None:
        """Keep pixels that are drawn already."""
        if self._keep:
            self._kept[path] = pixels


def toy_records(
    vocabulary: Vocabulary,
    count: int,
    *,
    seed: int,
    split: Split = "seen",
    first: int = 0,
    images: DrawnImages | None = None,
) -> list[Record]:
    """Records of ``count`` scenes: three captions each, and the tags that they say.

    The first caption says all that is true, so ``known_ids`` are the truth, as far as the vocabulary has it.

    Args:
        vocabulary: What the ids belong to; what it does not have is left out.
        count: Scenes.
        seed: Of the series; another one for held-out scenes.
        split: What the scenes are drawn from.
        first: Number of the first scene.
        images: Gets the pixels, which are drawn on the way.
    """
    records = []
    for index in range(first, first + count):
        path = image_path(index, seed=seed, split=split)
        scene = scene_of(path)
        if images is not None:
            images.add(path, scene.pixels)
        captions = write_captions(scene, np.random.default_rng((seed + _CAPTIONS, index)))
        parsed = tuple(tag_ids(parse_caption(caption), vocabulary) for caption in captions)
        records.append(Record(image_path=path, captions=captions, parsed_ids=parsed))
    return records


def tag_ids(tags: Iterable[str], vocabulary: Vocabulary) -> tuple[int, ...]:
    """Positions of those tags that the vocabulary has."""
    return tuple(vocabulary.positions([tag for tag in dict.fromkeys(tags) if tag in vocabulary]))


def truth_of(paths: Sequence[str], tags: Sequence[str]) -> BoolArray:
    """What is true of scenes: bool ``(N, T)``.

    Args:
        paths: N names of scenes.
        tags: T tags; an unseen synonym is true where its tag is.
    """
    meant = [UNSEEN_SYNONYMS.get(tag, tag) for tag in tags]
    truth = np.zeros((len(paths), len(tags)), bool)
    for row, path in zip(truth, paths, strict=True):
        true = set(scene_of(path).tags)
        row[:] = [tag in true for tag in meant]
    return truth


def spoil_tags(
    records: Sequence[Record], *, num_tags: int, deleted: float = 0.35, wrong: float = 0.15, seed: int = 0
) -> list[Record]:
    """Take some tags away and add wrong ones, as captions from the web do; ``tag_ids`` are set, captions stay.

    Args:
        records: With tags.
        num_tags: T; wrong tags are drawn evenly from all that a record has not.
        deleted: Probability that a tag is lost, in [0, 1].
        wrong: Wrong tags for each true one, lost or not; 0.15 with 0.35 deleted makes 19 % of what is left wrong.
        seed: Equal seeds spoil alike.

    Raises:
        InputError: If a share is out of range.
    """
    if not 0 <= deleted <= 1 or wrong < 0:
        raise InputError(f"deleted must be in [0, 1] and wrong at least 0, got {deleted} and {wrong}")
    spoilt = []
    for number, record in enumerate(records):
        rng = np.random.default_rng((seed, number))
        known = np.array(record.known_ids, np.int64)
        others = np.setdiff1d(np.arange(num_tags), known)
        count = min(int(rng.binomial(len(known), min(wrong, 1.0))), len(others))
        tags = [*known[rng.random(len(known)) >= deleted].tolist(), *rng.choice(others, count, replace=False).tolist()]
        spoilt.append(with_tags(record, tags))
    return spoilt


def with_tags(record: Record, tags: Iterable[int]) -> Record:
    """The same record with these tags of the image."""
    return Record(
        image_path=record.image_path,
        captions=record.captions,
        parsed_ids=record.parsed_ids,
        tag_ids=tuple(dict.fromkeys(tags)),
    )


def write_toy_data(records: Sequence[Record], folder: Path, *, name: str) -> Path:
    """Write records as a published manifest, ``<name>.json``, and their images into ``images/``.

    Returns:
        The manifest.

    Raises:
        OutputError: If a file cannot be written.
    """
    write_toy_images([record.image_path for record in records], folder / "images")
    manifest = folder / f"{name}.json"
    write_records([with_tags(record, record.known_ids) for record in records], manifest)
    return manifest


def write_toy_images(paths: Iterable[str], folder: Path) -> None:
    """Draw scenes into PNG files, called as they are.

    Raises:
        OutputError: If a file cannot be written.
    """
    for path in paths:
        with write_atomically(folder / path, make_folder=True) as file:
            PIL.Image.fromarray(scene_of(path).pixels).save(file, format="PNG")


def _parts(path: str) -> tuple[Split, int, int]:
    split, _, numbers = path.removesuffix(".png").partition("-")
    seed, _, index = numbers.partition("-")
    if split not in get_args(Split) or not (seed.isdigit() and index.isdigit()):
        raise InputError(f"{path!r} names no toy scene; their names are like seen-1-000042.png")
    return split, int(seed), int(index)  # type: ignore[return-value]

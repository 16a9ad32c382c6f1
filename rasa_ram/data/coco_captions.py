"""COCO's annotation files as records: captions, and tags from the categories of instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasa.errors import InputError
from rasa_ram.data.manifest_faults import OnBad, ReadReport, RowError
from rasa_ram.data.manifest_json_lists import read_lists
from rasa_ram.data.manifest_rows import RowCheck, caption_problem, path_problem
from rasa_ram.data.manifest_tags import TagFinder
from rasa_ram.data.records import Record
from rasa_ram.vocabulary import Vocabulary


def read_coco(
    captions: Path | None,
    *,
    instances: Path | None = None,
    vocabulary: Vocabulary | None = None,
    folder: str = "",
    on_bad: OnBad = "stop",
    report: ReadReport | None = None,
) -> Iterator[Record]:
    """Records of COCO's ``captions_*.json``, ``instances_*.json``, or both, in the order of the images.

    The files are read as streams; names of images and what is said of them are in memory, some 100 MB for COCO's
    118,287 training images.

    Args:
        captions: The captions, or None.
        instances: The instances, whose categories become tags, or None.
        vocabulary: What the ids of the tags are positions in; needed for ``instances``. A category without a tag
            by name or synonym is counted in ``report.unmapped``, once per instance.
        folder: Put before each file name, such as ``"train2017"``.
        on_bad: ``"stop"`` at an entry that breaks the format, or ``"skip"`` and count it.
        report: Counts what was read and what was skipped.

    Raises:
        FormatError: At a bad entry, unless they are skipped.
        InputError: If a file cannot be read, none is given, or instances without a vocabulary.
    """
    if captions is None and instances is None:
        raise InputError("give the captions, the instances, or both")
    if instances is not None and vocabulary is None:
        raise InputError("the categories of instances become tags of a vocabulary; give it")
    report = ReadReport() if report is None else report
    images = _Images()
    if captions is not None:
        images.read_captions(captions, RowCheck(source=str(captions), on_bad=on_bad, report=report))
    if instances is not None and vocabulary is not None:
        check = RowCheck(source=str(instances), on_bad=on_bad, report=report)
        images.read_instances(instances, check, TagFinder(vocabulary, report))
    return images.records(folder, report)


def has_instances(path: Path) -> bool:
    """Whether a file of COCO's has instances, not captions; it is read up to the first annotation that tells.

    Raises:
        InputError: If it cannot be read.
    """
    for key, _, item in read_lists(path, RowCheck(source=str(path), on_bad="skip")):
        if key == "annotations" and isinstance(item, dict) and ("caption" in item or "category_id" in item):
            return "caption" not in item
    return False


@dataclass(slots=True)
class _Images:
    """What is known of each image, by its number in the files."""

    names: dict[int, str] = field(default_factory=dict)
    captions: dict[int, list[str]] = field(default_factory=dict)
    tags: dict[int, tuple[int, ...]] | None = None

    def records(self, folder: str, report: ReadReport) -> Iterator[Record]:
        """All images, in the order of the files."""
        for image, name in self.names.items():
            captions = tuple(self.captions.get(image, ()))
            report.records += 1
            yield Record(
                image_path=f"{folder.rstrip('/')}/{name}" if folder else name,
                captions=captions,
                parsed_ids=((),) * len(captions),
                tag_ids=None if self.tags is None else self.tags.get(image, ()),
            )

    def read_captions(self, path: Path, check: RowCheck) -> None:
        """Read ``captions_*.json``."""
        for key, number, item in read_lists(path, check):
            try:
                if key == "images":
                    self._add_image(item)
                elif key == "annotations":
                    image = _number(item, "image_id")
                    self.captions.setdefault(image, []).append(_caption(item, image))
            except RowError as error:
                check.fail(error, number)
        self._refuse_strangers(self.captions, check)

    def read_instances(self, path: Path, check: RowCheck, finder: TagFinder) -> None:
        """Read ``instances_*.json``, whose categories may come last."""
        names: dict[int, str] = {}
        found: dict[int, Counter[int]] = {}
        for key, number, item in read_lists(path, check):
            try:
                if key == "images":
                    self._add_image(item)
                elif key == "categories":
                    names[_number(item, "id")] = _name(item)
                elif key == "annotations":
                    found.setdefault(_number(item, "image_id"), Counter())[_number(item, "category_id")] += 1
            except RowError as error:
                check.fail(error, number)
        self._refuse_strangers(found, check)
        self.tags = {
            image: finder.ids(names.get(category, f"category {category}") for category in counts.elements())
            for image, counts in found.items()
        }

    def _add_image(self, item: Any) -> None:
        image = _number(item, "id")
        problem = path_problem(item.get("file_name"))
        if problem is not None:
            raise RowError(problem.kind, f"image {image}: {problem}".replace("image_path", "file_name"))
        self.names[image] = item["file_name"]

    def _refuse_strangers(self, annotated: Iterable[int], check: RowCheck) -> None:
        for image in annotated:
            if image not in self.names:
                check.fail(RowError("no-image", f"image {image} has annotations, and is not among the images"), image)


def _caption(item: Any, image: int) -> str:
    text = item.get("caption")
    problem = caption_problem(text)
    if problem is not None:
        raise RowError(problem.kind, f"caption of image {image} {problem}")
    return str(text)


def _name(item: Any) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise RowError("wrong-type", f"the name of a category must be a string, got {ascii(name)[:80]}")
    return name


def _number(item: Any, key: str) -> int:
    value = item.get(key) if isinstance(item, dict) else None
    if type(value) is not int:
        raise RowError("wrong-type", f"expected an object with a whole number {key!r}, got {ascii(item)[:80]}")
    return value

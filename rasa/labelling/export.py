"""From a labelled dataset to the formats of other tools: one pass over it for each format, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rasa._version import __version__
from rasa.errors import InputError, OutputError
from rasa.formats import Format, find_format
from rasa.formats.classes import Ontology
from rasa.formats.samples import Sample, Split, WriteReport
from rasa.formats.split import split_of, stratified_splits
from rasa.io.find import StrPath
from rasa.labelling._files import write_atomically
from rasa.labelling.dataset import Dataset, LabelledImage, open_dataset
from rasa.labelling.quality import Change, apply_changes


@dataclass(frozen=True, slots=True)
class Parts:
    """Which images go to train, val and test; by their ids, so never by their order.

    Attributes:
        val: Share of the images, in [0, 1].
        test: Share of the images, in [0, 1]; the rest is for training.
        seed: Another seed gives another split.
        stratify: Whether every tag has its share in each part, as far as can be; then all ids lie in memory, and
            images that are added later may move others.

    Raises:
        InputError: If the shares are negative or more than 1 together.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    stratify: bool = False

    def __post_init__(self) -> None:
        split_of("", val=self.val, test=self.test)


def export(
    dataset: Dataset | StrPath,
    folder: StrPath,
    *,
    to: Sequence[str] | str,
    ontology: Ontology | None = None,
    split: Parts | None = None,
    changes: Sequence[Change] = (),
) -> dict[str, WriteReport]:
    """Write a labelled dataset in one or more formats, each in a folder of its own.

    ``FOLDER/NAME`` holds the format called NAME, and ``FOLDER/NAME.export.json`` says what it was made of. The class
    list does not depend on ``changes``, so that ids stay the same under another filter: it has the classes of the
    ontology, in its order, and after them all other labels by name. The same dataset gives the same bytes.

    Args:
        dataset: A run, or the folder of a dataset, whose current run is taken.
        folder: Where the formats go.
        to: Names of formats; see :data:`rasa.formats.FORMATS`.
        ontology: Label to class, for labels and tags; None leaves them as they are.
        split: Shares of the parts; None puts all into ``"train"``.
        changes: Pure functions of results, applied in order, before the ontology; see :mod:`rasa.labelling.quality`.

    Returns:
        Name of each format to what was written, and what it could not hold.

    Raises:
        InputError: If a format is unknown or named twice, or the folder is no dataset.
        ImageError: If an image is gone, or has changed.
        OutputError: If a folder of a format holds something, or something cannot be written.
        DependencyError: If a package of a format is missing.
    """
    formats, home = _formats(to), Path(folder)
    source = _Source(dataset if isinstance(dataset, Dataset) else open_dataset(dataset), ontology, split, changes)
    for entry in formats:
        _check_free(home / entry.name)
    reports = {}
    for entry in formats:
        classes = source.classes(of_tags=entry.of_tags)
        reports[entry.name] = entry.write(home / entry.name, source.samples(), classes=classes)
        account = {**source.describe(), "format": entry.name, "classes": classes, **reports[entry.name].to_dict()}
        with write_atomically(home / f"{entry.name}.export.json") as file:
            file.write((json.dumps(account, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii"))
    return reports


class _Source:
    """A dataset as samples, as often as a writer wants them."""

    def __init__(
        self, dataset: Dataset, ontology: Ontology | None, split: Parts | None, changes: Sequence[Change]
    ) -> None:
        self._dataset, self._ontology, self._split = dataset, ontology or Ontology(), split
        self._changes = tuple(changes)
        self._labels: dict[bool, set[str]] | None = None
        self._chosen: Mapping[str, Split] | None = None
        if split is not None and split.stratify:
            tags = ((image.id, _tags_of(image)) for image in dataset.rows())
            self._chosen = stratified_splits(tags, val=split.val, test=split.test, seed=split.seed)

    def classes(self, *, of_tags: bool) -> tuple[str, ...]:
        if self._labels is None:
            self._labels = {True: set(), False: set()}
            for image in self._dataset.rows():
                self._labels[True].update(_tags_of(image))
                self._labels[False].update(found["label"] for found in image.row.instances)
        return self._ontology.names(self._labels[of_tags])

    def samples(self) -> Iterator[Sample]:
        for image in self._dataset.rows():
            result = self._ontology.apply(apply_changes(image.result, self._changes))
            yield Sample(image.id, image.file_name, result, self._part(image.id), image.read_bytes)

    def describe(self) -> dict[str, Any]:
        return {
            "rasa": __version__,
            "run": self._dataset.fingerprint,
            "ontology": self._ontology.to_mapping(),
            "split": None if self._split is None else asdict(self._split),
            "changes": [_described(change) for change in self._changes],
        }

    def _part(self, image_id: str) -> Split:
        if self._chosen is not None:
            return self._chosen[image_id]
        split = self._split
        return "train" if split is None else split_of(image_id, val=split.val, test=split.test, seed=split.seed)


def _formats(to: Sequence[str] | str) -> list[Format]:
    formats = [find_format(name) for name in ([to] if isinstance(to, str) else to)]
    names = [entry.name for entry in formats]
    if not names:
        raise InputError('name at least one format, such as to=["coco"]; `rasa formats` lists them')
    if len(set(names)) < len(names):
        raise InputError(f"formats must be distinct, got {', '.join(names)}")
    return formats


def _check_free(folder: Path) -> None:
    # Before hours of work: each writer looks again at its own.
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(f"{folder} is not empty; remove what is there, or choose another folder")


def _tags_of(image: LabelledImage) -> list[str]:
    # Without decoding the masks.
    return [tag["name"] for tag in image.row.tags]


def _described(change: Change) -> Any:
    describe = getattr(change, "describe", None)
    return repr(change) if describe is None else dict(describe())

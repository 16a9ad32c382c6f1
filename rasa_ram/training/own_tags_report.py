"""What a fine-tuning on own tags came to: figures of each tag before and after, and the thresholds chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rasa._files import write_atomically
from rasa.arrays import BoolArray, FloatArray
from rasa.errors import ImageError
from rasa.ops.thresholds import TunedThresholds
from rasa_ram.data.own_tags import TaggedPhoto, to_records
from rasa_ram.evaluation.metrics import average_precision
from rasa_ram.images import ImageReader
from rasa_ram.modeling.ram import Ram
from rasa_ram.tagger import OPEN_THRESHOLD, RamTagger
from rasa_ram.training.loop import RunReport
from rasa_ram.vocabulary import Vocabulary

_SCORED_AT_ONCE = 64  # photos in memory while scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTagReport:
    """One tag after the fine-tuning; figures are of the photos to check on, None where none of them has it.

    Attributes:
        name: The tag.
        new: Whether the model did not know it before.
        photos: Photos with it, to learn from and to check on.
        before: Average precision before, in [0, 1]; of a new tag by its text alone. None for Tag2Text's new ones.
        after: Average precision after.
        threshold: The chosen one, or what it has for want of examples.
        f1: At the chosen threshold; None where none was chosen.
    """

    name: str
    new: bool
    photos: tuple[int, int]
    before: float | None
    after: float | None
    threshold: float
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneReport:
    """What a fine-tuning came to.

    Attributes:
        run: Of the training; nothing else is there if it was interrupted.
        tags: The photos' tags, in the order of the vocabulary.
        unreadable: Photos that could not be read; of those to learn from, the first 20.
    """

    run: RunReport
    tags: tuple[OwnTagReport, ...] = ()
    unreadable: tuple[str, ...] = ()

    def mean(self, what: Literal["before", "after"]) -> float | None:
        """Mean average precision of the tags that have one; None if none has."""
        values = [value for tag in self.tags if (value := getattr(tag, what)) is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Scores and truth of some tags on the photos to check on that could be read.

    Attributes:
        scores: float32 ``(N, T)`` in [0, 1].
        truth: bool ``(N, T)``.
        unreadable: Paths of those that could not.
    """

    scores: FloatArray
    truth: BoolArray
    unreadable: tuple[str, ...]

    @property
    def precisions(self) -> list[float | None]:
        """Average precision of each tag; None where no photo has it."""
        if not len(self.scores):
            return [None] * self.truth.shape[1]
        values = average_precision(self.scores, self.truth)
        return [float(values[tag]) if self.truth[:, tag].any() else None for tag in range(len(values))]


def check_tags(
    model: Ram, vocabulary: Vocabulary, photos: Sequence[TaggedPhoto], images: ImageReader, *, rows: Sequence[int]
) -> Checked:
    """Score photos with a model.

    Args:
        model: In evaluation mode, on any device.
        vocabulary: Its tags.
        photos: With their tags.
        images: Gives the image of a photo's path.
        rows: T positions in the vocabulary.

    Raises:
        InputError: If a photo has a tag that the vocabulary has not.
    """
    tagger = RamTagger(model, vocabulary, threshold=0.0)
    scores, truth = [np.zeros((0, len(rows)), np.float32)], [np.zeros((0, len(rows)), np.bool_)]
    records, unreadable = to_records(photos, vocabulary), list[str]()
    for start in range(0, len(records), _SCORED_AT_ONCE):
        part = []
        for record in records[start : start + _SCORED_AT_ONCE]:
            try:
                part.append((images(record.image_path), record.known_ids))
            except ImageError:
                unreadable.append(record.image_path)
        if part:
            scores.append(tagger.scores([image for image, _ in part])[:, list(rows)])
            truth.append(np.array([[row in ids for row in rows] for _, ids in part], np.bool_))
    return Checked(np.concatenate(scores), np.concatenate(truth), tuple(unreadable))


def with_chosen(vocabulary: Vocabulary, rows: Sequence[int], tuned: TunedThresholds) -> Vocabulary:
    """The vocabulary with the thresholds that were chosen; the others stay, or are 0.5 where there was none."""
    full = vocabulary if vocabulary.thresholds is not None else vocabulary.with_thresholds(OPEN_THRESHOLD)
    changed = np.array(full.thresholds)
    changed[list(rows)] = np.where(np.isnan(tuned.thresholds), changed[list(rows)], tuned.thresholds)
    return full.with_thresholds(changed)


def photos_per_row(photos: Sequence[TaggedPhoto], vocabulary: Vocabulary) -> list[int]:
    """How many photos have each tag of the vocabulary."""
    counts = [0] * len(vocabulary)
    for record in to_records(photos, vocabulary):
        for row in record.known_ids:
            counts[row] += 1
    return counts


def write_report(report: FineTuneReport, path: Path) -> None:
    """Write what is known of the tags as JSON.

    Raises:
        OutputError: If it cannot be written.
    """
    values = {"tags": [asdict(tag) for tag in report.tags], "unreadable": list(report.unreadable)}
    means = {"before": report.mean("before"), "after": report.mean("after")}
    with write_atomically(path, text=True) as file:
        json.dump(values | {"mean_average_precision": means}, file, indent=1)
        file.write("\n")

"""Batches of training samples from records and a folder of images.

    settings = LoaderSettings(
        batch_size=52, num_tags=4585, seed=1, workers=4,
        views=Views(size=384, teacher_size=224, crops="same", normalisation="clip"),
    )
    loader = TrainingLoader(
        open_records(["coco_ram.json"]), "images/", settings=settings,
        captions=CaptionTexts(tokenizer=CaptionTokenizer.published(), tag_names=vocabulary.names),  # RAM, Tag2Text
        rank=0, ranks=8,
    )
    for epoch in range(5):
        for samples in loader.batches(epoch):  # loader.batches(epoch, first=step) goes on from an interruption
            ...
    print(loader.bad.counts)  # {"image": 3}: what was left out, and why: loader.bad.examples

RAM++ has ``texts=True`` in the settings in place of ``captions``; without a teacher, ``Views(teacher_size=None)``.
Evaluation on batches: ``Views(size=224, augment=False)`` with ``order="sequential"``.
"""  # fmt: skip

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import IntArray
from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.data.augment import Views
from rasa_ram.data.loader_feed import BatchFeed
from rasa_ram.data.loader_report import BadSamples
from rasa_ram.data.loader_samples import CaptionTexts, LoaderSettings, SampleMaker
from rasa_ram.data.manifest_table import RecordTable
from rasa_ram.data.records import Record
from rasa_ram.data.samples import Samples
from rasa_ram.data.sampling import class_balanced, repeat_factors, sequential, shuffled
from rasa_ram.images import ImageFolder, ImageReader

__all__ = ["BadSamples", "CaptionTexts", "LoaderSettings", "TrainingLoader", "Views"]


class TrainingLoader:
    """A :class:`BatchSource` of records and a folder of images.

    Chance comes from the seed, the epoch and the position of a sample in it alone, so a batch is the same for any
    number of workers, wherever reading began, and however an epoch is shared: the processes of one step see
    together what one process with all of their batches sees.

    Args:
        records: Any sequence of records, such as ``open_records`` gives; with workers, one that can be pickled.
        images: The folder that ``image_path`` is relative to, or a reader that gives the image of a path.
        settings: What to make of them.
        captions: For models with a captioner; None leaves that part out.
        rank: Number of this process, from 0.
        ranks: Processes that share each epoch.

    Attributes:
        bad: What was left out so far: counts, and examples by name. Each kind is warned of once.

    Raises:
        InputError: If there are too few records for a batch, ``rank`` is wrong, or the tags' names are not
            ``num_tags``.
    """

    def __init__(
        self,
        records: Sequence[Record],
        images: str | os.PathLike[str] | ImageReader,
        *,
        settings: LoaderSettings,
        captions: CaptionTexts | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        check_names(captions, settings)
        reader = ImageFolder(images) if isinstance(images, str | os.PathLike) else images
        maker = SampleMaker(_RecordItems(records, reader), settings, captions)
        self._feed = BatchFeed(maker, _order(records, settings), count=len(records), rank=rank, ranks=ranks)
        self.bad: BadSamples = self._feed.bad

    def __len__(self) -> int:
        """Batches of an epoch, the same for every process; what is left over at the end is dropped."""
        return len(self._feed)

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """The batches of ``epoch``, counted from 0, beginning with number ``first``. One epoch is read at a time.

        Raises:
            InputError: If ``epoch`` or ``first`` is out of range; at a batch, if a sample is bad and ``on_bad`` is
                ``"stop"``, or nearly all are bad.
            WorkerError: At a batch, if a worker process died.
        """
        return self._feed.batches(epoch, first=first)

    def close(self) -> None:
        """End the worker processes, which otherwise stay for the next epoch; reading on starts them again."""
        self._feed.close()


@dataclass(frozen=True, slots=True, eq=False)
class _RecordItems:
    records: Sequence[Record]
    reader: ImageReader

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Record:
        return self.records[index]

    def image(self, index: int, record: Record) -> Image:
        del index  # the path says all
        return self.reader(record.image_path)


def check_names(captions: CaptionTexts | None, settings: LoaderSettings) -> None:
    """Refuse names of another vocabulary.

    Raises:
        InputError: If there is not one name per tag.
    """
    if captions is not None and len(captions.tag_names) != settings.num_tags:
        raise InputError(f"tag_names must be num_tags = {settings.num_tags} names, got {len(captions.tag_names)}")


def _order(records: Sequence[Record], settings: LoaderSettings) -> Callable[[int], IntArray]:
    count = len(records)
    if settings.order == "sequential":
        return lambda _epoch: sequential(count)
    if settings.order == "shuffled":
        return lambda epoch: shuffled(count, seed=settings.seed, epoch=epoch)
    ids, ends = _known_tags(records)
    factors = repeat_factors(
        ids, ends, settings.num_tags, threshold=settings.balance_threshold, power=settings.balance_power
    )
    return lambda epoch: class_balanced(factors, seed=settings.seed, epoch=epoch)


def _known_tags(records: Sequence[Record]) -> tuple[NDArray[np.integer[Any]], IntArray]:
    """Distinct tag ids of all records one after the other, and where each record's end; a bad record has none here."""
    if isinstance(records, RecordTable):
        lists = records.tags()
        return lists.ids, lists.ends
    rows = []
    for i in range(len(records)):
        try:
            rows.append(np.unique(np.array(records[i].known_ids, dtype=np.int64)))
        except InputError:
            rows.append(np.zeros(0, np.int64))  # reported when its turn comes
    return np.concatenate([np.zeros(0, np.int64), *rows]), np.cumsum([len(row) for row in rows], dtype=np.int64)

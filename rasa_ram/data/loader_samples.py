"""From records to batches, in the process that calls: the same for folders and shards, and for any worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rasa.arrays import FloatArray, IntArray
from rasa.errors import FormatError, ImageError, InputError, RasaError
from rasa.types import Image
from rasa_ram.data.augment import View, Views, make_view
from rasa_ram.data.captions import MAX_WORDS, clean_caption
from rasa_ram.data.loader_report import BadKind, BadSample
from rasa_ram.data.records import Record
from rasa_ram.data.samples import CaptionBatch, Samples
from rasa_ram.data.sampling import LVIS_POWER, LVIS_THRESHOLD, generator
from rasa_ram.tokenizer import PROMPT, CaptionTokenizer

# Records that are tried in place of a bad one before the data set is given up: where half are bad, 1e-15 fail.
MAX_TRIES = 50

_SAMPLE = 1  # purpose, so that no sample shares its chance with the order of its epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """What a loader makes of its records; the same for each process of a run.

    Attributes:
        batch_size: B, samples of a batch of one process.
        num_tags: T, size of the vocabulary that the records' ids belong to.
        seed: With the epoch and the position in it, all that chance depends on; at least 0.
        views: How images become pixels.
        workers: Processes that read and decode; 0 does so in the caller's.
        order: ``"shuffled"``, ``"sequential"``, or ``"class_balanced"`` by repeat factors (see ``sampling``).
        balance_threshold: Share of records below which a tag is rare, for ``"class_balanced"``.
        balance_power: 0.5 as LVIS has it, 1 for inverse frequency.
        targets: ``"known"``, all tags of the image, or ``"caption"``, those that the chosen caption says.
        texts: Whether batches hold the chosen captions as text, for RAM++.
        max_words: Words of a caption that are kept.
        on_bad: ``"skip"`` puts another sample, drawn from the seed, in the place of a bad one; ``"stop"`` raises.

    Raises:
        InputError: If a value is out of its range.
    """

    batch_size: int
    num_tags: int
    seed: int = 0
    views: Views = field(default_factory=Views)
    workers: int = 0
    order: Literal["shuffled", "sequential", "class_balanced"] = "shuffled"
    balance_threshold: float = LVIS_THRESHOLD
    balance_power: float = LVIS_POWER
    targets: Literal["known", "caption"] = "known"
    texts: bool = False
    max_words: int = MAX_WORDS
    on_bad: Literal["skip", "stop"] = "skip"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_tags", 1), ("seed", 0), ("workers", 0), ("max_words", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        orders = ("shuffled", "sequential", "class_balanced")
        for name, known in (("order", orders), ("targets", ("known", "caption")), ("on_bad", ("skip", "stop"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTexts:
    """What the captioner's part of a batch is made with.

    Attributes:
        tokenizer: For the WordPiece vocabulary of the model.
        tag_names: T names of the tags, in the order of the vocabulary.
        prompt: Whether captions begin with ``"a picture of "``, as generation does and as the loss, which leaves the
            prompt out, expects. The published training left it away, so that no caption's first three words were
            learned; False repeats that.
    """

    tokenizer: CaptionTokenizer
    tag_names: tuple[str, ...]
    prompt: bool = True

    def batch(self, captions: Sequence[str], tag_ids: Sequence[Sequence[int]]) -> CaptionBatch:
        """Tokens of B cleaned captions and of the tags that they say, in the order of the vocabulary."""
        tags = self.tokenizer.encode_tags([[self.tag_names[i] for i in sorted(set(ids))] for ids in tag_ids])
        texts = self.tokenizer.encode_captions([PROMPT + text if self.prompt else text for text in captions])
        ids, mask, caption_ids, caption_mask = map(torch.from_numpy, (tags.ids, tags.mask, texts.ids, texts.mask))
        return CaptionBatch(tag_ids=ids, tag_mask=mask, caption_ids=caption_ids, caption_mask=caption_mask)


class Items(Protocol):
    """Numbered records with their images; where workers read, it must be possible to pickle it."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Record number ``index``.

        Raises:
            InputError: If it cannot be read.
        """
        ...

    def image(self, index: int, record: Record) -> Image:
        """Its image.

        Raises:
            ImageError: If it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """Which records a batch shows: int64 ``(B,)`` ``indices`` at the positions from ``first`` on of an epoch."""

    epoch: int
    first: int
    indices: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What became of a plan: samples, or the error that stops the run; and what was left out on the way."""

    samples: Samples | None
    bad: tuple[BadSample, ...] = ()
    error: RasaError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    record: Record
    view: View
    target_ids: IntArray
    caption: str
    caption_ids: tuple[int, ...]


class _BadSampleError(Exception):
    """Carries what is wrong with one sample, and the error that says so."""

    def __init__(self, sample: BadSample, error: InputError) -> None:
        super().__init__(sample.reason)
        self.sample, self.error = sample, error


@dataclass(frozen=True, slots=True, eq=False)
class SampleMaker:
    """Makes batches of ``items``; it holds no state, so that it answers alike in every process."""

    items: Items
    settings: LoaderSettings
    captions: CaptionTexts | None = None

    def make(self, plan: BatchPlan) -> Made:
        """Make one batch. Errors that stop the run are returned, for a worker could not raise them as they are."""
        bad: list[BadSample] = []
        try:
            samples = [
                self._usable(index, (plan.epoch, plan.first + i), bad) for i, index in enumerate(plan.indices.tolist())
            ]
        except _BadSampleError as error:
            return Made(None, tuple(bad), error.error)
        return Made(self._collate(samples), tuple(bad))

    def _usable(self, index: int, place: tuple[int, int], bad: list[BadSample]) -> _Sample:
        """The sample at ``index``, or the first usable one of those drawn in its place."""
        for attempt in range(MAX_TRIES):
            rng = generator(self.settings.seed, _SAMPLE, *place, attempt)
            try:
                return self._sample(index if attempt == 0 else int(rng.integers(len(self.items))), rng)
            except _BadSampleError as error:
                if self.settings.on_bad == "stop":
                    raise
                bad.append(error.sample)
                last = error
        reason = f"{MAX_TRIES} samples drawn one after the other cannot be used, the last because {last}"
        raise _BadSampleError(last.sample, FormatError(f"{reason}; check the images' folder and the vocabulary"))

    def _sample(self, index: int, rng: np.random.Generator) -> _Sample:
        name, kind = f"record {index}", "record"
        try:
            record = self.items.record(index)
            name, kind = record.image_path, "caption"
            caption, caption_ids = self._caption(record, rng)
            kind = "tags"
            target_ids = self._target_ids(record, caption_ids)
            kind = "image"
            view = make_view(self.items.image(index, record), self.settings.views, rng)
        except InputError as error:
            raise _BadSampleError(BadSample(_kind(kind, error), name, str(error)), error) from error
        return _Sample(record, view, target_ids, caption, caption_ids)

    def _caption(self, record: Record, rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
        """One caption at random with its tags; where it is empty once cleaned, the next one that is not."""
        count = len(record.captions)
        first = int(rng.integers(count)) if count else 0
        if self.captions is None and not self.settings.texts and self.settings.targets == "known":
            return "", ()
        for i in ((first + k) % count for k in range(count)):
            text = clean_caption(record.captions[i], max_words=self.settings.max_words)
            if text:
                return text, record.parsed_ids[i]
        raise FormatError(f"{record.image_path} has no caption with words; leave the record out, or train tags alone")

    def _target_ids(self, record: Record, caption_ids: tuple[int, ...]) -> IntArray:
        if self.settings.targets == "known" and record.tag_ids is None and not record.captions:
            raise FormatError(f"{record.image_path} has neither tags nor captions; leave the record out")
        known = record.known_ids if self.settings.targets == "known" else caption_ids
        for ids in (known, caption_ids):
            if wrong := [i for i in ids if not 0 <= i < self.settings.num_tags]:
                raise FormatError(
                    f"tag ids of {record.image_path} must be in [0, {self.settings.num_tags}), got {wrong[0]}; "
                    "the record was written for another vocabulary"
                )
        return np.array(known, dtype=np.int64)

    def _collate(self, samples: list[_Sample]) -> Samples:
        targets = np.zeros((len(samples), self.settings.num_tags), np.float32)
        for row, sample in zip(targets, samples, strict=True):
            row[sample.target_ids] = 1
        texts, captions = tuple(sample.caption for sample in samples), None
        if self.captions is not None:
            captions = self.captions.batch(texts, [sample.caption_ids for sample in samples])
        teacher = [sample.view.teacher_pixels for sample in samples if sample.view.teacher_pixels is not None]
        return Samples(
            image_paths=tuple(sample.record.image_path for sample in samples),
            pixels=_stack([sample.view.pixels for sample in samples]),
            targets=torch.from_numpy(targets),
            teacher_pixels=_stack(teacher) if teacher else None,
            captions=captions,
            texts=texts if self.settings.texts else None,
        )


def _stack(arrays: list[FloatArray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _kind(kind: str, error: InputError) -> BadKind:
    if isinstance(error, ImageError):
        return "image"
    return "caption" if kind == "caption" else "tags" if kind == "tags" else "record"

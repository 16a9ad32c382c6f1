"""Batches as training reads them, on the CPU, and the role of whatever makes them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptionBatch:
    """What the captioner learns from; L tag tokens, S caption tokens.

    Attributes:
        tag_ids: int64 ``(B, L)``, the caption's tags, from ``CaptionTokenizer.encode_tags``.
        tag_mask: ``(B, L)``, 1 for tokens and 0 for padding.
        caption_ids: int64 ``(B, S)``, from ``CaptionTokenizer.encode_captions``.
        caption_mask: ``(B, S)``, 1 for tokens and 0 for padding.
    """

    tag_ids: Tensor
    tag_mask: Tensor
    caption_ids: Tensor
    caption_mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """B samples of one process.

    Attributes:
        image_paths: B names, for messages and for the inspection of a failed batch.
        pixels: float32 ``(B, 3, S, S)``, normalised, the student's view.
        targets: float32 ``(B, T)``, 1 where a tag is present and 0 elsewhere.
        known: bool ``(B, T)``, False where nobody knows whether a tag is present; None where all are known.
        teacher_pixels: float32 ``(B, 3, R, R)``, normalised as CLIP wants it; None where no teacher is asked.
        captions: For the captioner; None where there is none.
        texts: B cleaned captions, for RAM++'s alignment; None where it is not asked for.
    """

    image_paths: tuple[str, ...]
    pixels: Tensor
    targets: Tensor
    known: Tensor | None = None
    teacher_pixels: Tensor | None = None
    captions: CaptionBatch | None = None
    texts: tuple[str, ...] | None = None


@runtime_checkable
class BatchSource(Protocol):
    """Makes the batches of one process. What a batch holds depends on the source's settings, the epoch and its number
    alone: not on what was read before, on the number of workers, or on any global random state. So a run goes on
    exactly where it was interrupted, and N processes see at step s together what one with N times the batch sees.
    """  # fmt: skip

    def __len__(self) -> int:
        """Batches of an epoch, the same for every process; what is left over at the end is dropped."""
        ...

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """The batches of ``epoch``, counted from 0, beginning with number ``first``."""
        ...


@contextmanager
def reading(source: BatchSource, epoch: int, *, first: int = 0) -> Iterator[Iterator[Samples]]:
    """The batches of ``epoch`` from number ``first`` on; leaving the block ends what makes them, its workers too."""
    batches = source.batches(epoch, first=first)
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()

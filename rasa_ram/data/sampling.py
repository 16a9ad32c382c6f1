"""In which order an epoch shows the records: pure functions of seed, epoch and number of records.

Step s of N processes with B samples each takes the N B positions from s N B on, process r the r-th B of them: what
one process with batches of N B takes.

Source of the repeat factors:
    LVIS, arXiv:1908.03195, appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import FloatArray, IntArray
from rasa.errors import InputError

# Of LVIS: tags in fewer than one of a thousand records are repeated.
LVIS_THRESHOLD = 1e-3
LVIS_POWER = 0.5


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """A generator of its own for each seed and list of numbers, such as epoch and position; all at least 0.

    Raises:
        InputError: If a number is negative.
    """
    if min(seed, *numbers, 0) < 0:
        raise InputError(f"seed, epoch and position must be at least 0, got {(seed, *numbers)}")
    # As a spawn key: entropy alone is padded with zeros, so that (7, 1) and (7, 1, 0) would be one stream.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=numbers))


def sequential(count: int) -> IntArray:
    """Records in their own order: int64 ``(count,)``."""
    return np.arange(count, dtype=np.int64)


def shuffled(count: int, *, seed: int, epoch: int) -> IntArray:
    """Every record once, in random order: int64 ``(count,)``; 112 MB and 0.6 s for 14 million."""
    return generator(seed, epoch).permutation(count)


def shuffled_in_windows(blocks: Sequence[int], window: int, *, seed: int, epoch: int) -> IntArray:
    """Every record once: blocks in random order, and the records of each window of that order mixed.

    What a shuffle buffer does, but any position can be found without reading what comes before it. Records that are
    stored together are read about the same time, which keeps few files open and spares disks.

    Args:
        blocks: Records in each block, such as a shard; block k holds the numbers after those of the blocks before it.
        window: Records that are mixed with each other, at least 1.
        seed: Of the run.
        epoch: From 0.

    Returns:
        int64 ``(sum(blocks),)``.

    Raises:
        InputError: If ``window`` is below 1.
    """
    if window < 1:
        raise InputError(f"window must be at least 1 record, got {window}")
    rng, ends = generator(seed, epoch), np.cumsum(blocks, dtype=np.int64)
    chosen = rng.permutation(len(ends))
    order = np.concatenate([np.arange(ends[k] - blocks[k], ends[k]) for k in chosen] or [np.zeros(0, np.int64)])
    for start in range(0, len(order), window):
        rng.shuffle(order[start : start + window])
    return order


def repeat_factors(
    ids: NDArray[np.integer[Any]],
    ends: IntArray,
    num_tags: int,
    *,
    threshold: float = LVIS_THRESHOLD,
    power: float = LVIS_POWER,
) -> FloatArray:
    """How much more often a record must be seen for the sake of its rarest tag.

    With f(t) the share of records that have tag t, the factor of a record is the largest of
    max(1, (threshold / f(t)) ** power) over its tags, and 1 where it has none. A power of 0.5 is LVIS's; with 1 and
    a threshold of 1, a record counts by the inverse frequency of its rarest tag, so that tags which do not occur
    together are seen equally often.

    Args:
        ids: Tag ids of all records, one record after the other; those outside the vocabulary count as none.
        ends: ``(R,)``, where in ``ids`` those of each record end.
        num_tags: T.
        threshold: Share of records below which a tag is rare, in (0, 1].
        power: In [0, 1]; 0 repeats nothing.

    Returns:
        float32 ``(R,)``, at least 1.

    Raises:
        InputError: If ``threshold`` or ``power`` is out of its range.
    """
    if not (0 < threshold <= 1 and 0 <= power <= 1):
        raise InputError(f"threshold must be in (0, 1] and power in [0, 1], got {threshold} and {power}")
    known = (ids >= 0) & (ids < num_tags)
    share = np.bincount(ids[known], minlength=num_tags) / max(1, len(ends))
    # What is not in the vocabulary has the factor 1, behind the last tag.
    of_tag = np.append(np.maximum(1, (threshold / np.maximum(share, 1e-12)) ** power), 1).astype(np.float32)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    filled = ends > starts
    factors = np.ones(len(ends), dtype=np.float32)
    if filled.any():
        factors[filled] = np.maximum.reduceat(of_tag[np.where(known, ids, num_tags)], starts[filled])
    return factors


def class_balanced(factors: FloatArray, *, seed: int, epoch: int) -> IntArray:
    """As many records as there are, each about as often as its factor asks for, in random order.

    Record i comes floor or ceil of R factors[i] / sum(factors) times (systematic sampling), and exactly that often on
    average over epochs. An epoch keeps its length, which LVIS's own does not.

    Args:
        factors: ``(R,)``, positive, such as :func:`repeat_factors` gives.
        seed: Of the run.
        epoch: From 0.

    Returns:
        int64 ``(R,)``, with repetitions.
    """
    rng, count = generator(seed, epoch), len(factors)
    mixed = rng.permutation(count)
    ends = np.cumsum(factors[mixed], dtype=np.float64)
    marks = (np.arange(count) + rng.random()) * (ends[-1] / count) if count else ends
    return rng.permutation(mixed[np.minimum(np.searchsorted(ends, marks, side="right"), count - 1)])


def steps_of(count: int, *, batch_size: int, ranks: int = 1) -> int:
    """Whole batches of an epoch, the same for each process; what is left over is dropped."""
    return count // (batch_size * ranks)


def first_position(step: int, *, batch_size: int, rank: int = 0, ranks: int = 1) -> int:
    """Position in the order of an epoch where the batch of process ``rank`` at ``step`` begins."""
    return (step * ranks + rank) * batch_size

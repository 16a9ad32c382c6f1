"""Figures of tagging: average precision of scores; precision, recall and F1 of tags; plain functions of arrays.

The published evaluation (``ram/utils/metrics.py`` of the Recognize Anything code, arXiv:2306.03514) counts a tag that
no image has as 0 and leaves the order of equal scores to the sort. Both are choices here, and both have a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rasa._suggest import did_you_mean
from rasa.arrays import BoolArray, read_only
from rasa.errors import InputError

NoPositives = Literal["exclude", "zero"]
Ties = Literal["published", "together", "lowest", "highest"]
Figures = NDArray[np.float64]

# Added to the number of positives by the published average precision.
AP_EPSILON = 1e-8
# Added to the denominators of the published precision and recall.
PR_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PrecisionRecall:
    """Precision, recall and F1, all in [0, 1].

    Attributes:
        precision: float64 ``(T,)``; 0 for a tag that is never predicted, NaN for an excluded one.
        recall: float64 ``(T,)``, likewise.
        f1: float64 ``(T,)``, harmonic mean of the two, 0 where both are 0.
        class_precision: CP, the mean over the tags that count; NaN if none does.
        class_recall: CR, likewise.
        class_f1: CF1, the harmonic mean of CP and CR (not the mean of ``f1``).
        overall_precision: OP, of all predictions of all tags together, excluded or not.
        overall_recall: OR, likewise.
        overall_f1: OF1, the harmonic mean of OP and OR.
    """

    precision: Figures
    recall: Figures
    f1: Figures
    class_precision: float
    class_recall: float
    class_f1: float
    overall_precision: float
    overall_recall: float
    overall_f1: float


def tag_matrix(tags: Sequence[Sequence[str]], names: Sequence[str]) -> BoolArray:
    """Turn the tags of images into a matrix.

    Args:
        tags: For each of B images its tags, in any order.
        names: The T tags of the columns; a name that repeats gets the tag in each of its columns, as published.

    Returns:
        bool ``(B, T)``.

    Raises:
        InputError: If a tag is none of ``names``.
    """
    columns: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        columns.setdefault(name, []).append(i)
    matrix = np.zeros((len(tags), len(names)), bool)
    for row, present in zip(matrix, tags, strict=True):
        for tag in present:
            if tag not in columns:
                raise InputError(f"tag {tag!r} is none of the {len(names)} tags{did_you_mean(tag, columns)}")
            row[columns[tag]] = True
    return matrix


def at_thresholds(scores: ArrayLike, thresholds: ArrayLike) -> BoolArray:
    """Tell which tags reach their threshold; a score equal to it does, as in the published evaluation.

    Args:
        scores: Float ``(B, T)``.
        thresholds: One number, or ``(T,)``; rounded to the type of the scores before they are compared.

    Returns:
        bool ``(B, T)``.

    Raises:
        InputError: If a shape does not fit or a value is NaN.
    """
    scores = _scores(scores)
    tags = scores.shape[1]
    shape: tuple[int, ...] = () if np.ndim(thresholds) == 0 else (tags,)
    limits = read_only("thresholds", thresholds, dtype=np.float64, shape=shape, hint=f"one, or one for each of {tags}")
    if np.isnan(limits).any():
        raise InputError("thresholds must not be NaN; leave a tag out by a threshold of infinity")
    return np.asarray(scores >= limits.astype(scores.dtype))


def average_precision(
    scores: ArrayLike, truth: ArrayLike, *, no_positives: NoPositives = "exclude", ties: Ties = "published"
) -> Figures:
    """Average precision of every tag: the mean, over the images that have it, of the precision at their rank.

    Args:
        scores: Float ``(B, T)``; only their order within a tag counts, so logits will do.
        truth: ``(B, T)`` of 0 and 1 or bool: whether the image has the tag.
        no_positives: What a tag that no image has gets: ``"exclude"`` NaN, ``"zero"`` 0 as published.
        ties: Order of images with equal scores. ``"published"``: last image first, the reverse of an ascending
            sort (the original's sort was not stable; this one is). ``"together"``: all share the last of their
            ranks (scikit-learn's definition), which is never below the worst order and can exceed the best.
            ``"lowest"`` and ``"highest"``: the worst and the best order, which bound what the original returns.
            Only ``"published"`` depends on the order of the images.

    Returns:
        float64 ``(T,)`` in [0, 1]. The sum is divided by positives + 1e-8, as published.

    Raises:
        InputError: If the shapes differ, a score is NaN, ``truth`` is not binary, or an option is unknown.

    Source:
        ``get_mAP`` of the published evaluation.
    """
    _require_option("no_positives", no_positives, NoPositives)
    _require_option("ties", ties, Ties)
    scores, truth = _scores(scores), _binary("truth", truth)
    _require_same_shape("scores", scores, "truth", truth)
    columns = zip(scores.T, truth.T, strict=True)
    values = np.array([_column_average_precision(column, present, ties) for column, present in columns], np.float64)
    return values if no_positives == "zero" else np.where(truth.any(axis=0), values, np.nan)


def tied_columns(scores: NDArray[Any]) -> list[int]:
    """Places of the tags for which some images have equal scores; ``scores`` is ``(B, T)``."""
    return [i for i, column in enumerate(np.sort(scores, axis=0).T) if (column[1:] == column[:-1]).any()]


def mean_average_precision(
    scores: ArrayLike, truth: ArrayLike, *, no_positives: NoPositives = "exclude", ties: Ties = "published"
) -> float:
    """Mean of :func:`average_precision` over the tags that count, in [0, 1]; NaN if none does.

    The published mAP is that of ``no_positives="zero"``. Arguments and errors are those of :func:`average_precision`.
    """
    return _mean(average_precision(scores, truth, no_positives=no_positives, ties=ties))


def precision_recall(
    predicted: ArrayLike, truth: ArrayLike, *, no_positives: NoPositives = "exclude"
) -> PrecisionRecall:
    """Precision, recall and F1: per tag, mean over tags (CP, CR, CF1) and overall (OP, OR, OF1).

    Args:
        predicted: ``(B, T)`` of 0 and 1 or bool, such as from :func:`at_thresholds`.
        truth: Same shape and values: whether the image has the tag.
        no_positives: How a tag that no image has counts: ``"exclude"`` is NaN and out of the means over tags;
            ``"zero"`` is 0 and in them, as published. Its false positives count overall either way.

    Raises:
        InputError: If the shapes differ, a matrix is not binary, or the option is unknown.

    Source:
        ``get_PR`` of the published evaluation for precision, recall and their means (1e-9 is added to each
        denominator); CF1, OP, OR and OF1 as in Wang et al., "CNN-RNN", arXiv:1604.04573.
    """
    _require_option("no_positives", no_positives, NoPositives)
    predicted, truth = _binary("predicted", predicted), _binary("truth", truth)
    _require_same_shape("predicted", predicted, "truth", truth)
    hits, guesses, positives = (m.sum(axis=0, dtype=np.float64) for m in (predicted & truth, predicted, truth))
    precision, recall = hits / (guesses + PR_EPSILON), hits / (positives + PR_EPSILON)
    if no_positives == "exclude":
        precision, recall = (np.where(positives > 0, figure, np.nan) for figure in (precision, recall))
    cp, cr = _mean(precision), _mean(recall)
    op, overall_recall = (float(hits.sum() / (n.sum() + PR_EPSILON)) for n in (guesses, positives))
    return PrecisionRecall(
        precision=precision,
        recall=recall,
        f1=_harmonic_mean(precision, recall),
        class_precision=cp,
        class_recall=cr,
        class_f1=float(_harmonic_mean(cp, cr)),
        overall_precision=op,
        overall_recall=overall_recall,
        overall_f1=float(_harmonic_mean(op, overall_recall)),
    )


def _column_average_precision(scores: NDArray[Any], present: BoolArray, ties: Ties) -> float:
    order = _descending(scores, present, ties)
    found = np.cumsum(present[order])
    ranks = np.arange(len(order))
    if ties == "together":
        ranked = scores[order]
        last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))[: len(order)]
        ranks = last_of_tie[np.searchsorted(last_of_tie, ranks)]
    precision = found[ranks] / (ranks + 1)
    return float(precision[present[order]].sum() / (present.sum() + AP_EPSILON))


def _descending(scores: NDArray[Any], present: BoolArray, ties: Ties) -> NDArray[np.intp]:
    """Indices of the images, best score first. All sorts are ascending and then reversed."""
    if ties == "lowest":
        return np.lexsort((~present, scores))[::-1]
    if ties == "highest":
        return np.lexsort((present, scores))[::-1]
    return np.argsort(scores, kind="stable")[::-1]


def _mean(values: Figures) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else float("nan")


def _harmonic_mean(a: ArrayLike, b: ArrayLike) -> Figures:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total = a + b
    return np.asarray(2 * a * b / np.where(total == 0, 1, total))


def _scores(value: ArrayLike) -> NDArray[Any]:
    scores = _matrix("scores", value, keep="f")
    missing = np.argwhere(np.isnan(scores))
    if len(missing):
        image, tag = missing[0]
        raise InputError(f"scores must not be NaN, {len(missing)} are; the first is image {image}, tag {tag}")
    return scores


def _binary(name: str, value: ArrayLike) -> BoolArray:
    matrix = _matrix(name, value, keep="biuf")
    other = matrix[(matrix != 0) & (matrix != 1)]
    if other.size:
        raise InputError(f"{name} must be bool or hold 0 and 1 only, got {other[0]}; see at_thresholds for scores")
    return np.asarray(matrix, bool)


def _matrix(name: str, value: ArrayLike, *, keep: str) -> NDArray[Any]:
    """Read a matrix; arrays of the kinds ``keep`` are not copied: 60,000 images by 4,585 tags are 1 GB as float32."""
    kept = isinstance(value, np.ndarray) and value.dtype.kind in keep
    dtype = value.dtype.type if isinstance(value, np.ndarray) and kept else np.float64
    return read_only(name, value, dtype=dtype, shape=(None, None), hint="a row for each image, a column for each tag")


def _require_same_shape(name: str, array: NDArray[Any], other_name: str, other: NDArray[Any]) -> None:
    if array.shape != other.shape:
        raise InputError(f"{name} and {other_name} must have the same shape, got {array.shape} and {other.shape}")


def _require_option(name: str, value: str, options: Any) -> None:
    if value not in get_args(options):
        raise InputError(f"{name} must be one of {', '.join(map(repr, get_args(options)))}, got {value!r}")

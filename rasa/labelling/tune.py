"""Thresholds for tags out of a small labelled set: the best F1, or the most that can be found at a given precision."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rasa.arrays import BoolArray, FloatArray, IntArray, read_only
from rasa.errors import FormatError, InputError
from rasa.types import Tags

Objective = Literal["f1"] | float
Numbers = NDArray[np.float64]

_AT_ONCE = 2**22  # scores that are sorted together
# The first of these columns that a table has says which image a row is about.
_IMAGE_COLUMNS = ("id", "path", "file_name")


@dataclass(frozen=True, slots=True, eq=False)
class TunedThresholds:
    """Thresholds, and what they do on the images that they were chosen on.

    Attributes:
        thresholds: float32 ``(T,)`` in [0, 1]; a tag is given where its score is greater. NaN where none was chosen:
            the tag has too few examples, none of them has a score, or the precision cannot be reached.
        precision: float64 ``(T,)``, share of the images given the tag that have it; NaN where there is no threshold.
        recall: float64 ``(T,)``, share of the images with the tag that are given it; NaN likewise.
        positives: int64 ``(T,)``, images that have the tag.
    """

    thresholds: FloatArray
    precision: Numbers
    recall: Numbers
    positives: IntArray

    @property
    def f1(self) -> Numbers:
        """float64 ``(T,)``: harmonic mean of precision and recall; NaN where there is no threshold."""
        total = self.precision + self.recall
        scores: Numbers = 2 * self.precision * self.recall / np.where(total > 0, total, 1)
        return scores


def tune_thresholds(
    scores: FloatArray, truth: BoolArray, *, objective: Objective = "f1", min_positives: int = 1
) -> TunedThresholds:
    """Choose a threshold for each tag on labelled images.

    A threshold lies half-way between the lowest score that it lets through and the next lower one, on three decimals
    where there is room. Nothing is known below a score whose next is 0, so there it lies just under the score.

    Args:
        scores: ``(N, T)`` in [0, 1] of N images and T tags; 0 where the tagger gave none.
        truth: bool ``(N, T)``, which tags the images have.
        objective: ``"f1"`` for the best F1 score, the highest such threshold; or a precision in (0, 1]: the best
            recall of all thresholds that reach it, the highest such threshold.
        min_positives: Fewest images with a tag for it to get a threshold, at least 1.

    Raises:
        InputError: If an argument has a wrong shape or value.
    """
    scores = read_only("scores", scores, dtype=np.float32, shape=(None, None))
    truth = read_only("truth", truth, dtype=np.bool_, shape=scores.shape, hint="one row per image, one column per tag")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("scores must be in [0, 1], after the sigmoid")
    if objective != "f1" and not (isinstance(objective, int | float) and 0 < objective <= 1):
        raise InputError(f'objective must be "f1" or a precision in (0, 1], got {objective!r}')
    if min_positives < 1:
        raise InputError(f"min_positives must be at least 1, got {min_positives!r}")
    count, tags = scores.shape
    step = max(1, _AT_ONCE // max(count, 1))
    thresholds, precision, recall = numbers = np.full((3, tags), np.nan)
    for start in range(0, tags if count else 0, step):
        chosen = slice(start, start + step)
        numbers[:, chosen] = _tuned(scores[:, chosen], truth[:, chosen], objective)
    positives = np.count_nonzero(truth, axis=0).astype(np.int64)
    values = [np.where(positives >= min_positives, value, np.nan) for value in (thresholds, precision, recall)]
    return TunedThresholds(values[0].astype(np.float32), values[1], values[2], positives)


def threshold_quality(scores: FloatArray, truth: BoolArray, thresholds: FloatArray) -> Numbers:
    """F1 of given thresholds, float64 ``(T,)``; 0 where a tag is neither given nor there."""
    given = scores > thresholds
    right = np.count_nonzero(given & truth, axis=0)
    total = np.count_nonzero(given, axis=0) + np.count_nonzero(truth, axis=0)
    quality: Numbers = 2 * right / np.maximum(total, 1)
    return quality


def _tuned(scores: FloatArray, truth: BoolArray, objective: Objective) -> Numbers:
    """``(3, T)``: thresholds, precision and recall, NaN where there is none."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    right = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0)  # among the best k
    below = np.concatenate([ranked[1:], np.zeros_like(ranked[:1])])
    positives, given = right[-1], np.arange(1, len(scores) + 1)[:, None]
    possible = (ranked > below) & (right > 0)  # equal scores stand or fall together
    precision, recall = right / given, right / np.maximum(positives, 1)
    if objective == "f1":
        value = 2 * right / (given + positives)
    else:
        value, possible = recall, possible & (precision >= objective)
    # The first of the best is the highest threshold.
    best = np.argmax(np.where(possible, value, -1), axis=0)[None]
    chosen = [np.take_along_axis(table, best, axis=0)[0] for table in (ranked, below, precision, recall, possible)]
    numbers = np.stack([_between(chosen[1], chosen[0]), chosen[2], chosen[3]])
    return np.where(chosen[4], numbers, np.nan)


def _between(low: FloatArray, high: FloatArray) -> Numbers:
    """A number below ``high`` and not below ``low``, both float32, that float32 can hold."""
    middle = np.where(low > 0, (low.astype(np.float64) + high) / 2, high)
    short = (np.floor(middle * 1000) / 1000).astype(np.float32)
    exact = middle.astype(np.float32)
    exact = np.where(exact < high, exact, np.nextafter(high, np.float32(0)))
    return np.where((low < short) & (short < high), short, exact).astype(np.float64)


def read_tag_rows(path: Path) -> Iterator[tuple[str, str, float]]:
    """Rows of a CSV file: image, tag, score.

    The header names the image's column, ``id``, ``path`` or ``file_name`` (the first of these that is there), ``tag``,
    and maybe ``score``, which is 1 where it is absent. An empty tag says that the image has none. Other columns
    are not looked at, so that a file of the format ``tags-csv`` fits.

    Raises:
        FormatError: If a column is missing or a row malformed; the message names the line.
        InputError: If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or ()
            key = next((name for name in _IMAGE_COLUMNS if name in names), None)
            if key is None or "tag" not in names:
                expected = f'"tag" and one of {", ".join(_IMAGE_COLUMNS)}'
                raise FormatError(f"{path}, line 1: expected the columns {expected}, got {', '.join(names) or 'none'}")
            for row in reader:
                yield _parsed(row, key, f"{path}, line {reader.line_num}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def read_truth(path: Path) -> dict[str, frozenset[str]]:
    """Image to the tags that it has, from a CSV file as :func:`read_tag_rows` reads it; a score of 0 is no tag.

    Raises:
        FormatError, InputError: As :func:`read_tag_rows`; also if there is no image.
    """
    found: dict[str, set[str]] = {}
    for image, tag, score in read_tag_rows(path):
        found.setdefault(image, set()).update({tag} if tag and score > 0 else ())
    if not found:
        raise FormatError(f"{path} has no images; give one row for each tag of each image")
    return {image: frozenset(tags) for image, tags in found.items()}


def read_scores(path: Path) -> Iterator[tuple[tuple[str, ...], Tags]]:
    """Image and its tags with scores, from a CSV file as :func:`read_tag_rows` reads it.

    Raises:
        FormatError, InputError: As :func:`read_tag_rows`; also if a tag stands twice or a score is outside [0, 1].
    """
    found: dict[str, dict[str, float]] = {}
    for image, tag, score in read_tag_rows(path):
        tags = found.setdefault(image, {})
        if tag in tags:
            raise FormatError(f"{path}: {image!r} has the tag {tag!r} twice")
        if tag:
            tags[tag] = score
    for image, tags in found.items():
        try:
            yield (image,), Tags(tuple(tags), np.array(list(tags.values()), np.float32))
        except InputError as error:
            raise FormatError(f"{path}: {image!r}: {error}") from error


def score_table(
    images: Iterable[tuple[Sequence[str], Tags]], truth: Mapping[str, frozenset[str]], tags: Sequence[str]
) -> tuple[FloatArray, BoolArray]:
    """Scores and truth of the labelled images, as :func:`tune_thresholds` takes them.

    Args:
        images: The names that ``truth`` may call each image by, such as its id and its path, and its tags.
        truth: Image to its tags; tags that are not among ``tags`` are left out.
        tags: T distinct tags.

    Returns:
        float32 ``(N, T)`` and bool ``(N, T)``; N is the number of images of ``truth``.

    Raises:
        InputError: If an image of ``truth`` is not among ``images``, or a name of it fits two.
    """
    rows = {image: row for row, image in enumerate(truth)}
    columns = {tag: column for column, tag in enumerate(tags)}
    scores, there = np.zeros((len(rows), len(columns)), np.float32), np.zeros((len(rows), len(columns)), np.bool_)
    for image, names in truth.items():
        there[rows[image], [columns[name] for name in names if name in columns]] = True
    seen: set[str] = set()
    for keys, found in images:
        for image in set(keys) & truth.keys():
            if image in seen:
                raise InputError(f"{image!r} is the name of two images; name the images by id or path")
            seen.add(image)
            places = [i for i, name in enumerate(found.names) if name in columns]
            scores[rows[image], [columns[found.names[i]] for i in places]] = found.scores[places]
    if missing := [image for image in truth if image not in seen]:
        raise InputError(f"{len(missing)} of {len(truth)} labelled images have no scores, such as {missing[0]!r}")
    return scores, there


def _parsed(row: Mapping[str | None, str | None], key: str, where: str) -> tuple[str, str, float]:
    image, tag, text = row[key], row["tag"], row.get("score")
    if not image or tag is None:
        raise FormatError(f"{where}: expected a value for {key!r} and 'tag'")
    try:
        score = float(text) if text else 1.0
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise FormatError(f"{where}: a score must be a number in [0, 1], got {(text or '')[:40]!r}")
    return image, tag.strip(), score

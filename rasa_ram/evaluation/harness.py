"""From a predictor and a benchmark to figures: scores first, kept on disk, then everything that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rasa.arrays import BoolArray, FloatArray, read_only
from rasa.errors import ContractError, ImageError, InputError
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.bootstrap import intervals
from rasa_ram.evaluation.evaluation import Evaluation, TagFigures
from rasa_ram.evaluation.metrics import at_thresholds, average_precision, precision_recall, tied_columns
from rasa_ram.evaluation.score_store import CHUNK, ScoreStore, StampedImages
from rasa_ram.images import ImageReader

Figures = NDArray[np.float64]


@runtime_checkable
class Predictor(Protocol):
    """Scores images for the classes of a benchmark."""

    @property
    def thresholds(self) -> FloatArray | None:
        """float32 ``(T,)``, from which score a class counts as given; None where nothing says."""
        ...

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)``, greater for what is more likely there."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What the answers depend on, as JSON values; ``model`` is its name."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """How images are scored.

    Attributes:
        batch_size: Images at once.
        skip_broken: Whether an image that cannot be read is left out and counted; else it stops the run. The
            original scored a black image in its place.
        chunk: Images between two writes of the cache.
        progress: Called with the number of images done, after each batch.
    """

    batch_size: int = 16
    skip_broken: bool = False
    chunk: int = CHUNK
    progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.chunk < 1:
            raise InputError(f"batch_size and chunk must be at least 1, got {self.batch_size} and {self.chunk}")


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """How scores become figures.

    Attributes:
        thresholds: One number or ``(T,)``; None uses the predictor's, and without those precision and recall are left
            out. Published: 0.86 for RAM and 0.68 for Tag2Text in the tables, 0.5 for open sets.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        seed: Of its random numbers.
        confidence: Of its intervals.
    """

    thresholds: ArrayLike | None = None
    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95


def evaluate(
    predictor: Predictor,
    benchmark: Benchmark,
    *,
    images: ImageReader,
    cache: Path | None = None,
    run: Run | None = None,
    measure: Measure | None = None,
) -> Evaluation:
    """Measure a predictor on a benchmark.

    Args:
        predictor: Scores the benchmark's classes, in their order.
        benchmark: What to measure on.
        images: Gives the image of a name; raises :class:`rasa.errors.ImageError` if it cannot.
        cache: Folder in which scores are kept, so that a killed run goes on and new figures need no model. Scores of
            images that have changed count no more if ``images`` is a
            :class:`rasa_ram.evaluation.score_store.StampedImages`; those of other readers are taken to stay the same.
        run: How images are scored.
        measure: How scores become figures.

    Raises:
        ImageError: If an image cannot be read and is not to be skipped.
        ContractError: If the predictor's scores have a wrong shape or are no numbers.
        OutputError: If the cache cannot be written.
        InputError: If no image is left, or an option is out of range.
    """
    described = dict(predictor.describe())
    measure = measure or Measure()
    scores = score_images(predictor, benchmark, images=images, cache=cache, run=run)
    thresholds = predictor.thresholds if measure.thresholds is None else measure.thresholds
    return evaluate_scores(scores, benchmark, described=described, measure=measure, thresholds=thresholds)


def score_images(
    predictor: Predictor,
    benchmark: Benchmark,
    *,
    images: ImageReader,
    cache: Path | None = None,
    run: Run | None = None,
) -> FloatArray:
    """Scores of all images; arguments and errors are those of :func:`evaluate`.

    Returns:
        float32 ``(N, T)``; a row of NaN for an image that was skipped.
    """
    run = run or Run()
    count, classes = benchmark.truth.shape
    if cache is None:
        parts = [(i, slice(i, min(i + run.chunk, count))) for i in range(0, count, run.chunk)]
        table = np.empty((count, classes), np.float32)
        for _, rows in parts:
            table[rows] = _score(predictor, benchmark, rows, images=images, run=run)
        return table
    stamped = images if isinstance(images, StampedImages) else None
    store = ScoreStore(cache, benchmark, description=dict(predictor.describe()), images=stamped, chunk=run.chunk)
    left = store.chunks()
    _tell(run, count - sum(rows.stop - rows.start for _, rows in left))
    for number, rows in left:
        store.put(number, _score(predictor, benchmark, rows, images=images, run=run))
    return store.scores


def evaluate_scores(
    scores: ArrayLike,
    benchmark: Benchmark,
    *,
    described: Mapping[str, Any],
    measure: Measure | None = None,
    thresholds: ArrayLike | None = None,
) -> Evaluation:
    """The figures of scores.

    Args:
        scores: Float ``(N, T)``; a row of NaN is an image that is left out.
        benchmark: Gives the truth.
        described: What made the scores; ``model`` is its name.
        measure: How scores become figures; its thresholds go before ``thresholds``.
        thresholds: One or ``(T,)``, or None for no precision and recall.

    Raises:
        InputError: If a shape does not fit, some but not all scores of an image are NaN, or no image is left.
    """
    measure = measure or Measure()
    thresholds = thresholds if measure.thresholds is None else measure.thresholds
    table = read_only("scores", scores, dtype=np.float32, shape=benchmark.truth.shape)
    kept = ~np.isnan(table).all(axis=1)
    if not kept.any():
        raise InputError(f"no image of {benchmark.name} has scores; check the folder of images")
    whole = bool(kept.all())
    table, truth = (table, benchmark.truth) if whole else (table[kept], benchmark.truth[kept])
    limits = None if thresholds is None else np.broadcast_to(np.asarray(thresholds, np.float64), table.shape[1:])
    predicted = None if limits is None else at_thresholds(table, limits)
    settings = {"resamples": measure.resamples, "seed": measure.seed, "confidence": measure.confidence}
    found = _figures(table, truth, limits, benchmark.classes)
    return Evaluation(
        benchmark=benchmark.name,
        model=str(described.get("model", "unknown")),
        images=len(table),
        classes=table.shape[1],
        skipped=int((~kept).sum()),
        published=found.published,
        figures=found.figures,
        intervals={}
        if not measure.resamples
        else intervals(
            table, truth, predicted, resamples=measure.resamples, seed=measure.seed, confidence=measure.confidence
        ),
        without_positives=int((~truth.any(axis=0)).sum()),
        with_ties=sum(tag.highest > tag.lowest for tag in found.tags),
        settings={**settings, "predictor": dict(described)},
        notes=benchmark.notes,
        tags=found.tags,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    published: Mapping[str, float]
    figures: Mapping[str, float]
    tags: tuple[TagFigures, ...]


def _figures(scores: FloatArray, truth: BoolArray, limits: Figures | None, names: Sequence[str]) -> _Found:
    exact = average_precision(scores, truth, ties="together")
    low, high = (_bound(scores, truth, exact, ties) for ties in ("lowest", "highest"))
    published = {"map": float(average_precision(scores, truth, no_positives="zero").mean())}
    figures = {"map": _mean(exact), "map_lowest": _mean(low), "map_highest": _mean(high)}
    figures["micro_ap"] = float(average_precision(scores.reshape(-1, 1), truth.reshape(-1, 1), ties="together")[0])
    shown = np.full((4, len(names)), np.nan)
    if limits is not None:
        predicted = at_thresholds(scores, limits)
        original = precision_recall(predicted, truth, no_positives="zero")
        ours = precision_recall(predicted, truth)
        published |= {"precision": original.class_precision, "recall": original.class_recall}
        for kind in ("class", "overall"):
            for figure in ("precision", "recall", "f1"):
                figures[f"{kind}_{figure}"] = getattr(ours, f"{kind}_{figure}")
        shown = np.stack([limits, ours.precision, ours.recall, ours.f1])
    columns = np.concatenate([np.stack([exact, low, high]), shown]).T
    rows = zip(names, truth.sum(axis=0), columns, strict=True)
    return _Found(published, figures, tuple(TagFigures(name, int(n), *map(float, row)) for name, n, row in rows))


def _bound(scores: FloatArray, truth: BoolArray, exact: Figures, ties: Any) -> Figures:
    """Average precision in the worst or best order of equal scores; sorted anew only where some are equal."""
    values = exact.copy()
    if tied := tied_columns(scores):
        values[tied] = average_precision(scores[:, tied], truth[:, tied], ties=ties)
    return values


def _mean(values: Figures) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _score(predictor: Predictor, benchmark: Benchmark, rows: slice, *, images: ImageReader, run: Run) -> FloatArray:
    """Scores of a chunk; the next batch is read while the predictor works."""
    names = benchmark.images[rows]
    table = np.full((len(names), len(benchmark.classes)), np.nan, np.float32)
    starts = range(0, len(names), run.batch_size)

    def read(start: int) -> list[Image | None]:
        return [_read(images, name, skip=run.skip_broken) for name in names[start : start + run.batch_size]]

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, 0)
        for start in starts:
            batch = ahead.result()
            if start + run.batch_size < len(names):
                ahead = pool.submit(read, start + run.batch_size)
            chosen = [start + i for i, image in enumerate(batch) if image is not None]
            found = [image for image in batch if image is not None]
            if found:
                table[chosen] = _checked(predictor.scores(found), (len(found), table.shape[1]), found)
            _tell(run, len(batch))
    return table


def _read(images: ImageReader, name: str, *, skip: bool) -> Image | None:
    try:
        return images(name)
    except ImageError:
        if not skip:
            raise
        return None


def _checked(scores: FloatArray, shape: tuple[int, int], images: Sequence[Image]) -> FloatArray:
    scores = np.asarray(scores, np.float32)
    if scores.shape != shape:
        raise ContractError(
            f"a predictor must give one row per image and one column per class, {shape}, got {scores.shape}"
        )
    broken = np.isnan(scores).any(axis=1)
    if broken.any():
        raise ContractError(f"the predictor gave a score that is no number on {images[int(broken.argmax())].name!r}")
    return scores


def _tell(run: Run, images: int) -> None:
    if run.progress is not None and images:
        run.progress(images)

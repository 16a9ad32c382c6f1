"""Pipeline: runs stages in order, on one image, a list, or a stream of any length."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rasa._version import __version__
from rasa.errors import InputError
from rasa.io.decode_ahead import decode, decode_ahead
from rasa.protocols import Described, Detector, DetectorSegmenter, Segmenter, Stage, Tagger
from rasa.runner import OnError, Processed, Runner, build_seeds
from rasa.stages import Detect, DetectAndSegment, Filter, Segment, Suppress, Tag
from rasa.types import Result

__all__ = ["Pipeline", "Processed"]

Model = Tagger | Detector | Segmenter | DetectorSegmenter

_ROLES: tuple[tuple[type, Callable[[Any], tuple[Stage, ...]]], ...] = (
    (Tagger, lambda model: (Tag(model),)),
    # Between a bare detector and whatever follows stand both stages with their defaults.
    (Detector, lambda model: (Detect(model), Filter(), Suppress())),
    (DetectorSegmenter, lambda model: (DetectAndSegment(model), Filter(), Suppress())),
    (Segmenter, lambda model: (Segment(model),)),
)


class Pipeline:
    """Stages run in order: tags -> boxes -> masks.

    Attributes:
        stages: What runs, in order.
        provenance: Goes into every result: versions, ``extra``, and what each stage is.

    Example:
        >>> from rasa import Pipeline
        >>> from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, sample_image
        >>> pipeline = Pipeline(FakeTagger(["cat", "mat"]), FakeDetector(), FakeSegmenter())
        >>> result = pipeline(sample_image(height=60, width=80))
        >>> result.tags.names, result.instances.labels, result.instances.masks.shape
        (('cat', 'mat'), ('cat', 'mat'), (2, 60, 80))
    """

    def __init__(self, *parts: Model | Stage, extra: Mapping[str, Any] | None = None) -> None:
        """Chain models and stages.

        Args:
            parts: Stages, or bare models, each lifted to a stage by its role. A bare
                detector, with or without masks, is followed by ``Filter()`` and ``Suppress()`` with
                their defaults; pass ``Detect(detector)`` and stages of your own to choose.
            extra: Plain JSON values to put into the provenance, such as the name of a preset.

        Raises:
            InputError: If there is no part, or one is neither a model nor a stage.
        """
        if not parts:
            raise InputError("a pipeline needs at least one model or stage, such as Pipeline(tagger)")
        self.stages: tuple[Stage, ...] = tuple(stage for part in parts for stage in _lift(part))
        self.provenance: Mapping[str, Any] = {
            "versions": _versions(),
            **(extra or {}),
            "stages": [{"stage": stage_name(stage), **_describe(stage)} for stage in self.stages],
        }

    def __repr__(self) -> str:
        return f"Pipeline({' -> '.join(map(stage_name, self.stages))})"

    def __call__(
        self,
        source: Any,
        *,
        tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
        boxes: ArrayLike | Sequence[ArrayLike] | None = None,
        labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        batch_size: int = 8,
        on_error: OnError = "raise",
    ) -> Any:
        """Process one image, or a list or tuple of them.

        Args:
            source: Path, bytes, PIL image, NumPy array, torch tensor or :class:`Image`
                (see :func:`rasa.to_image`); or a list of those.
            tags: The tags to look for, in place of a tagger's: one list for all
                images, or one list per image. Stages that provide tags are left out.
            boxes: Boxes to segment, in place of a detector's: ``(N, 4)`` xyxy in
                pixels, or one such array per image of a list. Stages that provide
                tags or boxes are left out.
            labels: Labels of ``boxes``; "object" unless given.
            batch_size: Images that go through the stages together.
            on_error: ``"raise"``, or ``"skip"`` for a result whose ``failure`` says why.

        Returns:
            A :class:`Result`, or a list of them in the order of the sources.

        Raises:
            ImageError: If an image cannot be read.
            StageError: If a stage fails; it names the stage and the image.
            InputError: If an argument does not fit.
        """
        many = isinstance(source, list | tuple)
        sources = list(source) if many else [source]
        seeds = build_seeds(len(sources) if many else None, tags=tags, boxes=boxes, labels=labels)
        runner = Runner(self.stages, self.provenance, seeds=seeds, batch_size=batch_size, on_error=on_error)
        images = (decode(item, index=i if many else None) for i, item in enumerate(sources))
        results = [done.result for done in runner.run(images)]
        return results if many else results[0]

    def stream(
        self,
        sources: Iterable[Any],
        *,
        batch_size: int = 1,
        on_error: OnError = "raise",
        tags: Sequence[str] | None = None,
        workers: int = 2,
    ) -> Iterator[Result]:
        """Process any number of images lazily, in order, in bounded memory.

        Sources are read as they are needed: threads decode at most
        ``2 * batch_size + workers`` images ahead of the stages.

        Args:
            sources: Anything that :func:`rasa.to_image` reads; may be a generator.
            batch_size: Images that go through the stages together.
            on_error: ``"raise"`` after all results before the broken one, or
                ``"skip"`` for a result whose ``failure`` says why.
            tags: The tags to look for in every image, in place of a tagger's.
            workers: Threads that decode.

        Yields:
            One :class:`Result` per source.

        Raises:
            ImageError: If an image cannot be read.
            StageError: If a stage fails; it names the stage and the image.
            InputError: If an argument does not fit.
        """
        streamed = self.stream_with_images(
            sources, batch_size=batch_size, on_error=on_error, tags=tags, workers=workers
        )
        return (done.result for done in streamed)

    def stream_with_images(
        self,
        sources: Iterable[Any],
        *,
        batch_size: int = 1,
        on_error: OnError = "raise",
        tags: Sequence[str] | None = None,
        workers: int = 2,
    ) -> Iterator[Processed]:
        """:meth:`stream`, with each result's image beside it, for drawing."""
        if isinstance(sources, str | bytes | os.PathLike):
            raise InputError(f"stream needs a list of images, got {sources!r}; rasa.find_images lists a folder's")
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers!r}")
        seeds = build_seeds(None, tags=tags)
        runner = Runner(self.stages, self.provenance, seeds=seeds, batch_size=batch_size, on_error=on_error)
        return _streamed(runner, sources, workers=workers, window=2 * batch_size + workers)


def stage_name(stage: Stage) -> str:
    """What timings and errors call a stage."""
    given = getattr(stage, "name", None) or getattr(stage, "__name__", None) or type(stage).__name__
    return str(given).lower()


def _streamed(runner: Runner, sources: Iterable[Any], *, workers: int, window: int) -> Iterator[Processed]:
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="rasa-decode") as pool,
        closing(decode_ahead(sources, pool, window=window)) as images,
    ):
        yield from runner.run(images)


def _lift(part: Model | Stage) -> tuple[Stage, ...]:
    if isinstance(part, type):
        raise InputError(f"a pipeline takes objects, got the class {part.__name__}; pass {part.__name__}(...)")
    lifts = [lift for role, lift in _ROLES if isinstance(part, role)]
    if len(lifts) == 1:
        return lifts[0](part)
    if len(lifts) > 1:
        raise InputError(f"{type(part).__name__} fits several roles; wrap it in a stage, such as Detect, to choose one")
    if callable(part):
        return (part,)
    raise InputError(
        f"{type(part).__name__} is neither a model nor a stage; it needs a method "
        "tag, detect, segment or detect_and_segment (see rasa.protocols), or to be callable as a stage"
    )


def _describe(stage: Stage) -> Mapping[str, Any]:
    return stage.describe() if isinstance(stage, Described) else {}


def _versions() -> dict[str, str]:
    """Of what decides results, as far as it is loaded already: asking must not import anything."""
    versions = {"rasa": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for module in ("PIL", "cv2", "torch", "torchvision", "timm", "transformers", "open_clip"):
        version = getattr(sys.modules.get(module), "__version__", None)
        if version:
            versions[module] = str(version)
    return versions

"""Runs images through stages in batches, and keeps the books: timings, failures, what was given.

:class:`rasa.Pipeline` is the face of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rasa.errors import ContractError, InputError, RasaError, StageError
from rasa.io.decode_ahead import Decoded
from rasa.protocols import Stage
from rasa.types import Failure, Image, Instances, Result, Tags

OnError = Literal["raise", "skip"]
DEFAULT_LABEL = "object"


@dataclass(frozen=True, slots=True, eq=False)
class Processed:
    """An image with its result.

    Attributes:
        image: None if it could not be read.
        result: What was found; ``result.failure`` says why an image is missing.
    """

    image: Image | None
    result: Result


@dataclass(frozen=True, slots=True)
class Seeds:
    """What the caller hands in, in place of what stages would find.

    Attributes:
        given: Names of what is handed in: ``"tags"``, ``"boxes"``.
        tags: One ``Tags`` per image, or a single one for all.
        instances: One ``Instances`` per image, or a single one for all.
    """

    given: frozenset[str]
    tags: Sequence[Tags]
    instances: Sequence[Instances]

    def result(self, index: int, decoded: Decoded) -> Result:
        """The result that image number ``index`` starts from."""
        return Result(
            name=decoded.name,
            size=(0, 0) if decoded.image is None else decoded.image.size,
            tags=self.tags[index if len(self.tags) > 1 else 0],
            instances=self.instances[index if len(self.instances) > 1 else 0],
            timings={"decode": decoded.seconds},
        )

    def replaces(self, stage: Stage) -> bool:
        """Whether ``stage`` would only find what is given already."""
        provides = getattr(stage, "provides", None)
        return provides in self.given or (provides == "tags" and "boxes" in self.given)


def build_seeds(
    count: int | None,
    *,
    tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
    boxes: ArrayLike | Sequence[ArrayLike] | None = None,
    labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
) -> Seeds:
    """Read the tags and boxes that a caller hands to a pipeline.

    Args:
        count: Number of images of a list; None for a single image, or a stream.
        tags: One list of strings for all images, or one per image of a list.
        boxes: ``(N, 4)``, or one such array per image of a list.
        labels: One label per box, or one list per image of a list; None names all "object".

    Raises:
        InputError: If the numbers do not fit each other.
    """
    given = {name for name, value in (("tags", tags), ("boxes", boxes)) if value is not None}
    if labels is not None and boxes is None:
        raise InputError("labels without boxes; pass the boxes that the labels belong to")
    if isinstance(tags, str):
        raise InputError(f"tags must be a list of strings, got the single string {tags!r}; pass [{tags!r}]")
    tag_lists: Sequence[Any] = [()] if tags is None else [tags]
    if tags is not None and count is not None and any(not isinstance(tag, str) for tag in tags):
        tag_lists = tags
        _check_count("lists of tags", len(tag_lists), count)
    found = [Instances()]
    if boxes is not None:
        per_image: Sequence[Any] = [boxes] if count is None else list(boxes)  # type: ignore[arg-type]
        _check_count("arrays of boxes", len(per_image), 1 if count is None else count)
        per_label: Sequence[Any] = [labels] * len(per_image) if labels is None or count is None else labels
        _check_count("lists of labels", len(per_label), len(per_image))
        found = [_given_instances(*pair) for pair in zip(per_image, per_label, strict=True)]
    return Seeds(frozenset(given), [Tags.of(names) for names in tag_lists], found)


def _given_instances(boxes: ArrayLike, labels: Sequence[str] | None) -> Instances:
    rows = np.asarray(boxes, np.float32)
    rows = rows.reshape(0, 4) if rows.size == 0 else rows
    names = (DEFAULT_LABEL,) * len(rows) if labels is None else tuple(labels)
    return Instances(rows, np.ones(len(names), np.float32), names)


def _check_count(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise InputError(f"got {got} {what} for {expected} images; pass one per image")


@dataclass(eq=False)
class _Job:
    """One image on its way through the stages."""

    image: Image | None
    result: Result
    error: RasaError | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def fail(self, error: RasaError, failure: Failure) -> None:
        self.error = error
        self.result = replace(self.result, failure=failure)


class Runner:
    """Runs decoded images through stages; see :class:`rasa.Pipeline` for the arguments."""

    def __init__(
        self,
        stages: Sequence[Stage],
        provenance: Mapping[str, Any],
        *,
        seeds: Seeds,
        batch_size: int,
        on_error: OnError,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size!r}")
        if on_error not in ("raise", "skip"):
            raise InputError(f'on_error must be "raise" or "skip", got {on_error!r}')
        running = [not seeds.replaces(stage) for stage in stages]
        self._stages = [stage for stage, runs in zip(stages, running, strict=True) if runs]
        described = [entry for entry, runs in zip(provenance["stages"], running, strict=True) if runs]
        self._names = [entry["stage"] for entry in described]
        self._provenance = {**provenance, "given": sorted(seeds.given), "stages": described}
        self._seeds, self._batch_size, self._on_error = seeds, batch_size, on_error

    def run(self, decoded: Iterable[Decoded]) -> Iterator[Processed]:
        """Process images in batches; results before a broken image come before its error.

        Raises:
            ImageError: If an image could not be read, unless errors are skipped.
            StageError: If a stage fails on an image, unless errors are skipped.
        """
        images, done = iter(decoded), 0
        while batch := list(islice(images, self._batch_size)):
            jobs = [self._job(done + i, item) for i, item in enumerate(batch)]
            done += len(batch)
            for stage, name in zip(self._stages, self._names, strict=True):
                _apply(stage, name, [job for job in jobs if job.error is None])
            for job in jobs:
                if job.error is not None and self._on_error == "raise":
                    raise job.error
                timings = {**job.result.timings, **job.timings}
                result = replace(job.result, timings=timings, provenance=self._provenance)
                yield Processed(job.image, result)

    def _job(self, index: int, item: Decoded) -> _Job:
        job = _Job(item.image, self._seeds.result(index, item))
        if item.error is not None:
            job.fail(item.error, Failure("decode", type(item.error).__name__, str(item.error)))
        return job


def _apply(stage: Stage, name: str, jobs: list[_Job]) -> None:
    """Run one stage on a batch; if that fails, one by one, so that only the culprit is lost."""
    if not jobs:
        return
    start = perf_counter()
    try:
        results = _answers(stage, name, jobs)
    except Exception as error:  # noqa: BLE001  (a stage may be anybody's code)
        if len(jobs) > 1:
            for job in jobs:
                _apply(stage, name, [job])
        else:
            _fail(jobs[0], name, error)
        return
    seconds = (perf_counter() - start) / len(jobs)
    for job, result in zip(jobs, results, strict=True):
        job.result = result
        job.timings[name] = job.timings.get(name, 0.0) + seconds


def _answers(stage: Stage, name: str, jobs: list[_Job]) -> Sequence[Result]:
    before = [job.result for job in jobs]
    results = stage([job.image for job in jobs if job.image is not None], before)
    if not isinstance(results, Sequence) or len(results) != len(jobs):
        raise ContractError(f"stage {name!r} must return a list of {len(jobs)} results")
    for old, new in zip(before, results, strict=True):
        if not isinstance(new, Result) or new.name != old.name or new.size != old.size:
            raise ContractError(f"stage {name!r} must return rasa.Result values in the order of its images")
    return results


def _fail(job: _Job, stage: str, cause: Exception) -> None:
    kind, image = type(cause).__name__, job.result.name
    message = f"stage {stage!r} failed on {image!r}: {kind}: {cause}"
    error = StageError(f'{message}; pass on_error="skip" to go on without it', stage=stage, image=image)
    error.__cause__ = cause
    job.fail(error, Failure(stage, kind, str(cause)))

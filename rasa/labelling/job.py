"""From checked arguments to a labelled dataset: a plan, a run, an engine; :func:`rasa.label` is the face of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol, get_args

from rasa.errors import FailedImagesError, InputError, OutputError
from rasa.io.find import StrPath
from rasa.labelling.board import Board
from rasa.labelling.dataset import Dataset, open_dataset
from rasa.labelling.local import LocalEngine
from rasa.labelling.log import RunLog
from rasa.labelling.plan import Plan, Shard, plan_images
from rasa.labelling.progress import Counter, Watch
from rasa.labelling.recipe import Recipe
from rasa.labelling.runs import start_run
from rasa.labelling.store import failed_rows, is_done
from rasa.labelling.worker import Settings

EngineName = Literal["local", "ray"]
LOG = "log.jsonl"
"""Name of the log in the folder of a dataset."""
_MOST_DECODERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to label, and how; the attributes are the arguments of :func:`rasa.label`.

    Raises:
        InputError: If one does not fit.
    """

    recipe: Recipe
    workers: int
    threads: int
    batch_size: int
    shard_size: int
    engine: EngineName
    address: str | None
    every: int | None
    seconds: float | None
    retry_failed: bool

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "batch_size", "shard_size"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {count!r}")
        if self.engine not in get_args(EngineName):
            raise InputError(f'engine must be "local" or "ray", got {self.engine!r}')
        if self.address is not None and self.engine != "ray":
            raise InputError('address is that of a Ray cluster; pass engine="ray" with it')

    def run(self, sources: Iterable[StrPath] | StrPath, out: StrPath, *, strict: bool, watch: Watch | None) -> Dataset:
        """Label what is missing; see :func:`rasa.label`."""
        counter = Counter(watch)
        counter.say("listing")
        plan = plan_images(out, sources, shard_size=self.shard_size, every=self.every, seconds=self.seconds)
        decoders = max(1, min(_MOST_DECODERS, (os.cpu_count() or 1) // self.workers))
        with self._engine() as engine:
            counter.say("loading")
            fingerprint = start_run(out, engine.provenance(shards=len(plan.shards)))
            settings = Settings(Path(out).absolute(), fingerprint, self.batch_size, decoders, self.retry_failed)
            _work(engine, plan, settings, counter)
        dataset = open_dataset(out, run=fingerprint)
        if strict and (failed := dataset.counts.failed):
            raise FailedImagesError(
                f"{failed} of {plan.count} images have no labels; their rows say why", failed=failed
            )
        return dataset

    def _engine(self) -> _Engine:
        if self.engine == "local":
            return LocalEngine(self.recipe, self.workers, self.threads)
        from rasa.labelling.ray_runner import RayEngine  # noqa: PLC0415  (Ray is an extra, and slow to import)

        return RayEngine(self.recipe, self.workers, self.threads, address=self.address)


class _Engine(Protocol):
    """What runs the workers; see :class:`rasa.labelling.local.LocalEngine`."""

    def __enter__(self) -> _Engine: ...

    def __exit__(self, *error: Any) -> None: ...

    def provenance(self, *, shards: int) -> Mapping[str, Any]: ...

    def run(self, board: Board, settings: Settings, counter: Counter) -> None: ...


def _work(engine: _Engine, plan: Plan, settings: Settings, counter: Counter) -> None:
    log = RunLog(settings.folder / LOG, settings.fingerprint)
    left = {shard.index: _images_left(settings, shard) for shard in plan.shards}
    missing = [shard for shard in plan.shards if left[shard.index]]
    counter.total = sum(left.values())
    counter.before = plan.count - counter.total
    log.note("start", engine=type(engine).__name__, batch_size=settings.batch_size, shards=len(missing),
             images=counter.total, before=counter.before)  # fmt: skip
    counter.say("labelling")
    start = perf_counter()
    try:
        engine.run(Board(missing, log.note), settings, counter)
    except BaseException as error:
        with suppress(OutputError):  # a full disk is what may have stopped it
            log.note("stopped", why=type(error).__name__, message=str(error), images=counter.finished)
        raise
    log.note("end", images=counter.finished, failed=counter.failed, seconds=round(perf_counter() - start, 3))


def _images_left(settings: Settings, shard: Shard) -> int:
    if not is_done(settings.folder, settings.fingerprint, shard):
        return shard.count
    return len(failed_rows(settings.folder, settings.fingerprint, shard)) if settings.retry_failed else 0

"""Batches in their order, made here or by worker processes, with what was bad kept in one place."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from rasa.arrays import IntArray
from rasa.errors import InputError, WorkerError
from rasa_ram.data.loader_report import BadSamples
from rasa_ram.data.loader_samples import BatchPlan, Made, SampleMaker
from rasa_ram.data.samples import Samples
from rasa_ram.data.sampling import first_position, steps_of

# Batches that each worker may be ahead.
_PREFETCH = 2


class BatchFeed:
    """Gives the batches of one process; the parts of a :class:`BatchSource` that all sources share.

    Workers are started by a fork server, or as new interpreters where there is none: forking this process would copy
    locks that its threads hold. They stay until :meth:`close` or the end.

    Args:
        maker: Makes a batch of a plan.
        order: Gives the records of an epoch, int64, as many for each epoch.
        count: How many that are.
        rank: Number of this process, from 0.
        ranks: Processes that share an epoch.

    Raises:
        InputError: If ``rank`` is not below ``ranks``, or there are too few records for one batch.
    """

    def __init__(
        self, maker: SampleMaker, order: Callable[[int], IntArray], *, count: int, rank: int = 0, ranks: int = 1
    ) -> None:
        if not 0 <= rank < ranks:
            raise InputError(f"rank must be in [0, ranks), got rank {rank} of {ranks}")
        self._maker, self._order, self._rank, self._ranks = maker, order, rank, ranks
        self._batch_size = maker.settings.batch_size
        self._steps = steps_of(count, batch_size=self._batch_size, ranks=ranks)
        if self._steps == 0:
            raise InputError(
                f"{count} records make no batch of {self._batch_size} for {ranks} process(es); choose a smaller batch"
            )
        self.bad = BadSamples()
        self._plans = _Plans()
        self._workers: DataLoader[Made] | None = None
        self._turn = 0

    def __len__(self) -> int:
        return self._steps

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """See :class:`BatchSource`. Asking for another epoch ends the one before.

        Raises:
            InputError: If ``epoch`` is negative or ``first`` is not in [0, len]; at a batch, if a sample is bad and
                ``on_bad`` is ``"stop"``, or too many are; or if another iteration has begun.
            WorkerError: At a batch, if a worker process died.
        """
        if epoch < 0 or not 0 <= first <= self._steps:
            raise InputError(f"epoch must be at least 0 and first in [0, {self._steps}], got {epoch} and {first}")
        self._turn += 1
        return self._checked(self._turn, epoch, first)

    def close(self) -> None:
        """End the worker processes; asking for batches starts them again."""
        self._turn += 1
        self._workers = None

    def _checked(self, turn: int, epoch: int, first: int) -> Iterator[Samples]:
        order = self._order(epoch)
        plans = (self._plan(order, epoch, step) for step in range(first, self._steps))
        made = self._made_by_workers(plans) if self._maker.settings.workers else map(self._maker.make, plans)
        for batch in self._guarded(made, turn):
            self.bad.add(batch.bad, stacklevel=3)
            if batch.error is not None:
                raise batch.error
            if batch.samples is not None:
                yield batch.samples

    def _guarded(self, made: Iterator[Made], turn: int) -> Iterator[Made]:
        while True:
            if turn != self._turn:
                raise InputError("these batches ended when others were asked for; read one epoch at a time")
            try:
                batch = next(made)
            except StopIteration:
                return
            yield batch

    def _plan(self, order: IntArray, epoch: int, step: int) -> BatchPlan:
        first = first_position(step, batch_size=self._batch_size, rank=self._rank, ranks=self._ranks)
        # A copy: a view would be sent to a worker with all of the order.
        return BatchPlan(epoch, first, order[first : first + self._batch_size].copy())

    def _made_by_workers(self, plans: Iterator[BatchPlan]) -> Iterator[Made]:
        self._plans.current = plans
        if self._workers is None:
            self._workers = _start(self._maker, self._plans)
        batches = iter(self._workers)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                self._workers = None
                if not str(error).startswith("DataLoader worker"):
                    raise  # an error in the worker, which torch introduces with other words
                raise WorkerError(
                    f"a process that reads images died ({error}); it may have run out of memory, or of the shared "
                    "memory that batches come through (docker: --shm-size): use fewer workers or smaller batches"
                ) from error
            yield batch


class _Plans:
    """The plans of the epoch being read; a ``DataLoader`` asks for them anew for each."""

    def __init__(self) -> None:
        self.current: Iterator[BatchPlan] = iter(())

    def __iter__(self) -> Iterator[BatchPlan]:
        return self.current


class _Batches(Dataset[Made]):
    """The maker as what a ``DataLoader`` reads: the "index" is a plan."""

    def __init__(self, maker: SampleMaker) -> None:
        self._maker = maker

    def __getitem__(self, plan: BatchPlan) -> Made:
        return self._maker.make(plan)


def _start(maker: SampleMaker, plans: _Plans) -> DataLoader[Made]:
    return DataLoader(
        _Batches(maker),
        batch_size=None,
        sampler=plans,
        num_workers=maker.settings.workers,
        prefetch_factor=_PREFETCH,
        persistent_workers=True,
        multiprocessing_context=_context(),
        collate_fn=_unchanged,
        worker_init_fn=_leave_ctrl_c_to_the_run,
        # One of its own, for the loader draws a number that would move the global state of a run.
        generator=torch.Generator(),
    )


def _leave_ctrl_c_to_the_run(worker: int) -> None:
    """Ctrl-C reaches a whole group of processes; the run saves a checkpoint first and ends its workers itself."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The server imports torch once for all workers; it has an effect only before the server starts.
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _unchanged(batch: Made) -> Made:
    return batch

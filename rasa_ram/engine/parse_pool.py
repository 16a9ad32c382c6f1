"""Texts through worker processes in batches, in order, with little in memory at a time."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Generic, TypeVar

from rasa.errors import InputError, WorkerError

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # scikit-learn brings it; without it, OMP_NUM_THREADS=1 does the same
    threadpool_limits = None

Answer = TypeVar("Answer")
Work = Callable[[list[str]], Answer]

# Batches that wait for a worker, for each of them: enough that none waits for the reader of the file.
_AHEAD = 3


class BatchPool(Generic[Answer]):
    """Runs one function over batches of texts, here or in processes of its own.

    Args:
        build: Makes the function where it runs, once per process; must be picklable for several processes.
        processes: 1 works in this process.
        batch_size: Texts at once.

    Raises:
        InputError: If ``processes`` or ``batch_size`` is below 1.
    """

    def __init__(self, build: Callable[[], Work[Answer]], *, processes: int = 1, batch_size: int = 256) -> None:
        for name, value in (("processes", processes), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self._build, self._processes, self._batch_size = build, processes, batch_size
        self._work: Work[Answer] | None = None

    def run(self, texts: Iterable[str]) -> Iterator[Answer]:
        """One answer per batch, in the order of the batches.

        Raises:
            WorkerError: If a process dies.
        """
        batches = _batches(texts, self._batch_size)
        if self._processes > 1:
            yield from self._run_in_processes(batches)
            return
        if self._work is None:
            self._work = self._build()
        yield from map(self._work, batches)

    def _run_in_processes(self, batches: Iterator[list[str]]) -> Iterator[Answer]:
        # Forked threads of torch or tokenizers could hang; spawned processes know nothing of them.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            self._processes, mp_context=context, initializer=_start_worker, initargs=(self._build,)
        )
        running: deque[Future[Any]] = deque()
        try:
            for batch in batches:
                running.append(pool.submit(_do, batch))
                if len(running) > _AHEAD * self._processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a process that reads captions died, perhaps for want of memory; use fewer processes, and in a script "
                'call this below `if __name__ == "__main__":`'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    source = iter(texts)
    while batch := list(islice(source, size)):
        yield batch


_worker: dict[str, Any] = {}


def _start_worker(build: Callable[[], Work[Any]]) -> None:
    if threadpool_limits is not None:
        threadpool_limits(1)  # as many processes as there are cores leave no core for threads
    _worker["build"] = build


def _do(batch: list[str]) -> Any:
    # Not in the initializer, whose errors would come out as the death of a process.
    if "work" not in _worker:
        _worker["work"] = _worker["build"]()
    return _worker["work"](batch)

"""The engine on this machine: worker processes, replaced where they die."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from rasa.errors import RasaWarning, WorkerError
from rasa.labelling.board import Board, Outcome, Task
from rasa.labelling.messages import Failed, Moved, Ready, Warned
from rasa.labelling.progress import Counter
from rasa.labelling.recipe import Recipe
from rasa.labelling.worker import Settings

_PATIENCE_S = 5.0  # for a worker to remove its half-written file when it is told to stop
_LOADS = 3  # times that a worker may die while it loads its models
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker process ended."""

    how: str


@dataclass(eq=False)
class Worker:
    """A worker process, seen from the one that drives it.

    Attributes:
        number: Its place among the workers, which a replacement takes.
        process: The process.
        task: What it is at work on; None while it loads or waits.
        ready: Whether its models are loaded.
    """

    number: int
    process: subprocess.Popen[bytes]
    task: Task | None = None
    ready: bool = False

    def send(self, message: object) -> None:
        """Hand it a message; if it is gone, its end is reported elsewhere."""
        assert self.process.stdin is not None  # noqa: S101  (it was started with a pipe)
        with suppress(OSError):
            self.process.stdin.write(pickle.dumps(message))
            self.process.stdin.flush()

    def listen(self, events: SimpleQueue[tuple[Worker, Any]]) -> None:
        """Pass on what it sends, and at last how it ended."""
        assert self.process.stdout is not None  # noqa: S101
        with self.process.stdout as pipe, suppress(EOFError, pickle.UnpicklingError):
            while True:
                events.put((self, pickle.load(pipe)))  # noqa: S301  (from our own process)
        events.put((self, Gone(_ending(self.process.wait()))))

    def hang_up(self) -> None:
        """Send nothing more: a worker that waits or works ends at once, with no file half-written under its name."""
        assert self.process.stdin is not None  # noqa: S101
        with suppress(OSError):  # what was not sent, to a process that is gone
            self.process.stdin.close()

    def end(self) -> None:
        """Wait for its end, and insist on it."""
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.hang_up()


@dataclass(eq=False)
class LocalEngine:
    """Runs tasks in processes on this machine; a context manager that leaves none behind.

    Attributes:
        recipe: What every worker builds.
        workers: Number of processes.
        threads: Threads of each worker's models.
    """

    recipe: Recipe
    workers: int = 1
    threads: int = 1
    _all: list[Worker] = field(default_factory=list)
    _events: SimpleQueue[tuple[Worker, Any]] = field(default_factory=SimpleQueue)
    _listeners: list[threading.Thread] = field(default_factory=list)
    _loads_lost: int = 0
    _warned: set[str] = field(default_factory=set)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            if kind is None:
                worker.hang_up()
            else:
                worker.process.terminate()
        for worker in self._all:
            worker.end()
        for thread in self._listeners:
            thread.join(_PATIENCE_S)

    def provenance(self, *, shards: int) -> Mapping[str, Any]:
        """Of the pipeline, as the first worker has built it; the others are on their way then.

        Args:
            shards: No more workers than this are started.

        Raises:
            RasaError: If the pipeline cannot be built.
            WorkerError: If workers die while they build it.
        """
        for number in range(max(1, min(self.workers, shards))):
            self._start(number)
        while True:
            worker, message = self._events.get()
            if isinstance(message, Ready):
                worker.ready = True
                return dict(message.provenance)
            self._handle_idle(worker, message)

    def run(self, board: Board, settings: Settings, counter: Counter) -> None:
        """Work until the board is clear.

        Raises:
            OutputError: If a shard cannot be written.
            WorkerError: If workers die whatever they do.
        """
        for number in range(len(self._all), min(self.workers, board.waiting)):
            self._start(number)
        for worker in self._all:
            worker.send(settings)
        while board.is_open:
            for worker in self._all:
                if worker.ready and worker.task is None and (task := board.next()) is not None:
                    worker.task = task
                    worker.send(task)
            idle = any(worker.ready and worker.task is None for worker in self._all)
            try:
                worker, message = self._events.get(timeout=board.delay_s if idle else None)
            except Empty:
                continue
            self._handle(worker, message, board, counter)
            if isinstance(message, Gone):
                self._all[worker.number].send(settings)

    def _handle(self, worker: Worker, message: object, board: Board, counter: Counter) -> None:
        if isinstance(message, Moved):
            counter.move(worker.number, message.images)
        elif isinstance(message, Outcome) and worker.task is not None:
            task, worker.task = worker.task, None
            board.settle(task, message)
            counter.account(worker.number, task, message, note=board.note)
        elif isinstance(message, Gone) and worker.task is not None:
            counter.move(worker.number, 0)
            board.died(worker.task, message.how)
            self._start(worker.number)
        else:
            self._handle_idle(worker, message)

    def _handle_idle(self, worker: Worker, message: object) -> None:
        if isinstance(message, Ready):
            worker.ready, self._loads_lost = True, 0
        elif isinstance(message, Warned):
            if message.message not in self._warned:
                self._warned.add(message.message)
                warnings.warn(message.message, RasaWarning, stacklevel=2)
        elif isinstance(message, Failed):
            raise message.error
        elif isinstance(message, Gone):
            self._loads_lost += 1
            if self._loads_lost >= _LOADS:
                raise WorkerError(
                    f"{self._loads_lost} workers died while they loaded the models ({message.how}); is there memory "
                    "for them all? Try fewer workers"
                )
            self._start(worker.number)

    def _start(self, number: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rasa.labelling.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment(number),
            # Ctrl-C in a terminal goes to a whole group; this process alone is to hear it, and ends the workers.
            process_group=0 if os.name == "posix" else None,
        )
        worker = Worker(number, process)
        for former in self._all[number : number + 1]:
            former.end()
        self._all[number : number + 1] = [worker]
        worker.send(self.recipe)
        listener = threading.Thread(target=worker.listen, args=(self._events,), daemon=True, name="rasa-worker")
        listener.start()
        self._listeners.append(listener)

    def _environment(self, number: int) -> dict[str, str]:
        # The worker finds what this process can import, wherever both were started from.
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        return {**os.environ, **thread_settings(self.threads), **self._device(number), "PYTHONPATH": path}

    def _device(self, number: int) -> dict[str, str]:
        """One GPU a worker, in turn, where the configuration leaves open which."""
        device = (self.recipe.config or {}).get("device", "cpu")
        gpus = _gpus() if device in {"cuda", "auto"} and self.workers > 1 else []
        return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables that give the models of a process so many threads; read when a package is loaded."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; PyTorch is not imported to tell."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return [name for name in stated.split(",") if name]
    listing = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i, _ in enumerate(listing.iterdir())] if listing.is_dir() else []


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {-code}, {signal.Signals(-code).name}"
    return f"signal {-code}"

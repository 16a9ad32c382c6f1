"""The engine on a Ray cluster: actors that hold the models, one a GPU or core, and shards handed to them.

Plain actors and not Ray Data, which would retry a whole block for ever where one image kills its worker. All nodes
must see the folder of the dataset and the images under the same paths. Shards are written by the actors; what
travels is a few hundred bytes a shard.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rasa.errors import DependencyError, InputError, RasaError, RasaWarning, WorkerError
from rasa.labelling.board import Board, Outcome, Task
from rasa.labelling.fingerprint import fingerprint_of
from rasa.labelling.local import thread_settings
from rasa.labelling.progress import Counter
from rasa.labelling.recipe import Recipe
from rasa.labelling.worker import Labeller, Settings

try:
    import ray
    from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
except ImportError as error:
    raise DependencyError('engine "ray" needs the package "ray"; install the extra "ray"') from error

_PATIENCE_S = 60.0  # without any worker, before the user is told what the cluster has
_LOADS = 5  # actors in a row that may die while they load the models


class Actor:
    """Holds the pipeline; lives on a node of the cluster."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def build(self) -> tuple[Mapping[str, Any], str]:
        """Build the pipeline; gives its provenance, and the node that it is on."""
        # Not in the constructor, whose errors Ray reports without their type.
        self._labeller = Labeller(self._recipe)
        return self._labeller.provenance, ray.get_runtime_context().get_node_id()

    def label(self, task: Task, settings: Settings) -> Outcome:
        """As :meth:`rasa.labelling.worker.Labeller.label`."""
        return self._labeller.label(task, settings, moved=lambda images: None)


@dataclass(eq=False)
class _Worker:
    """An actor, its node once it is ready, and what it is at work on."""

    actor: Any
    node: str = ""
    task: Task | None = None


@dataclass(eq=False)
class RayEngine:
    """Runs tasks in actors of a Ray cluster; a context manager that leaves no actor behind.

    Attributes:
        recipe: What every actor builds.
        workers: Number of actors; those that find no place wait for one, and the others go on.
        threads: CPUs that an actor asks for, and threads of its models.
        address: Of the cluster; None starts one here, unless this process is connected to one.
    """

    recipe: Recipe
    workers: int = 1
    threads: int = 1
    address: str | None = None
    _is_ours: bool = False
    _waiting: dict[Any, _Worker] = field(default_factory=dict)
    _idle: list[_Worker] = field(default_factory=list)
    _fingerprint: str = ""
    _loads_lost: int = 0

    def __enter__(self) -> RayEngine:
        if ray.is_initialized():
            if self.address is not None:
                raise InputError("this process is connected to a Ray cluster already; leave address out to use it")
            return self
        # Nothing is reported to anybody by a cluster that rasa starts.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {} if self.address else {"include_dashboard": False, "num_cpus": self._cpus()}
        try:
            ray.init(address=self.address, log_to_driver=False, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerError(f"no Ray cluster at {self.address or 'this machine'}: {error}") from error
        self._is_ours = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._waiting.values(), *self._idle):
            with suppress(Exception):
                ray.kill(worker.actor)
        if self._is_ours:
            ray.shutdown()

    def provenance(self, *, shards: int) -> Mapping[str, Any]:
        """Of the pipeline, as the first actor has built it; the others are on their way then.

        Args:
            shards: No more actors than this are started.

        Raises:
            RasaError: If the pipeline cannot be built.
            WorkerError: If actors die while they build it.
        """
        for _ in range(max(1, min(self.workers, shards))):
            self._start()
        while not self._idle:
            for future in self._wait(None):
                worker = self._waiting.pop(future)
                try:
                    provenance, worker.node = _answer(future)
                except RayActorError as error:
                    self._lose_load(error)
                else:
                    self._check(worker, provenance)
                    self._idle.append(worker)
        return dict(provenance)

    def run(self, board: Board, settings: Settings, counter: Counter) -> None:
        """Work until the board is clear.

        Raises:
            OutputError: If a shard cannot be written.
            WorkerError: If actors die whatever they do, or another version of rasa runs on a node.
        """
        while board.is_open:
            while self._idle and (task := board.next()) is not None:
                worker = self._idle.pop()
                worker.task = task
                self._waiting[worker.actor.label.remote(task, settings)] = worker
            for future in self._wait(board.delay_s if self._idle else None):
                self._take(future, self._waiting.pop(future), board, counter)

    def _take(self, future: Any, worker: _Worker, board: Board, counter: Counter) -> None:
        task, worker.task = worker.task, None
        try:
            answer = _answer(future)
        except RayActorError as error:
            self._replace(worker, task, board, error)
            return
        self._idle.append(worker)
        if task is None:
            provenance, worker.node = answer
            self._check(worker, provenance)
            return
        board.settle(task, answer)
        counter.account(worker.node[:12], task, answer, note=board.note)

    def _replace(self, worker: _Worker, task: Task | None, board: Board, error: RayActorError) -> None:
        if task is None:
            self._lose_load(error)
            return
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        # A killed process is known to be dead at once; of a node that is gone nothing is known for half a minute.
        if isinstance(error, ActorUnavailableError) or worker.node not in alive:
            board.lost(task, "its node cannot be reached")
            with suppress(Exception):
                ray.kill(worker.actor)
        else:
            board.died(task, "its actor died")
        self._start()

    def _check(self, worker: _Worker, provenance: Mapping[str, Any]) -> None:
        self._loads_lost = 0
        fingerprint = fingerprint_of(provenance)
        self._fingerprint = self._fingerprint or fingerprint
        if fingerprint != self._fingerprint:
            raise WorkerError(f"node {worker.node} has another version of rasa or of the models; make them equal")

    def _lose_load(self, error: RayActorError) -> None:
        self._loads_lost += 1
        others = [worker for worker in (*self._idle, *self._waiting.values()) if worker.node]
        if self._loads_lost >= _LOADS and not others:
            raise WorkerError(f"{self._loads_lost} actors died while they loaded the models: {error}") from error
        self._start()

    def _wait(self, seconds: float | None) -> list[Any]:
        """Futures that are done; none after ``seconds``."""
        while True:
            if not self._waiting:
                return []
            done, _ = ray.wait(list(self._waiting), timeout=_PATIENCE_S if seconds is None else seconds)
            if done or seconds is not None:
                return list(done)
            if not self._idle and all(not worker.node for worker in self._waiting.values()):
                warnings.warn(
                    f"no worker has found a place or loaded its models for {_PATIENCE_S:.0f} s; each asks for "
                    f"{self._needs()}, and the cluster has {ray.cluster_resources()}",
                    RasaWarning,
                    stacklevel=2,
                )

    def _start(self) -> None:
        environment = {"env_vars": thread_settings(self.threads)}
        options = {**self._needs(), "max_restarts": 0, "runtime_env": environment}
        worker = _Worker(ray.remote(**options)(Actor).remote(self.recipe))
        self._waiting[worker.actor.build.remote()] = worker

    def _needs(self) -> dict[str, float]:
        device = str((self.recipe.config or {}).get("device", "cpu"))
        wants_gpu = device.startswith("cuda") or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        return {"num_cpus": self.threads, "num_gpus": 1 if wants_gpu else 0}

    def _cpus(self) -> int:
        # An actor that asks for more than there is would wait for ever.
        return max(os.cpu_count() or 1, self.workers * self.threads)


def _answer(future: Any) -> Any:
    """What an actor gave back.

    Raises:
        RayActorError: If it died.
        RasaError: If it raised one; a :class:`WorkerError` for any other.
    """
    try:
        return ray.get(future)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RasaError):
            raise cause from None
        raise WorkerError(f"a worker failed: {type(cause).__name__}: {cause}") from error

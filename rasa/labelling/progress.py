"""How far a run is, how fast it goes, and when it will be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasa.labelling.board import Outcome, Task

_WINDOW_S = 60.0  # the rate is that of the last minute: the first images wait for the models to load


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run.

    Attributes:
        total: Images that the run has to label, without those that were labelled before.
        done: How many of these are labelled, in shards that are finished or not yet.
        before: Images of the plan that an earlier run had labelled.
        failed: Images of finished shards of this run that have no result.
        per_second: Images a second over the last minute; 0 before the first.
        seconds_left: Estimate; None where nothing is known.
        state: ``"listing"`` the sources, ``"loading"`` the models, ``"labelling"``.
    """

    total: int = 0
    done: int = 0
    before: int = 0
    failed: int = 0
    per_second: float = 0.0
    seconds_left: float | None = None
    state: str = "labelling"


Watch = Callable[[Progress], None]


@dataclass(eq=False)
class Counter:
    """Counts images and tells ``watch``.

    Attributes:
        watch: Called on every change, from the thread that runs the engine; None for nobody.
        total: See :class:`Progress`.
        before: See :class:`Progress`.
        failed: See :class:`Progress`.
        finished: Images of finished shards of this run.
    """

    watch: Watch | None
    total: int = 0
    before: int = 0
    failed: int = 0
    finished: int = 0
    _under_way: dict[object, int] = field(default_factory=dict)
    _moments: deque[tuple[float, int]] = field(default_factory=deque)

    def say(self, state: str) -> None:
        """Tell what is going on before the first image."""
        if self.watch is not None:
            self.watch(Progress(total=self.total, before=self.before, state=state))

    def move(self, worker: object, images: int) -> None:
        """``worker`` has labelled so many images of its shard; 0 if it gave it up."""
        self._under_way[worker] = images
        self._tell()

    def account(self, worker: object, task: Task, outcome: Outcome, *, note: Callable[..., None]) -> None:
        """``worker`` has done ``task``; what became of a whole shard goes to ``note`` too."""
        self._under_way.pop(worker, None)
        if outcome.state in {"labelled", "there"}:
            self.finished += outcome.images
            self.failed += outcome.failed
            note(
                "shard", shard=task.shard.index, worker=str(worker), state=outcome.state, images=outcome.images,
                failed=outcome.failed, seconds=round(outcome.seconds, 3),
            )  # fmt: skip
            self._tell()

    def _tell(self) -> None:
        if self.watch is None:
            return
        done, now = self.finished + sum(self._under_way.values()), monotonic()
        self._moments.append((now, done))
        while now - self._moments[0][0] > _WINDOW_S:
            self._moments.popleft()
        then, before = self._moments[0]
        rate = max(0.0, (done - before) / (now - then)) if now > then else 0.0
        left = (self.total - done) / rate if rate else None
        self.watch(Progress(self.total, done, self.before, self.failed, rate, left))

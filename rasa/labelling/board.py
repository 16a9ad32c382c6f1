"""Which shard is done next, and what becomes of one whose worker died; the same for every engine."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from rasa.errors import WorkerError
from rasa.labelling.plan import Shard
from rasa.labelling.store import LabelledRow

# A shard is tried so often as a whole; then image by image, each as often, so that a poisonous image costs one row.
TRIES = 2
# So many deaths with nothing done in between are the fault of no image.
_MOST_DEATHS_IN_A_ROW = 24
_MOST_LOSSES = 8  # of machines at the same task, before the task is suspected
_ASK_AGAIN_S = 0.5  # for a shard that another run is at work on


@dataclass(frozen=True, slots=True)
class Died:
    """In place of the row of an image that no worker survived."""

    message: str


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given.

    Attributes:
        shard: The shard to label.
        row: Only the image at this position, whose row is given back and not written; None for all.
        known: Rows by position that are there already, found one by one; None where nothing is known.
    """

    shard: Shard
    row: int | None = None
    known: Mapping[int, LabelledRow | Died] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker gives back.

    Attributes:
        state: ``"labelled"``; ``"there"`` if another run had labelled the shard before; ``"taken"`` if another run is
            at work on it; ``"row"`` for a single image.
        images: Number of images labelled.
        failed: How many of these have no result.
        seconds: Wall time that it took.
        row: The single row; None otherwise.
    """

    state: Literal["labelled", "there", "taken", "row"]
    images: int = 0
    failed: int = 0
    seconds: float = 0.0
    row: LabelledRow | None = None


@dataclass(eq=False)
class Board:
    """The shards that are still to be labelled, in the order of the plan.

    Attributes:
        shards: All of them at the start.
        note: Told what happens: name of the event, and plain values.
    """

    shards: Iterable[Shard]
    note: Callable[..., None]
    _ready: deque[Task] = field(init=False)
    _taken: list[tuple[float, int, Task]] = field(init=False, default_factory=list)
    _out: int = field(init=False, default=0)
    _deaths: Counter[tuple[int, int | None]] = field(init=False, default_factory=Counter)
    _losses: Counter[tuple[int, int | None]] = field(init=False, default_factory=Counter)
    _pieces: dict[int, dict[int, LabelledRow | Died]] = field(init=False, default_factory=dict)
    _deaths_in_a_row: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._ready = deque(Task(shard) for shard in self.shards)

    @property
    def is_open(self) -> bool:
        """Whether anything is still to be done, or being done."""
        return bool(self._ready or self._taken or self._out)

    @property
    def waiting(self) -> int:
        """Number of tasks that nobody has."""
        return len(self._ready) + len(self._taken)

    @property
    def delay_s(self) -> float | None:
        """Seconds until a shard of another run is asked for again; None if there is none."""
        return max(0.0, self._taken[0][0] - monotonic()) if self._taken else None

    def next(self) -> Task | None:
        """The next task; None if there is none at present."""
        task = None
        if self._ready:
            task = self._ready.popleft()
        elif self._taken and self._taken[0][0] <= monotonic():
            task = heapq.heappop(self._taken)[2]
        self._out += task is not None
        return task

    def settle(self, task: Task, outcome: Outcome) -> None:
        """Take what a worker gave back."""
        self._out -= 1
        self._deaths_in_a_row = 0
        if outcome.state == "taken":
            heapq.heappush(self._taken, (monotonic() + _ASK_AGAIN_S, task.shard.index, task))
        elif outcome.row is not None:
            self._add_piece(task, outcome.row)

    def died(self, task: Task, how: str) -> None:
        """Take back what a worker died of.

        Raises:
            WorkerError: If workers die whatever they do.
        """
        self._out -= 1
        self._deaths_in_a_row += 1
        self.note("worker died", shard=task.shard.index, row=task.row, how=how)
        if self._deaths_in_a_row > _MOST_DEATHS_IN_A_ROW:
            raise WorkerError(
                f"{self._deaths_in_a_row} workers in a row died ({how}) with nothing done in between; look at the "
                "machine's log, and try fewer workers or a smaller batch_size"
            )
        self._deaths[task.shard.index, task.row] += 1
        if task.known is not None or self._deaths[task.shard.index, task.row] < TRIES:
            self._ready.appendleft(task)
        elif task.row is not None:
            self._add_piece(task, Died(f"the worker process died on this image ({how})"))
        else:
            self._take_apart(task.shard)

    def lost(self, task: Task, how: str) -> None:
        """Take back what a worker had when its machine went away, which is the fault of no image.

        Raises:
            WorkerError: If machines go away whatever is done.
        """
        self._losses[task.shard.index, task.row] += 1
        if self._losses[task.shard.index, task.row] > _MOST_LOSSES:
            self.died(task, how)
            return
        self._out -= 1
        self._ready.appendleft(task)
        self.note("worker lost", shard=task.shard.index, row=task.row, how=how)

    def _take_apart(self, shard: Shard) -> None:
        self.note("image by image", shard=shard.index)
        self._pieces[shard.index] = {}
        self._ready.extendleft(Task(shard, row=row) for row in reversed(range(shard.count)))

    def _add_piece(self, task: Task, row: LabelledRow | Died) -> None:
        pieces = self._pieces[task.shard.index]
        pieces[task.row or 0] = row
        if len(pieces) == task.shard.count:
            self._ready.appendleft(Task(task.shard, known=self._pieces.pop(task.shard.index)))

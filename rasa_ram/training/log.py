"""What a run reports while it goes on: one JSON object per line, and TensorBoard if asked."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rasa._files import write_atomically
from rasa.errors import DependencyError, OutputError

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as it was.

    Attributes:
        step: Steps done, this one included.
        steps: Steps of the whole run.
        epoch: Of this step, from 0.
        rate: Learning rate.
        losses: Of all processes, by name, ``total`` among them; mean over the batches of the step.
        grad_norm: Norm of the gradient before clipping.
        images_per_second: Of all processes, since the last line of the log.
        memory_gib: Most that this process has held, in GiB: on the GPU if it trains there.
    """

    step: int
    steps: int
    epoch: int
    rate: float
    losses: dict[str, float]
    grad_norm: float
    images_per_second: float
    memory_gib: float


class RunLog:
    """Writes ``log.jsonl`` of a run, one line per :class:`StepReport`.

    Args:
        out: The run's folder.
        step: Steps done before; lines of later ones, of a run that was killed, are dropped.
        tensorboard: Whether to write ``out/tensorboard`` too.

    Raises:
        DependencyError: If TensorBoard is asked for and not installed.
        OutputError: If the log cannot be written.
    """

    def __init__(self, out: Path, *, step: int, tensorboard: bool = False) -> None:
        self.path = out / LOG
        _cut(self.path, step)
        self._board = _open_board(out / "tensorboard", step) if tensorboard else None

    def write(self, report: StepReport) -> None:
        """Add a line.

        Raises:
            OutputError: If the log cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(report)) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; make room") from error
        if self._board is not None:
            numbers = {f"loss/{name}": value for name, value in report.losses.items()}
            numbers |= {
                "rate": report.rate,
                "grad_norm": report.grad_norm,
                "images_per_second": report.images_per_second,
            }
            for name, value in numbers.items():
                self._board.add_scalar(name, value, report.step)

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self._board is not None:
            self._board.close()


def memory_gib(device: torch.device) -> float:
    """Most memory that this process has held, in GiB: of the GPU, or of the main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # In KiB on Linux, in bytes on macOS (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that a killed run left unfinished is left out."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _cut(path: Path, step: int) -> None:
    kept = [line for line in read_log(path) if line["step"] <= step]
    with write_atomically(path, text=True, make_folder=True) as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (optional, and slow to import)
    except ImportError as error:
        raise DependencyError(
            'tensorboard = true needs the package "tensorboard"; install the extra "train"'
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)

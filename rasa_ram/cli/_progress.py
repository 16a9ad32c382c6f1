"""What a training shows while it runs: a bar on a terminal, and elsewhere a line every ten per cent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rasa.cli._console import say

if TYPE_CHECKING:
    from rasa_ram.training.log import StepReport


@contextmanager
def training_progress() -> Iterator[Callable[[StepReport], None] | None]:
    """Give what to call after each step; None in all processes of torchrun but the first."""
    if int(os.environ.get("RANK", "0")) != 0:
        yield None
        return
    if not sys.stderr.isatty():
        yield _say_tenths
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    now = TextColumn("{task.fields[now]}")
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), now)
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        task = bars.add_task("training", total=None, now="")
        yield lambda report: bars.update(task, completed=report.step, total=report.steps, now=_now(report))


def _say_tenths(report: StepReport) -> None:
    if report.step == report.steps or report.step * 10 // report.steps != (report.step - 1) * 10 // report.steps:
        say(f"step {report.step} of {report.steps}, {_now(report)}")


def _now(report: StepReport) -> str:
    return f"loss {report.losses['total']:.4g}, rate {report.rate:.3g}, {report.images_per_second:.1f} images/s"

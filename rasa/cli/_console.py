"""What all commands share: one-line failures and warnings, tables, and text that any terminal can show.

rich is imported where something is drawn with it: it takes about 0.1 s.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import typer

from rasa.errors import RasaError, RasaWarning

if TYPE_CHECKING:
    from rich.progress import TaskID

_PIPE_WIDTH = 200  # columns; a file or a pipe has no width of its own, and 80 would fold most rows
_JOINERS = "\u200c\u200d"  # invisible, and part of words in Persian and Hindi and of emoji


class ReaderGoneError(Exception):
    """Whoever read stdout has gone, as ``head`` does when it has enough.

    Not an ``OSError``, which the writer of results.jsonl would take for a trouble of its own.
    """


def printable(text: str) -> str:
    """``text`` on one line, with what a terminal would obey or refuse written as an escape."""
    return "".join(sign if sign.isprintable() or sign in _JOINERS else ascii(sign)[1:-1] for sign in text)


def say(message: str) -> None:
    """Print one line on stderr."""
    encoding = sys.stderr.encoding or "utf-8"
    typer.echo(printable(message).encode(encoding, "backslashreplace").decode(encoding), err=True)


def emit(line: str) -> None:
    """Print one line on stdout, in UTF-8 whatever the terminal uses, and at once.

    Raises:
        ReaderGoneError: If nobody reads it any more.
    """
    try:
        typer.echo(line.encode("utf-8"))
    except BrokenPipeError as error:
        raise ReaderGoneError from error


@contextmanager
def one_line_failures(*, debug: bool) -> Iterator[None]:
    """Turn an expected failure into one line and exit code 1; ``debug`` shows its traceback instead."""
    try:
        yield
    except RasaError as error:
        if debug:
            raise
        say(f"error: {error}")
        raise typer.Exit(1) from error
    except (BrokenPipeError, ReaderGoneError) as error:
        # Nothing is left to say, also not at shutdown, when Python flushes stdout once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        say("interrupted")
        raise typer.Exit(130) from error


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show a :class:`rasa.errors.RasaWarning` as one line on stderr, without its place in the source."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, RasaWarning):
                say(f"warning: {message}")
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Print a table on stdout; cells are plain text, never markup.

    Args:
        columns: Their titles; the first holds names, and is never folded.
        rows: One cell per column.
        whole: Other columns that are never folded.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # a name that is cut short cannot be copied
        column.no_wrap = column.header in (columns[0], *whole)
    for row in rows:
        table.add_row(*(Text("\n".join(printable(line) for line in cell.split("\n"))) for cell in row))
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    Console(file=sys.stdout, highlight=False, width=wide).print(table)


@contextmanager
def count_progress(total: int, *, what: str) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, if that is a terminal; call what it gives once per item done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    # stdout is for results and stays itself; rich would send it through the bar's console, which is stderr.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)


@contextmanager
def fetch_progress(*, passing: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for every file that is fetched; give what it yields to ``rasa.weights.fetch``.

    Args:
        passing: Whether the bars go when the files are there, and stay away where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    quiet = passing and not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=passing, disable=quiet) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield report


def fetch_weights(names: Sequence[str]) -> None:
    """Fetch those of the checkpoints that are not in the cache, with a bar each on stderr.

    Raises:
        WeightsError: If one cannot be had.
    """
    from rasa.weights import checkpoints, fetch, find

    for checkpoint in [checkpoints()[name] for name in names if find(name) is None]:
        say(f"fetching {checkpoint.name}, {checkpoint.size / 1e6:.0f} MB ({checkpoint.license})")
        with fetch_progress(passing=True) as report:
            fetch(checkpoint, progress=report)

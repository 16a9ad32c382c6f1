"""``rasa label``: any number of images to a dataset that can be continued, exported and looked at."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Annotated, Any

import typer

from rasa.cli._console import say
from rasa.cli._options import with_config_options
from rasa.cli.run import fetch_missing
from rasa.errors import FailedImagesError
from rasa.labelling.dataset import Dataset, open_dataset
from rasa.labelling.label import label as label_images
from rasa.labelling.plan import SHARD_SIZE
from rasa.labelling.progress import Progress, Watch
from rasa.labelling.runs import read_runs
from rasa.labelling.store import labels_file
from rasa.labelling.tables import read_table
from rasa.loading import load_config

app = typer.Typer()

_SHOWN = 5  # failed images that are named; the dataset has them all


class Engine(StrEnum):
    """Where the workers run."""

    LOCAL = "local"
    RAY = "ray"


@app.command()
@with_config_options
def label(
    sources: Annotated[
        list[str],  # a Path would make s3:/ of s3://
        typer.Argument(
            help="Photos, folders, patterns in quotes, manifests (CSV, JSON Lines, Parquet), tar and zip archives, "
            "videos, addresses (https://, s3://, gs://).",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the dataset; made, or continued.")],
    preset: Annotated[str, typer.Option(help="See `rasa presets`; or a TOML file.")] = "lite",
    pipeline: Annotated[
        str | None, typer.Option(help="In place of a preset: package.module:function, which gives a rasa.Pipeline.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that label; one a GPU, or one a core.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the models in each of them.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that go through the models together.")] = 8,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Photos a shard: the most that is done again after a crash.")
    ] = SHARD_SIZE,
    every: Annotated[int | None, typer.Option(min=1, help="Take every n-th frame of a video.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Take a frame of a video every so many seconds.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do the photos again that failed before.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if any photo has no labels.")] = False,
    engine: Annotated[Engine, typer.Option(help="Processes here, or the actors of a Ray cluster.")] = Engine.LOCAL,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; else one is started here.")] = None,
    overrides: dict[str, Any],
) -> None:
    """Label any number of photos into a dataset.

    Run it again to continue: what is labelled is never labelled twice. With other thresholds or models it labels anew
    and keeps the old labels. A photo that cannot be read or labelled gets a row that says why. Exits with 0 when all
    is done, with 3 if a photo failed and --strict is given, with 1 if it could not go on; after Ctrl-C or SIGTERM
    (130), finished shards are kept.
    """
    if pipeline is None:
        fetch_missing(load_config(preset, **overrides))
    start = perf_counter()
    try:
        with _terminated_as_interrupted(), _drawn(out) as watch:
            dataset = label_images(
                sources, out, preset=preset, pipeline=pipeline, workers=workers, threads=threads,
                batch_size=batch_size, shard_size=shard_size, every=every, seconds=seconds,
                retry_failed=retry_failed, strict=strict, engine=engine.value, address=address, watch=watch,
                **overrides,
            )  # fmt: skip
    except KeyboardInterrupt as error:
        say(f"interrupted; finished shards are kept in {out}, and the same command continues")
        raise typer.Exit(130) from error
    except FailedImagesError as error:
        _report(open_dataset(out), perf_counter() - start)
        say(f"error: {error}")
        raise typer.Exit(3) from error
    _report(dataset, perf_counter() - start)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


@contextmanager
def _drawn(out: Path) -> Iterator[Watch]:
    """What draws the progress on stderr, if that is a terminal; else it says one line at the start."""
    if not sys.stderr.isatty():
        yield lambda progress: _announce(progress, out)
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (*Bars.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("listing", total=None, rate="")

        def draw(progress: Progress) -> None:
            _announce(progress, out)
            rate = f"{progress.per_second:.1f}/s" if progress.per_second else ""
            text = f"{progress.state}, {progress.failed} failed" if progress.failed else progress.state
            bars.update(task, description=text, completed=progress.done, total=progress.total or None, rate=rate)

        yield draw


def _announce(progress: Progress, out: Path) -> None:
    if progress.state != "labelling" or progress.done:
        return
    kept = list(read_runs(out).runs)[:-1]
    if progress.before:
        say(f"continuing: {progress.before} photos are labelled already, {progress.total} are left")
    elif kept:
        say(f"labelling {progress.total} photos anew; the labels of earlier runs are kept: {', '.join(kept)}")


def _report(dataset: Dataset, seconds: float) -> None:
    counts = dataset.counts
    kinds, shown = _failures(dataset) if counts.failed else (Counter[str](), [])
    for path, message in shown:
        say(f"failed: {path}: {message}")
    if counts.failed > len(shown):
        say(f"... and {counts.failed - len(shown)} more, whose labels say why under error_message")
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    failed = f", {counts.failed} failed ({listed})" if kinds else ""
    again = f", {counts.duplicates} duplicates left out" if counts.duplicates else ""
    say(
        f"{counts.ok} of {counts.planned} photos are labelled{failed}{again}; {seconds:.1f} s; "
        f"run {dataset.fingerprint} in {dataset.folder}"
    )


def _failures(dataset: Dataset) -> tuple[Counter[str], list[tuple[str, str]]]:
    kinds: Counter[str] = Counter()
    shown: list[tuple[str, str]] = []
    columns = ["path", "error_kind", "error_message"]
    for shard in dataset.shards():
        table = read_table(labels_file(dataset.folder, dataset.fingerprint, shard), columns)
        for row in table.filter(table["error_kind"].is_valid()).to_pylist():
            kinds[row["error_kind"]] += 1
            if len(shown) < _SHOWN:
                shown.append((row["path"], row["error_message"]))
    return kinds, shown

"""``rasa report``: a labelled dataset as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rasa.cli._console import say

app = typer.Typer()


@app.command()
def report(
    dataset: Annotated[Path, typer.Argument(help="What `rasa label` wrote.", show_default=False)],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; DATASET/report.html unless given.", show_default=False)
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=60, help="Pictures a tag: best, worst and random ones; 0 for none.")
    ] = 12,
    seed: Annotated[int, typer.Option(help="Decides which are random.")] = 0,
    run: Annotated[
        str | None, typer.Option(help="Fingerprint of a run, or its first digits; the current one unless given.")
    ] = None,
) -> None:
    """Write a page about a labelled dataset.

    One HTML file that fetches nothing: counts, scores, sizes, tags that come together, balance, errors, duplicates,
    time per stage, and annotated samples of every tag. An earlier report is replaced.
    """
    from rasa.labelling.dataset import open_dataset
    from rasa.labelling.report import write_report

    written = write_report(
        open_dataset(dataset, run=run), dataset / "report.html" if out is None else out, samples=samples, seed=seed
    )
    if written.unreadable:
        say(f"warning: {written.unreadable} photos of the samples have moved or changed; their places are empty")
    say(f"{written.images} images, {written.pictures} pictures, {written.bytes / 1e6:.1f} MB")
    typer.echo(written.path)

"""``rasa formats``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from rasa.cli._console import print_table
from rasa.formats import FORMATS, Format

app = typer.Typer()


@app.command()
def list_formats(*, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the dataset formats and what each holds.

    What a format cannot hold is counted when `rasa export` writes it. Masks are exact, or outlines that may lose
    some pixels: then the object that lost most is named.
    """
    if as_json:
        typer.echo(json.dumps([_to_dict(entry) for entry in FORMATS.values()], indent=2))
        return
    columns = ("format", "what it is", "images", "boxes", "masks", "scores", "tags")
    print_table(columns, [_row(entry) for entry in FORMATS.values()])


def _row(entry: Format) -> tuple[str, ...]:
    images, boxes, scores = ("yes" if held else "" for held in (entry.images, entry.boxes, entry.scores))
    return entry.name, entry.summary, images, boxes, entry.masks, scores, entry.tags


def _to_dict(entry: Format) -> dict[str, object]:
    held = ("name", "summary", "images", "boxes", "masks", "scores", "tags", "of_tags")
    return {name: value for name, value in asdict(entry).items() if name in held}

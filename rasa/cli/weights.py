"""``rasa weights``: what rasa has fetched, and what it can fetch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from rasa import weights
from rasa._suggest import did_you_mean
from rasa.cli._console import print_table, say
from rasa.config import presets
from rasa.errors import UnknownModelError, WeightsError
from rasa.loading import preset_checkpoints
from rasa.registry import models
from rasa.weights import Checkpoint

app = typer.Typer(help="List, fetch and check the weights of models.", no_args_is_help=True, add_completion=False)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_(*, as_json: _Json = False) -> None:
    """Show all known weight files: licence, size, use, and whether they are cached."""
    rows = [_row(checkpoint) for checkpoint in weights.checkpoints().values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = [
        (row["name"], row["license"], f"{row['size'] / 1e6:.0f}", _cached(row), "\n".join(row["used_by"]))
        for row in rows
    ]
    print_table(("weights", "licence", "MB", "cached", "used by"), cells)
    say(f"cache folder: {weights.cache_folder()}")


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME|PRESET...", help="Weight files, or presets.")],
    *,
    as_json: _Json = False,
) -> None:
    """Fetch weight files into the cache; those that are there stay."""
    wanted = dict.fromkeys(name for given in names for name in _expand(given))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        report = _Report(bars)
        paths = {name: str(weights.fetch(name, progress=report)) for name in wanted}
    _print_paths(paths, as_json=as_json)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Else all that are cached.")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Hash cached weight files anew and compare."""
    cached = [name for name, checkpoint in weights.checkpoints().items() if checkpoint.path.exists()]
    paths = {name: str(weights.verify(name)) for name in names or cached}
    _print_paths(paths, as_json=as_json)
    say(f"{len(paths)} right")


@app.command()
def path(name: Annotated[str, typer.Argument(help="A weight file.")]) -> None:
    """Print where a cached weight file lies."""
    found = weights.find(name)
    if found is None:
        raise WeightsError(
            f'checkpoint "{name}" is not in the cache, or not intact; fetch it with `rasa weights fetch {name}`'
        )
    typer.echo(str(found))


class _Report:
    """Draws one bar per file, from the first byte on."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done)


def _row(checkpoint: Checkpoint) -> dict[str, Any]:
    found = weights.find(checkpoint)
    return {
        "name": checkpoint.name,
        "license": checkpoint.license,
        "size": checkpoint.size,
        "sha256": checkpoint.sha256,
        "path": None if found is None else str(found),
        "used_by": _used_by(checkpoint.name),
        "origin": checkpoint.origin,
        "note": checkpoint.note,
        "distribution": f"{checkpoint.source.distribution}=={checkpoint.source.version}",
    }


def _cached(row: Mapping[str, Any]) -> str:
    return "yes" if row["path"] else "no"


def _used_by(name: str) -> list[str]:
    return [model.name for model in models().values() if name in (*model.checkpoints, *model.fallbacks)]


def _expand(name: str) -> tuple[str, ...]:
    known = weights.checkpoints()
    if name in known:
        return (name,)
    if name in presets():
        return preset_checkpoints(name)
    hint = did_you_mean(name, [*known, *presets()])
    raise UnknownModelError(
        f'"{name}" is neither a weight file nor a preset{hint} (`rasa weights list` and `rasa presets` show all)'
    )


def _print_paths(paths: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(paths, indent=2))
        return
    for name, where in paths.items():
        typer.echo(f"{name}\t{where}")

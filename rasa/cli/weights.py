"""``rasa weights``: what rasa has fetched, and what it can fetch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rasa import weights
from rasa._suggest import did_you_mean
from rasa.cli._console import fetch_progress, print_table, say
from rasa.config import presets
from rasa.errors import DependencyError, UnknownModelError, WeightsError
from rasa.loading import preset_checkpoints
from rasa.registry import models
from rasa.weights import Checkpoint

app = typer.Typer(help="List, fetch and check the weights of models.", no_args_is_help=True, add_completion=False)

_KINDS = {"wheel": 0, "hub": 1, "url": 2}  # their order in the table

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_(*, as_json: _Json = False) -> None:
    """Show all known weight files: licence, size, use, and whether they are cached.

    From: a wheel on the package index, the model hub, or a plain address (url). Checked: whether rasa's authors fetched
    the file from there and found the sha256 that a fetch insists on; for the others it is as others wrote it down.
    """
    rows = sorted(
        (_row(checkpoint) for checkpoint in weights.checkpoints().values()), key=lambda row: _KINDS[row["kind"]]
    )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ("weights", "from", "licence", "MB", "checked", "cached", "used by")
    print_table(columns, [_cells(row) for row in rows], whole=("used by",))
    say(f"cache folder: {weights.cache_folder()}")


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME|PRESET...", help="Weight files, or presets.")],
    *,
    as_json: _Json = False,
) -> None:
    """Fetch weight files into the cache; those that are there stay."""
    wanted = dict.fromkeys(name for given in names for name in _expand(given))
    with fetch_progress(passing=False) as report:
        paths = {name: str(weights.fetch(name, progress=report)) for name in wanted}
    _print_paths(paths, as_json=as_json)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Else all that are cached.")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Hash weight files anew, in the cache and in RASA_WEIGHTS, and compare."""
    cached = [name for name in weights.checkpoints() if weights.locate(name) is not None]
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


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pth, a state dict, or a slim file.")],
    dest: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    *,
    model: Annotated[str | None, typer.Option(help="Such as ram-swin-l.14m; else the file is asked.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of keys not needed; may be repeated.")] = None,
) -> None:
    """Convert weights of RAM, RAM++ or Tag2Text to a slim safetensors file."""
    # rasa knows its sister package as text, as the registry does.
    try:
        converter = importlib.import_module("rasa_ram.cli.convert")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise DependencyError(f'converting weights needs the package "{package}"; install the extra "ram"') from error
    converter.convert(source, dest, model=model, ignore=ignore)


def _row(checkpoint: Checkpoint) -> dict[str, Any]:
    found = weights.find(checkpoint)
    return {
        "name": checkpoint.name,
        "kind": checkpoint.source.kind,
        "source": checkpoint.source.place,
        "license": checkpoint.license,
        "size": checkpoint.size,
        "sha256": checkpoint.sha256,
        "checked": checkpoint.checked,
        "path": None if found is None else str(found),
        "used_by": _used_by(checkpoint.name),
        "origin": checkpoint.origin,
        "note": checkpoint.note,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    size = row["size"] / 1e6
    megabytes = f"{size:.0f}" if size >= 10 else f"{size:.2f}"
    flags = ("yes" if row[key] else "no" for key in ("checked", "path"))
    return (row["name"], row["kind"], row["license"], megabytes, *flags, "\n".join(row["used_by"]))


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

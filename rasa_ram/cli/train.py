"""``rasa-ram train``: a recipe to a trained model; alone, or once per process under torchrun."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rasa.cli._console import emit, print_table, say
from rasa.errors import ConfigError

if TYPE_CHECKING:
    from rasa_ram.training.config import TrainConfig
    from rasa_ram.training.loop import RunReport
    from rasa_ram.training.plan import Plan

app = typer.Typer(add_completion=False)

_GIB = 2**30


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see --list) or a .toml file; with --resume, the run's own.")
    ] = None,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key, such as run.epochs=3; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what the run's folder holds.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show the built-in recipes.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the merged recipe, every default included.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count weights, memory, steps; train nothing.")] = False,
    records: Annotated[int | None, typer.Option(min=1, help="For --dry-run without the data: how many.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="For --dry-run: processes that will train together.")] = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="For --dry-run: of all processes, to tell the hours.")
    ] = None,
    probe: Annotated[
        int | None, typer.Option(min=1, help="For --dry-run: measure the speed over so many steps.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the dry run or the result as JSON.")] = False,
) -> None:
    """Train RAM, RAM++ or Tag2Text by a recipe."""
    from rasa_ram.training import config as recipes

    if listing:
        print_table(("recipe", "trains"), list(recipes.recipes().items()))
        return
    config = recipes.load_recipe(_recipe(recipe, out=out, resume=resume), settings or ())
    if show:
        emit(recipes.config_text(config).rstrip("\n"))
    elif dry_run:
        speed = _measured(config, probe) if probe is not None else images_per_second
        _show_plan(config, records=records, processes=gpus or _processes(), speed=speed, as_json=json_output)
    else:
        _refuse_idle(records=records, gpus=gpus, images_per_second=images_per_second, probe=probe)
        _run(config, out, resume=resume, as_json=json_output)


def _recipe(recipe: str | None, *, out: Path | None, resume: bool) -> str:
    from rasa_ram.training.config import RECIPE

    if recipe is not None:
        return recipe
    if resume and out is not None:
        return str(out / RECIPE)
    raise typer.BadParameter("name a recipe; `rasa-ram train --list` shows the built-in ones", param_hint="RECIPE")


def _refuse_idle(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter("has no effect without --dry-run", param_hint=f"--{name.replace('_', '-')}")


def _run(config: TrainConfig, out: Path | None, *, resume: bool, as_json: bool) -> None:
    from rasa_ram.cli._progress import training_progress
    from rasa_ram.training.run import prepare

    if out is None:
        raise typer.BadParameter("name the run's folder", param_hint="--out")
    with training_progress() as progress:
        training = prepare(config, out=out, resume=resume, progress=progress)
        if training.main:
            for line in training.start.summary():
                say(line)
        report = training.run()
    if training.main:
        _show_report(report, training.source.bad.counts, as_json=as_json)
    if report.interrupted:
        raise typer.Exit(130)


def _show_report(report: RunReport, bad: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(report).items()}
        emit(json.dumps({**plain, "left_out": dict(bad)}))
        return
    for kind, count in bad.items():
        say(f"{count} samples were left out for their {kind}")
    losses = ", ".join(f"{name} {value:.4g}" for name, value in report.losses.items())
    say(f"{report.steps} steps, {report.images_per_second:.1f} images/s{f'; {losses}' if losses else ''}")
    if report.interrupted:
        say("interrupted; go on with --resume")
    emit(str(report.weights or report.checkpoint))


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _measured(config: TrainConfig, steps: int) -> float:
    from rasa_ram.training.run import measure_speed, prepare

    if _processes() != 1:
        raise ConfigError("--probe measures one process; run it without torchrun and multiply")
    with tempfile.TemporaryDirectory() as folder:
        return measure_speed(prepare(config, out=Path(folder)), steps=steps)


def _show_plan(config: TrainConfig, *, records: int | None, processes: int, speed: float | None, as_json: bool) -> None:
    from rasa_ram.training.plan import make_plan

    plan = make_plan(config, processes=processes, records=records, images_per_second=speed)
    if as_json:
        emit(json.dumps(asdict(plan) | {"memory_total": plan.memory.total}))
        return
    rows = [(name, f"{part.trained:,}", f"{part.frozen:,}") for name, part in plan.parts.items()]
    print_table(("part", "trained", "frozen"), [*rows, ("all", f"{plan.trained:,}", f"{plan.frozen:,}")])
    held = [(name, f"{size / _GIB:.2f} GiB") for name, size in asdict(plan.memory).items() if size]
    print_table(("memory of a process", "estimate"), [*held, ("all", f"{plan.memory.total / _GIB:.2f} GiB")])
    print_table(("run", ""), _run_rows(plan))
    for note in plan.notes:
        say(f"note: {note}")


def _run_rows(plan: Plan) -> list[tuple[str, str]]:
    rows = [
        ("records", f"{plan.records:,}"),
        ("images of a step", f"{plan.effective_batch:,}"),
        ("steps of an epoch", f"{plan.steps_per_epoch:,}"),
        ("steps", f"{plan.steps:,}"),
        ("image tokens", f"{plan.image_tokens:.3g}"),
    ]
    rows += [("text tokens, at most", f"{plan.text_tokens:.3g}")] if plan.text_tokens else []
    if plan.hours is not None:
        rows += [("images/s", f"{plan.images_per_second:.4g}"), ("hours", f"{plan.hours:.4g}")]
    return rows

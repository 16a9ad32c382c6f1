"""``rasa presets``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rasa.cli._console import print_table
from rasa.cli._needs import Needs, needs
from rasa.cli._readiness import Readiness, readiness
from rasa.config import PipelineConfig, load_preset_config, presets

app = typer.Typer()


@app.command()
def list_presets(*, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the presets and whether they can run here.

    A preset is a TOML file; `rasa run --preset my.toml` takes one of your own.
    """
    configs = {name: load_preset_config(name) for name in presets()}
    states = {name: readiness(config.models) for name, config in configs.items()}
    if as_json:
        entries = [
            {"name": name, **config.to_dict(), **states[name].to_dict(name), **needs(config).to_dict()}
            for name, config in configs.items()
        ]
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [_row(name, config, states[name], needs(config)) for name, config in configs.items()]
    print_table(("preset", "what for", "models", "GB", "licences of the weights", "ready"), rows)


def _row(name: str, config: PipelineConfig, state: Readiness, takes: Needs) -> tuple[str, ...]:
    ready = "\n".join(["yes" if state.ready else "no", *state.cures(name)])
    size = f"{takes.fetch_bytes / 10**9:.2f}"
    return name, config.summary, "\n".join(config.models), size, "\n".join(takes.licenses), ready

"""``rasa models``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from rasa.cli._console import print_table
from rasa.cli._readiness import readiness
from rasa.registry import Model, models
from rasa.weights import checkpoints

app = typer.Typer()


@app.command()
def list_models(*, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the models and whether they can run here.

    Models come with rasa, or from other distributions through the entry point group `rasa.models`.
    """
    entries = list(models().values())
    if as_json:
        typer.echo(json.dumps([_to_dict(model) for model in entries], indent=2))
        return
    rows = []
    for model in entries:
        state = readiness([model])
        verdict = "\n".join(["yes" if state.ready else "no", *state.cures()])
        rows.append((model.name, model.role, model.summary, model.extra or "", verdict))
    print_table(("model", "role", "what it is", "extra", "ready"), rows)


def _to_dict(model: Model) -> dict[str, Any]:
    known = checkpoints()
    names = (*model.checkpoints, *model.fallbacks)
    return {
        "name": model.name,
        "role": model.role,
        "summary": model.summary,
        "extra": model.extra,
        "packages": list(model.packages),
        "checkpoints": {name: known[name].license if name in known else None for name in names},
        "folder": None if model.folder is None else asdict(model.folder),
        **readiness([model]).to_dict(),
    }

"""``rasa weights convert``: published weights of RAM, RAM++ or Tag2Text as a slim safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rasa.cli._console import emit, say

app = typer.Typer(add_completion=False)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pth, a state dict, or a slim file.")],
    dest: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    *,
    model: Annotated[
        str | None, typer.Option(help="Name of the model, such as ram-swin-l.14m; else the file is asked.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Pattern of keys known not to be needed; may be repeated.")
    ] = None,
) -> None:
    """Convert weights of RAM, RAM++ or Tag2Text to a slim safetensors file."""
    from rasa_ram.checkpoint import convert_file

    written = convert_file(source, dest, model, ignore=ignore or ())
    say(f"{_megabytes(source)} MB in, {_megabytes(written)} MB out")
    emit(str(written))


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f}"

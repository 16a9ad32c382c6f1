"""``rasa-ram toy``: the data set of the paper in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rasa.cli._console import emit

app = typer.Typer(add_completion=False)


@app.command()
def toy(
    folder: Annotated[Path, typer.Argument(help="Gets images, manifests, vocabulary, first weights and recipe.")],
    *,
    scenes: Annotated[int, typer.Option(min=16, help="Scenes of training.")] = 14_000,
    held_out: Annotated[int, typer.Option(min=1, help="Scenes for evaluation.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights.")] = 0,
) -> None:
    """Draw a small data set to train on.

    Its scenes hold objects of 12 shapes and 12 colours, with 225 tags and captions.
    """
    from rasa_ram.sentence_encoder import load_sentence_encoder
    from rasa_ram.toy.folder import write_toy_folder

    recipe = write_toy_folder(folder, load_sentence_encoder(), scenes=scenes, held_out=held_out, seed=seed)
    emit(str(recipe))

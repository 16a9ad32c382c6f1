"""The command line of training and the data engine: ``rasa-ram COMMAND``.

The modules here with a Typer called ``app`` are its commands, and some of them commands of ``rasa``, which knows them
as text. As there, a command's module is imported when it runs.
"""

from __future__ import annotations

from typing import Any, cast

from rasa.cli._lazy import lazy_app

COMMANDS = {
    "train": ("rasa_ram.cli.train", "Train RAM, RAM++ or Tag2Text by a recipe."),
    "finetune": ("rasa_ram.cli.finetune", "Teach a model your own tags."),
    "data": ("rasa_ram.cli.data", "Convert, check and shard training data."),
    "parse": ("rasa_ram.cli.parse", "Parse captions into tags."),
    "labels": ("rasa_ram.cli.labels", "Build a label system from captions."),
    "generate": ("rasa_ram.cli.generate", "Add captions and tags that a trained model generates."),
    "clean": ("rasa_ram.cli.clean", "Take wrong tags out of a training set."),
    "toy": (
        "rasa_ram.cli.toy",
        "Draw a small data set to train on.",
    ),
    "evaluate": ("rasa_ram.cli.evaluate", "Evaluate taggers on the benchmarks of the papers."),
}

app = lazy_app("rasa-ram", COMMANDS, summary="Recognize Anything: data, training, fine-tuning and evaluation.")


def main() -> None:
    """Run the command line; the entry point of ``rasa-ram``."""
    cast("Any", app)(prog_name="rasa-ram")

"""The command line: ``rasa COMMAND``.

The module of a command is imported when that command runs, so that ``rasa --help``
does not pay for NumPy, let alone for a model. STYLE gives the exit codes: 0, 1 for an
expected failure (one line, no traceback), 2 for bad usage; and 130 after Ctrl-C.
"""

from __future__ import annotations

from typing import Any, cast

from rasa.cli._lazy import lazy_app

# Module with a Typer called `app`, and the first sentence of its help, which a test compares with the real one.
COMMANDS = {
    "run": ("rasa.cli.run", "Tag, detect and segment photos."),
    "label": ("rasa.cli.label", "Label any number of photos into a dataset."),
    "report": ("rasa.cli.report", "Write a page about a labelled dataset."),
    "export": ("rasa.cli.export", "Write a labelled dataset in the formats of other tools."),
    "check": ("rasa.cli.check", "Ask the tagger about each box of a labelled dataset."),
    "tune": ("rasa_ram.cli.tune", "Choose a threshold for each tag on labelled photos."),
    "formats": ("rasa.cli.formats", "List the dataset formats and what each holds."),
    "presets": ("rasa.cli.presets", "List the presets and whether they can run here."),
    "models": ("rasa.cli.models", "List the models and whether they can run here."),
    "weights": ("rasa.cli.weights", "List, fetch and check the weights of models."),
    "doctor": ("rasa.cli.doctor", "Say what is installed and which presets can run here."),
}

app = lazy_app("rasa", COMMANDS, summary="Recognise anything, segment anything: photos to tags, boxes and masks.")


def main() -> None:
    """Run the command line; the entry point of ``rasa``."""
    cast("Any", app)(prog_name="rasa")

"""The command line: ``rasa COMMAND``.

The module of a command is imported when that command runs, so that ``rasa --help``
does not pay for NumPy, let alone for a model. STYLE gives the exit codes: 0, 1 for an
expected failure (one line, no traceback), 2 for bad usage; and 130 after Ctrl-C.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from rasa._version import __version__
from rasa.cli._console import one_line_failures, one_line_warnings

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


class _LazyGroup(TyperGroup):
    """A group that knows the help line of each command, and imports the one that runs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = _import_command(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with one_line_warnings(), one_line_failures(debug=ctx.params.get("debug", False)):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_LazyGroup,
    name="rasa",
    no_args_is_help=True,
    # The boxes that rich draws around this help would take longer to import than all else together.
    rich_markup_mode=None,
    # A traceback is for who asked for it, and then a plain one: it can be pasted into an issue.
    pretty_exceptions_enable=False,
)


def _import_command(name: str) -> Any:
    group = typer.main.get_group(import_module(COMMANDS[name][0]).app)
    command = group if len(group.commands) > 1 else next(iter(group.commands.values()))
    command.name = name
    for part in (command, *getattr(command, "commands", {}).values()):
        part.rich_markup_mode = None
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rasa {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="RASA_DEBUG", help="Show the traceback of a failure.")
    ] = False,
) -> None:
    """Recognise anything, segment anything: photos to tags, boxes and masks."""


def main() -> None:
    """Run the command line; the entry point of ``rasa``."""
    cast("Any", app)(prog_name="rasa")

"""A group of commands whose modules are imported when they run: what ``rasa`` and ``rasa-ram`` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rasa._version import __version__
from rasa.cli._console import one_line_failures, one_line_warnings

# Command -> module with a Typer called `app`, and the first sentence of its help, which a test compares with the real.
Commands = Mapping[str, tuple[str, str]]


def lazy_app(name: str, commands: Commands, *, summary: str) -> typer.Typer:
    """Make the command line ``name``, which knows the help line of each command, and imports the one that runs.

    It has the options ``--version`` and ``--debug``, and shows failures and warnings of rasa as one line each.

    Args:
        name: Of the program.
        commands: In the order of the help page.
        summary: What the program is for, in one line.
    """
    app = typer.Typer(
        cls=_group(commands),
        name=name,
        help=summary,
        no_args_is_help=True,
        # The boxes that rich draws around this help would take longer to import than all else together.
        rich_markup_mode=None,
        # A traceback is for who asked for it, and then a plain one: it can be pasted into an issue.
        pretty_exceptions_enable=False,
    )
    app.callback()(_root(name))
    return app


def import_command(commands: Commands, name: str) -> Any:
    """The command called ``name``, with its module; a group where the module has several."""
    group = typer.main.get_group(import_module(commands[name][0]).app)
    command = group if len(group.commands) > 1 else next(iter(group.commands.values()))
    command.name = name
    for part in (command, *getattr(command, "commands", {}).values()):
        part.rich_markup_mode = None
    return command


def _group(commands: Commands) -> type[TyperGroup]:
    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in commands.items()}

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args and args[0] in commands:
                self.commands[args[0]] = import_command(commands, args[0])
            return super().resolve_command(ctx, args)

        def invoke(self, ctx: Any) -> Any:
            with one_line_warnings(), one_line_failures(debug=ctx.params.get("debug", False)):
                return super().invoke(ctx)

    return LazyGroup


def _root(program: str) -> Any:
    def print_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {__version__}")
            raise typer.Exit

    version_option = typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    debug_option = typer.Option("--debug", envvar="RASA_DEBUG", help="Show the traceback of a failure.")

    def root(*, version: bool = False, debug: bool = False) -> None:
        pass

    # Set by hand: the options are values of this call, which the text of an annotation could not name.
    root.__annotations__ = {"version": Annotated[bool, version_option], "debug": Annotated[bool, debug_option]}
    return root

"""Command-line flags out of the fields of :class:`rasa.config.PipelineConfig`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from rasa.config import PipelineConfig

_FLAGS = tuple(item for item in fields(PipelineConfig) if item.name != "summary")


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` one flag per field; it gets those that were used as ``overrides``, a dict.

    A flag that is not used leaves the preset's value; 0 is a value.
    """
    own = inspect.signature(command, eval_str=True)

    def wrapper(**given: Any) -> None:
        flags = {item.name: given.pop(item.name) for item in _FLAGS}
        overrides = {name: value for name, value in flags.items() if value is not None}
        command(**given, overrides=overrides)

    kept = [parameter for parameter in own.parameters.values() if parameter.name != "overrides"]
    signature = own.replace(parameters=[*kept, *map(_parameter, _FLAGS)])
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__annotations__ = {}
    return wrapper


def _parameter(item: Field[Any]) -> inspect.Parameter:
    rule = item.metadata
    limits: dict[str, Any] = {}
    if rule["kind"] in (int, float):
        limits = {"min": _finite(rule["least"]), "max": _finite(rule["most"])}
    flag = f"--{item.name.replace('_', '-')}"
    if rule["kind"] is bool:
        flag = f"{flag}/--no-{flag[2:]}"  # a flag of two words, so that either value overrides the preset's
    text = f"{rule['help'][0].upper()}{rule['help'][1:]}."
    option = typer.Option(flag, help=text, show_default=False, **limits)
    kind: Any = Annotated[rule["kind"] | None, option]
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _finite(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None

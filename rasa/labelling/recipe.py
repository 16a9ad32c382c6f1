"""How a worker makes its pipeline: a preset's configuration, or a function that it can import."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rasa.config import PipelineConfig
from rasa.errors import InputError
from rasa.loading import load_config, pipeline_of
from rasa.pipeline import Pipeline

Factory = str | Callable[[], Pipeline]

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_CURE = 'pass a function of an importable module, such as pipeline="package.module:function"'


@dataclass(frozen=True, slots=True)
class Recipe:
    """What travels to a worker in place of a pipeline, whose models are too large to send.

    Attributes:
        preset: Name of the preset, for the provenance; "" where ``factory`` is used.
        config: Values of a :class:`rasa.config.PipelineConfig`; None where ``factory`` is used.
        factory: ``"module:function"``, or a callable that can be pickled; None where ``config`` is used.
    """

    preset: str = ""
    config: Mapping[str, Any] | None = None
    factory: Factory | None = None

    def build(self) -> Pipeline:
        """Make the pipeline; model packages are imported and checkpoints read now.

        Raises:
            InputError: If the factory cannot be found, or gives something else.
            RasaError: If a model cannot be built here.
        """
        if self.config is not None:
            return pipeline_of(PipelineConfig(**self.config), preset=self.preset)
        made = _found(self.factory)() if isinstance(self.factory, str) else self.factory() if self.factory else None
        if not isinstance(made, Pipeline):
            raise InputError(f"pipeline {self.factory!r} must give a rasa.Pipeline, got {type(made).__name__}")
        return made


def recipe_for(preset: str, pipeline: Factory | None, overrides: Mapping[str, Any]) -> Recipe:
    """Check what a caller asked for, before any process is started.

    Raises:
        InputError: If ``pipeline`` cannot be sent to a worker, or ``overrides`` have nothing to change.
        UnknownModelError, ConfigError: As :func:`rasa.load`.
    """
    if pipeline is None:
        return Recipe(preset=str(preset), config=load_config(preset, **overrides).to_dict())
    if overrides:
        raise InputError(f"{', '.join(sorted(overrides))} would change a preset, and pipeline= takes its place")
    if isinstance(pipeline, str):
        if not _PLACE.fullmatch(pipeline):
            raise InputError(f"pipeline {pipeline!r} must be of the form package.module:function")
    elif not callable(pipeline) or isinstance(pipeline, Pipeline):
        raise InputError(f"pipeline must make a pipeline, got {type(pipeline).__name__}; {_CURE}")
    else:
        _check_sendable(pipeline)
    return Recipe(factory=pipeline)


def _found(place: str) -> Callable[[], Pipeline]:
    module, _, name = place.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"pipeline {place!r} cannot be found: {error}; {_CURE}") from error
    if not callable(found):
        raise InputError(f"pipeline {place!r} is a {type(found).__name__}; {_CURE}")
    return found  # type: ignore[no-any-return]


def _check_sendable(pipeline: Callable[[], Pipeline]) -> None:
    # A worker is a process of its own that does not run the caller's script.
    home = getattr(getattr(pipeline, "func", pipeline), "__module__", "")
    try:
        pickle.dumps(pipeline)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"pipeline {pipeline!r} cannot be sent to a worker: {error}; {_CURE}") from error
    if home == "__main__":
        raise InputError(f"pipeline {pipeline!r} is defined in the running script, which workers do not run; {_CURE}")

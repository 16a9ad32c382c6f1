"""What a worker process says to the process that drives it, besides an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rasa.errors import RasaError


@dataclass(frozen=True, slots=True)
class Ready:
    """The models are loaded; ``provenance`` is that of the pipeline."""

    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Moved:
    """So many images of the shard are labelled."""

    images: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A :class:`rasa.errors.RasaWarning` that the user should see once, whatever the number of workers."""

    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run cannot go on."""

    error: RasaError

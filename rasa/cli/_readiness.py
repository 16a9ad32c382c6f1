"""Whether a model or preset can run on this machine now, and what to do if not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rasa.errors import WeightsError
from rasa.registry import Model, find_model
from rasa.weights import checkpoints, find

DISTRIBUTION = "rasa-vision"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is missing.

    Attributes:
        packages: Modules that are not installed.
        extras: The extras that bring them.
        weights: Checkpoints that are not in the cache and are needed.
        fallbacks: Checkpoints that are not in the cache, each with what is done instead.
    """

    packages: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    fallbacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it runs now, without the network."""
        return not (self.packages or self.weights)

    def cures(self) -> list[str]:
        """The commands that bring what is missing, and what happens without what is optional."""
        lines = []
        if self.packages:
            target = f'"{DISTRIBUTION}[{",".join(self.extras)}]"' if self.extras else " ".join(self.packages)
            lines.append(f"no {', '.join(self.packages)}: pip install {target}")
        lines += [f"no weights {name}: rasa weights fetch {name}" for name in self.weights]
        lines += [f"{what} (rasa weights fetch {name})" for name, what in self.fallbacks.items()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "ready": self.ready,
            "missing_packages": list(self.packages),
            "missing_weights": list(self.weights),
            "fallbacks": dict(self.fallbacks),
            "cures": self.cures(),
        }


def readiness(models: Iterable[str | Model]) -> Readiness:
    """What is missing for all of ``models`` to run.

    Raises:
        UnknownModelError: If there is no such model.
    """
    entries = [find_model(model) if isinstance(model, str) else model for model in models]
    lacking = [entry for entry in entries if entry.missing_packages]
    fallbacks = {name: what for entry in entries for name, what in entry.fallbacks.items() if not _in_cache(name)}
    return Readiness(
        packages=tuple(dict.fromkeys(package for entry in lacking for package in entry.missing_packages)),
        extras=tuple(dict.fromkeys(entry.extra for entry in lacking if entry.extra is not None)),
        weights=tuple(dict.fromkeys(name for entry in entries for name in entry.checkpoints if not _in_cache(name))),
        fallbacks=fallbacks,
    )


def _in_cache(checkpoint: str) -> bool:
    # A plugin looks after checkpoints that rasa's own table does not know.
    if checkpoint not in checkpoints():
        return True
    try:
        return find(checkpoint) is not None
    except WeightsError:
        return False

"""Whether a model or preset can run on this machine now, and what to do if not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rasa.errors import WeightsError
from rasa.registry import Model, WeightFolder, find_model
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
        folders: Folders of weights that are not there, which rasa cannot fetch.
    """

    packages: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[WeightFolder, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether it runs now, without the network."""
        return not (self.packages or self.weights or self.folders)

    def cures(self, preset: str | None = None) -> list[str]:
        """The commands that bring what is missing, and what happens without what is optional.

        Args:
            preset: Its name, which fetches several weight files in one command.
        """
        lines = []
        if self.packages:
            target = f'"{DISTRIBUTION}[{",".join(self.extras)}]"' if self.extras else " ".join(self.packages)
            lines.append(f"no {', '.join(self.packages)}: pip install {target}")
        if preset is not None and len(self.weights) > 1:
            lines.append(f"no weights {', '.join(self.weights)}: rasa weights fetch {preset}")
        else:
            lines += [f"no weights {name}: rasa weights fetch {name}" for name in self.weights]
        lines += [f"no folder {folder.home / folder.name}: {folder.access}" for folder in self.folders]
        lines += [f"{what} (rasa weights fetch {name})" for name, what in self.fallbacks.items()]
        return lines

    def to_dict(self, preset: str | None = None) -> dict[str, Any]:
        """Plain JSON values; ``preset`` as in :meth:`cures`."""
        return {
            "ready": self.ready,
            "missing_packages": list(self.packages),
            "missing_weights": list(self.weights),
            "missing_folders": [str(folder.home / folder.name) for folder in self.folders],
            "fallbacks": dict(self.fallbacks),
            "cures": self.cures(preset),
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
        folders=tuple(dict.fromkeys(entry.folder for entry in entries if entry.folder and not entry.folder.find())),
    )


def _in_cache(checkpoint: str) -> bool:
    # A plugin looks after checkpoints that rasa's own table does not know.
    if checkpoint not in checkpoints():
        return True
    try:
        return find(checkpoint) is not None
    except WeightsError:
        return False

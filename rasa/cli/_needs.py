"""What a preset takes: disk and memory as far as they follow from its models, time as far as it was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from rasa.config import PipelineConfig
from rasa.errors import ConfigError
from rasa.loading import config_checkpoints
from rasa.registry import WeightFolder, find_model
from rasa.weights import checkpoints

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_GB = 10**9


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a preset.

    Attributes:
        seconds: A photo, one at a time: the least and the most that were seen.
        where: The machine and the number type.
        script: What prints the figures again.
        peak_bytes: The most memory that the process held; None where it was not measured.
    """

    seconds: tuple[float, float]
    where: str
    script: str
    peak_bytes: int | None = None

    def __str__(self) -> str:
        least, most = self.seconds
        time = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        peak = "" if self.peak_bytes is None else f", {self.peak_bytes / _GB:.1f} GB of memory at most"
        return f"{time} s a photo{peak} ({self.where})"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the models of a pipeline take.

    Attributes:
        fetch_bytes: Of all weight files that rasa fetches, also of those that it can do without.
        disk_bytes: The same, and the converted copies that some models write.
        weight_bytes: Memory of all weights in the number type of the pipeline: parameters times bytes. Images come
            on top. None where a model does not tell its parameters.
        largest_bytes: The same of the largest model alone, which is what ``low_memory`` keeps on a device.
        licenses: Of the weights, each once.
        folders: Weights that the user has to get; their size is not known before.
    """

    fetch_bytes: int
    disk_bytes: int
    weight_bytes: int | None
    largest_bytes: int | None
    licenses: tuple[str, ...]
    folders: tuple[WeightFolder, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "fetch_bytes": self.fetch_bytes,
            "disk_bytes": self.disk_bytes,
            "weight_bytes": self.weight_bytes,
            "largest_weight_bytes": self.largest_bytes,
            "licenses": list(self.licenses),
            "folders": [folder.name for folder in self.folders],
        }


def needs(config: PipelineConfig) -> Needs:
    """What the models of ``config`` take.

    Raises:
        UnknownModelError: If it names an unknown model.
    """
    known = checkpoints()
    # A plugin looks after checkpoints that rasa's own table does not know.
    wanted = [known[name] for name in config_checkpoints(config) if name in known]
    models = [find_model(name) for name in dict.fromkeys(config.models)]
    counts = [model.parameters for model in models if model.parameters is not None]
    width, all_known = _BYTES[config.dtype], len(counts) == len(models)
    folders = tuple(dict.fromkeys(model.folder for model in models if model.folder is not None))
    fetched = sum(checkpoint.size for checkpoint in wanted)
    copies = sum((model.parameters or 0) * _BYTES["float32"] for model in models if model.keeps_copy)
    return Needs(
        fetch_bytes=fetched,
        disk_bytes=fetched + copies,
        weight_bytes=sum(counts) * width if all_known else None,
        largest_bytes=max(counts) * width if all_known else None,
        licenses=tuple(dict.fromkeys([*(file.license for file in wanted), *(folder.license for folder in folders)])),
        folders=folders,
    )


def lines(config: PipelineConfig) -> list[str]:
    """What :func:`needs` says, for a person."""
    found = needs(config)
    copies = found.disk_bytes - found.fetch_bytes
    text = [f"disk: {found.fetch_bytes / _GB:.2f} GB to fetch"]
    if copies:
        text[0] += f", and {copies / _GB:.2f} GB for converted copies"
    text[0] += "".join(f", and the folder {folder.name}, which you have to get" for folder in found.folders)
    if found.weight_bytes is not None and found.largest_bytes is not None:
        largest = f"{found.largest_bytes / _GB:.2f} GB at a time with --low-memory"
        text.append(f"memory: {found.weight_bytes / _GB:.2f} GB of weights in {config.dtype}, {largest}; images on top")
    return text


@cache
def figures() -> Mapping[str, Figures]:
    """What was measured, by preset.

    Raises:
        ConfigError: If the table is malformed.
    """
    table = tomllib.loads((files("rasa") / "cli" / "figures.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: _figures(name, entry) for name, entry in table.items()})


def _figures(name: str, entry: Mapping[str, Any]) -> Figures:
    try:
        least, most = entry["seconds"]
        return Figures(**{**entry, "seconds": (float(least), float(most))})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'figures.toml: "{name}" is malformed: {error}') from error

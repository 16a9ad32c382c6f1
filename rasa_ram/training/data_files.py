"""The files that a recipe trains on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasa.errors import ConfigError, RasaWarning
from rasa_ram._fingerprint import json_hash
from rasa_ram.data.manifest import open_records
from rasa_ram.data.manifest_table import RecordTable
from rasa_ram.data.own_tags import TaggedPhoto
from rasa_ram.training.config import DataSettings
from rasa_ram.vocabulary import Vocabulary

# Data settings that change no batch: where things lie, and how fast they are read.
_HARMLESS = frozenset({"manifests", "images", "shards", "cache", "workers"})


def require_data(data: DataSettings) -> None:
    """Refuse a recipe that names no data.

    Raises:
        ConfigError: If it does.
    """
    if data.shards:
        return
    if not data.manifests or data.images is None:
        lacking = "data.images" if data.manifests else "data.manifests"
        raise ConfigError(
            f"the recipe names no {lacking}; say what to train on: --set 'data.manifests=[\"coco.json\"]' "
            "--set data.images=photos, or --set 'data.shards=[\"shards/*.tar\"]'"
        )
    for path in (*data.manifests, data.images):
        if not path.exists():
            raise ConfigError(f"data: there is no {path}; paths of a recipe are relative to it, others to this folder")


def shard_files(data: DataSettings) -> list[Path]:
    """The files that the patterns of ``data.shards`` mean, in the order of their names, the same for each process.

    Raises:
        ConfigError: If no file matches a pattern.
    """
    found: list[Path] = []
    for pattern in data.shards:
        matching = sorted(pattern.parent.glob(pattern.name))
        if not matching:
            raise ConfigError(f"data.shards: no file matches {pattern}; name tar files, such as shards/*.tar")
        found += matching
    return found


def open_table(data: DataSettings, num_tags: int, *, warn: bool = True) -> RecordTable:
    """Open the manifests of a recipe; a :class:`rasa.RasaWarning` counts what is wrong with them.

    Args:
        data: Of the recipe.
        num_tags: Size of the vocabulary.
        warn: Whether to warn; one process of many does.

    Raises:
        FormatError: At a bad record, if the recipe says to stop.
        InputError: If a manifest cannot be read at all.
    """
    table = open_records(
        data.manifests,
        repeats=data.repeats or None,
        on_bad=data.on_bad,
        vocabulary_size=num_tags,
        cache=data.cache,
    )
    if warn and table.skipped:
        listed = ", ".join(f"{count} x {kind}" for kind, count in sorted(table.skipped.items()))
        paths = " ".join(map(str, data.manifests))
        warnings.warn(
            f"{paths}: {listed}; what could not be mended is left out. `rasa-ram data check {paths}` names each, and "
            'data.on_bad = "stop" refuses them',
            RasaWarning,
            stacklevel=2,
        )
    return table


def names_of(data: DataSettings) -> dict[str, str]:
    """What must be the same when a run goes on: files by name and size, wherever they lie, and how they are used."""
    files = data.manifests or tuple(shard_files(data))
    named: dict[str, Any] = {f"file {i}": f"{path.name}, {path.stat().st_size} bytes" for i, path in enumerate(files)}
    settings = {name: value for name, value in asdict(data).items() if name not in _HARMLESS}
    return {name: str(value) for name, value in {**named, **settings}.items()}


def names_of_photos(
    learning: Sequence[TaggedPhoto], checking: Sequence[TaggedPhoto], vocabulary: Vocabulary
) -> dict[str, str]:
    """What :func:`names_of` is for manifests: photos with their tags, and the tags of the model that is trained."""
    thresholds = None if vocabulary.thresholds is None else vocabulary.thresholds.tolist()
    return {
        "photos to learn from": _counted(learning, [(photo.path, *photo.tags) for photo in learning]),
        "photos to check on": _counted(checking, [(photo.path, *photo.tags) for photo in checking]),
        "tags": _counted(vocabulary.names, [vocabulary.names, thresholds]),
    }


def _counted(values: Sequence[object], plain: object) -> str:
    return f"{len(values)}, sha256 {json_hash(plain)[:16]}"

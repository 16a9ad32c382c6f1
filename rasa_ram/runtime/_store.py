"""Exported graphs on disk, called by what they were made of and checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasa.arrays import FloatArray
from rasa.errors import OutputError
from rasa.weights import cache_folder
from rasa_ram.config import RamConfig

# Raised whenever the export changes in a way that its inputs do not show.
FORMAT = 1

_MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)


def array_hash(pixels: FloatArray | None) -> str | None:
    """sha256 of an array's shape and values; None for none."""
    if pixels is None:
        return None
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def recipe(config: RamConfig, **parts: Any) -> dict[str, Any]:
    """All that decides the graphs, as plain JSON values."""
    return {"format": FORMAT, "config": asdict(config), **parts}


def stored(made_of: Mapping[str, Any], make: Callable[[Path], None], *, folder: Path | None = None) -> Path:
    """The folder of graphs of a recipe: the one in the cache if it is whole, else a new one.

    A folder appears in one step, and its manifest holds the sha256 of its files, all of which are read here.

    Args:
        made_of: From :func:`recipe`.
        make: Writes the graphs into the folder it is given.
        folder: The cache; ``runtime`` in :func:`rasa.weights.cache_folder` unless given.

    Raises:
        OutputError: If the cache cannot be written.
    """
    text = json.dumps(made_of, sort_keys=True)
    base = folder or cache_folder() / "runtime"
    place = base / hashlib.sha256(text.encode()).hexdigest()[:32]
    if _is_whole(place):
        return place
    try:
        base.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=base, prefix=".part-"))
    except OSError as error:
        raise _cannot_write(base, error) from error
    try:
        make(part)
        manifest = {"recipe": dict(made_of), "sha256": _hashes(part)}
        (part / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _put(part, place)
    except OSError as error:
        raise _cannot_write(base, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place


def _put(part: Path, place: Path) -> None:
    if place.exists() and not _is_whole(place):
        # Aside first: another process may still have the damaged files open.
        shutil.rmtree(place.replace(part.with_name(f"{part.name}.damaged")), ignore_errors=True)
    try:
        part.replace(place)
    except OSError:
        if not _is_whole(place):  # else another process was faster with the same graphs
            raise


def _is_whole(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        if manifest["sha256"] == _hashes(place):
            return True
    except FileNotFoundError:
        if not place.exists():
            return False
    except (OSError, ValueError, LookupError, TypeError) as error:
        _log.warning("cannot read the exported model %s: %s", place, error)
        return False
    _log.warning("the exported model %s is damaged; it is made again", place)
    return False


def _hashes(place: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(place.iterdir()):
        if path.name != _MANIFEST:
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _cannot_write(base: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot keep the exported model in {base}: {error.strerror or error}; pass cache= or set RASA_CACHE to a "
        "folder with room that you may write to"
    )

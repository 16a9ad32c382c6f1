"""Checkpoints of a run: folders that appear whole or not at all, and from which it goes on exactly.

    out/checkpoints/step-00001200/
        weights.safetensors    all parameters of the model, each once
        optimizer.safetensors  AdamW's state, "<what>:<parameter>"
        average.safetensors    the moving average, if there is one
        position.json          step, what the run is, random states, and the sha256 of the files above

Nothing in them can run code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rasa.errors import CheckpointError, OutputError, RasaWarning

SCHEMA = "rasa-ram-training/1"
FOLDER = "checkpoints"
POSITION = "position.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Position:
    """Where a run stands.

    Attributes:
        step: Steps done.
        fingerprint: What the run is: settings, model, data; of plain JSON values.
        random: Random states, one text per process.
        changes: What a resume changed, in order: ``step`` reached, ``key`` of the fingerprint, ``was``, ``is``.
    """

    step: int
    fingerprint: Mapping[str, Any]
    random: Sequence[str]
    changes: Sequence[Mapping[str, Any]] = ()


def write_checkpoint(out: Path, position: Position, files: Mapping[str, Mapping[str, Tensor]], *, keep: int) -> Path:
    """Write ``out/checkpoints/step-...`` and remove all but the newest ``keep``.

    Args:
        out: The run's folder.
        position: Where the run stands.
        files: Name without suffix to tensors on the CPU.
        keep: Checkpoints that stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: If it cannot be written; what was there before stays.
    """
    folder, final = out / FOLDER, checkpoint_folder(out, position.step)
    part = final.with_name(f".{final.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        part.mkdir(parents=True)
        for name, tensors in files.items():
            save_file(dict(tensors), part / f"{name}.safetensors")
        sums = {path.name: _settled(path) for path in sorted(part.iterdir())}
        content = {"schema": SCHEMA, "step": position.step, "fingerprint": dict(position.fingerprint)}
        content |= {"random": list(position.random), "changes": list(position.changes), "sha256": sums}
        (part / POSITION).write_text(json.dumps(content), encoding="utf-8")
        _settled(part / POSITION)
        _sync(part)
        shutil.rmtree(final, ignore_errors=True)  # a torn one of the same step
        part.rename(final)
        _sync(folder)
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror or error}; make room and resume") from error
    # A newer one that was passed over as torn takes no place.
    for _, old in [(step, path) for step, path in _named(out) if step <= position.step][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return out / FOLDER / f"step-{step:08d}"


def find_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint of ``out`` that is whole; None if there is none.

    A torn or damaged one is passed over with a :class:`rasa.errors.RasaWarning`.
    """
    for _, folder in reversed(_named(out)):
        try:
            _verify(folder)
        except CheckpointError as error:
            warnings.warn(f"{error}; an older checkpoint is taken", RasaWarning, stacklevel=2)
            continue
        return folder
    return None


def read_position(folder: Path) -> Position:
    """Where the run of a checkpoint stood.

    Raises:
        CheckpointError: If the file is damaged.
    """
    content = _content(folder)
    values = {name: content[name] for name in ("step", "fingerprint", "random")}
    return Position(**values, changes=content.get("changes", []))


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, by its name without suffix.

    Raises:
        CheckpointError: If the file is missing or damaged.
    """
    path = folder / f"{name}.safetensors"
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); remove {folder} to resume from an older one") from error


def random_state(device: torch.device) -> str:
    """The random states of this process as text: Python's, NumPy's, torch's and the GPU's."""
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)  # noqa: NPY002  (the one that libraries share)
    name, keys, place, has_gauss, cached = legacy
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), place, has_gauss, cached],
        "torch": _to_text(torch.get_rng_state()),
    }
    if device.type == "cuda":
        state["cuda"] = _to_text(torch.cuda.get_rng_state(device))
    return json.dumps(state)


def set_random_state(text: str, device: torch.device) -> None:
    """Give this process the random states of :func:`random_state`."""
    state = json.loads(text)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(_from_text(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_from_text(state["cuda"]), device)


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all generators, and give the caller's states back at the end."""
    before = random_state(device)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _from_text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _named(out: Path) -> list[tuple[int, Path]]:
    folder = out / FOLDER
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(match[1]), path) for match, path in found if match is not None)


def _verify(folder: Path) -> None:
    for name, expected in _content(folder)["sha256"].items():
        try:
            with (folder / Path(name).name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder} is torn: {error}") from error
        if found != expected:
            raise CheckpointError(
                f"{folder} is damaged: {name} has sha256 {found[:12]}..., expected {expected[:12]}..."
            )


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / POSITION).read_text(encoding="utf-8"))
        fits = content["schema"] == SCHEMA and isinstance(content["step"], int) and isinstance(content["random"], list)
        fits = fits and isinstance(content["sha256"], dict) and isinstance(content["fingerprint"], dict)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{folder} is torn: {POSITION} cannot be read ({error})") from error
    if not fits:
        raise CheckpointError(
            f"{folder} is no checkpoint of a training: {POSITION} does not hold what {SCHEMA} promises"
        )
    return dict(content)


def _settled(path: Path) -> str:
    """Have a file on the disk, and return its sha256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

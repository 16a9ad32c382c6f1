"""What of a run goes into a checkpoint, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rasa.errors import CheckpointError, ConfigError
from rasa_ram._files import config_to_json
from rasa_ram.modeling.ram import Ram
from rasa_ram.training.distributed import Processes, fill_from, whole
from rasa_ram.training.ema import MovingAverage
from rasa_ram.training.schedule import Schedule
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.state import read_tensors

WEIGHTS, OPTIMIZER, AVERAGE = "weights", "optimizer", "average"
# Beginnings of keys that may change on resume: else a loss that is not finite would be met again, step by step alike.
CHANGEABLE = ("schedule.", "settings.clip_norm")


def fingerprint(
    model: Ram, schedule: Schedule, settings: RunSettings, *, processes: Processes, data: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be the same for a run to go on: of plain JSON values.

    Args:
        model: The model; its configuration counts, and which of its parameters are trained.
        schedule: The learning rates.
        settings: Of the run; harmless ones do not count.
        processes: How many there are, and on what.
        data: What names the data.
    """
    trained = "\n".join(name for name, weight in model.named_parameters() if weight.requires_grad)
    values = {
        "model": json.loads(config_to_json(model.config)),
        "trained_parameters": hashlib.sha256(trained.encode()).hexdigest()[:16],
        "settings": settings.fingerprint() | {"device": processes.device.type},
        "schedule": asdict(schedule),
        "processes": processes.count,
        "data": dict(data),
    }
    return dict(json.loads(json.dumps(values)))  # tuples become lists, as they will be when read


def changes_since(
    then: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path, steps_left: bool
) -> list[dict[str, Any]]:
    """Compare a run with that of a checkpoint: what differs, of what may, each as ``key``, ``was`` and ``is``.

    Args:
        then: Fingerprint in the checkpoint.
        now: Fingerprint of the run that goes on.
        folder: The checkpoint's, for the message.
        steps_left: Whether a change still has an effect; without, none is allowed.

    Raises:
        ConfigError: If the model, the data or a setting differs that must not; the message lists what.
    """
    old, new = dict(_flat(then)), dict(_flat(now))
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    changed = [{"key": key, "was": old.get(key), "is": new.get(key)} for key in keys]
    allowed = CHANGEABLE if steps_left else ()
    refused = [change for change in changed if not str(change["key"]).startswith(allowed)]
    if refused:
        raise ConfigError(
            f"cannot resume from {folder}: {changes_text(refused)}; set them back, or train in another folder"
        )
    return changed


def changes_text(changes: Sequence[Mapping[str, Any]]) -> str:
    """The first eight of some changes for a message, and how many more there are."""
    listed = "; ".join(f"{one['key']} was {one['was']!r} and is {one['is']!r}" for one in changes[:8])
    return f"{listed}; and {len(changes) - 8} more" if len(changes) > 8 else listed


def checkpoint_tensors(
    model: Ram, optimizer: Optimizer, average: MovingAverage | None, *, keep: bool
) -> dict[str, dict[str, Tensor]]:
    """Collect the tensors of a checkpoint by file; all processes must ask at once.

    Args:
        model: Its parameters, each once.
        optimizer: Its state for each of them.
        average: Of the weights, if one is kept.
        keep: Whether this process writes them; else they are collected for others and dropped.
    """
    files = {WEIGHTS: dict(model.named_parameters()), OPTIMIZER: _optimizer_tensors(model, optimizer)}
    if average is not None:
        files[AVERAGE] = dict(average.weights)
    return {name: collected(tensors, keep=keep) for name, tensors in files.items()}


def collected(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole copies of tensors on the CPU, if they are to be kept; all processes must ask at once."""
    found = {}
    for name, tensor in tensors.items():
        one = whole(tensor)
        if keep:
            found[name] = one.cpu().contiguous()
    return found


def restore(folder: Path, model: Ram, optimizer: Optimizer, average: MovingAverage | None) -> None:
    """Give model, optimiser and average the tensors of a checkpoint.

    Raises:
        CheckpointError: If one is missing, damaged or of another shape.
    """
    weights = read_tensors(folder, WEIGHTS)
    for name, parameter in model.named_parameters():
        fill_from(parameter, _expect(weights, name, parameter, folder))
    saved = read_tensors(folder, OPTIMIZER)
    for name, parameter in model.named_parameters():
        state = {key.partition(":")[0]: value for key, value in saved.items() if key.partition(":")[2] == name}
        if state:
            optimizer.state[parameter] = {key: _like(value, parameter) for key, value in state.items()}
    if average is not None:
        shadows = read_tensors(folder, AVERAGE)
        average.load({name: _expect(shadows, name, shadow, folder) for name, shadow in average.weights.items()})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _optimizer_tensors(model: Ram, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}:{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _expect(tensors: Mapping[str, Tensor], name: str, wanted: Tensor, folder: Path) -> Tensor:
    found = tensors.get(name)
    if found is None or found.shape != wanted.shape:
        got = "none" if found is None else str(tuple(found.shape))
        raise CheckpointError(f"{folder} must hold {name} of shape {tuple(wanted.shape)}, got {got}")
    return found


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A saved state in the form that AdamW keeps it: split like its parameter, or a count on the CPU."""
    if value.ndim == 0 and parameter.ndim:
        return value.clone()
    state = torch.zeros_like(parameter, dtype=value.dtype).detach()
    fill_from(state, value)
    return state

"""How a training runs: everything but the model, the data and the learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rasa.errors import ConfigError
from rasa_ram.training.optimizer import WEIGHT_DECAY

Precision = Literal["float32", "bfloat16"]
Sharding = Literal["none", "fsdp"]
Alignment = Literal["device", "global"]
Device = Literal["auto", "cpu", "cuda"]

# Settings that a run may go on with although they changed: none of them changes a weight up to the step reached.
HARMLESS = frozenset({"epochs", "max_steps", "save_every", "keep", "log_every", "tensorboard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a training runs. A step is an update of the weights: with accumulation, several batches.

    A loss that is not finite always stops the run before it reaches the weights.

    Attributes:
        epochs: Times the data are seen.
        max_steps: Steps after which the run ends, if the epochs have more; None is no limit.
        accumulate: Batches whose gradients are averaged into one step; what an epoch has left over is dropped.
        precision: ``"bfloat16"`` runs the forward pass under autocast; the weights stay float32.
        clip_norm: Largest norm of the gradient; None clips nothing.
        gradient_checkpointing: Whether blocks are computed twice, to keep less in memory.
        ema: Decay per step of the moving average of the weights, in (0, 1), saved beside them; None keeps none.
        sharding: ``"fsdp"`` splits weights, gradients and optimiser states over the processes.
        save_every: Steps between checkpoints; one more is written at the end.
        keep: Checkpoints kept, the newest.
        log_every: Steps between lines of the log.
        seed: Of dropout and drop path; each process adds its number.
        device: ``"auto"`` is the accelerator if there is one.
        parts: What is learned besides tags, some of ``objective.PARTS`` of the family; None is all, as published.
        loss_images: Images that the summed losses count as, whatever the batch, the processes and the accumulation
            are; None sums over a device's batch and averages over devices, as published.
        alignment: Captions that RAM++ compares an image with: those of its ``"device"``, as published, or of
            all processes, ``"global"``.
        weight_decay: Decoupled decay per unit of learning rate.
        tensorboard: Whether the log is written for TensorBoard too.

    Raises:
        ConfigError: If a value is out of range.
    """

    epochs: int = 1
    max_steps: int | None = None
    accumulate: int = 1
    precision: Precision = "float32"
    clip_norm: float | None = None
    gradient_checkpointing: bool = False
    ema: float | None = None
    sharding: Sharding = "none"
    save_every: int = 1000
    keep: int = 2
    log_every: int = 10
    seed: int = 0
    device: Device = "auto"
    parts: tuple[str, ...] | None = None
    loss_images: int | None = None
    alignment: Alignment = "device"
    weight_decay: float = WEIGHT_DECAY
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "save_every", "keep", "log_every"):
            _require_count(name, getattr(self, name), least=1)
        for name in ("max_steps", "loss_images"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name), least=1)
        _require_count("seed", self.seed, least=0)
        for name, choices in (("precision", Precision), ("sharding", Sharding), ("alignment", Alignment)):
            _require_choice(name, getattr(self, name), get_args(choices))
        _require_choice("device", self.device, get_args(Device))
        for name in ("gradient_checkpointing", "tensorboard"):
            _require_choice(name, getattr(self, name), (True, False))
        self._require_numbers()
        if self.parts is not None:
            _require_names("parts", self.parts)

    def _require_numbers(self) -> None:
        if self.clip_norm is not None and not (_is_number(self.clip_norm) and self.clip_norm > 0):
            raise ConfigError(f"clip_norm must be above 0, got {self.clip_norm!r}; leave it out to clip nothing")
        if self.ema is not None and not (_is_number(self.ema) and 0 < self.ema < 1):
            raise ConfigError(f"ema must be in (0, 1), such as 0.9998, got {self.ema!r}; leave it out to keep none")
        if not (_is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"weight_decay must be at least 0, got {self.weight_decay!r}")

    def total_steps(self, batches: int) -> int:
        """Steps of the whole run over a source of ``batches`` per epoch.

        Raises:
            ConfigError: If an epoch has fewer batches than one step takes.
        """
        total = self.epochs * self.steps_per_epoch(batches)
        return total if self.max_steps is None else min(total, self.max_steps)

    def steps_per_epoch(self, batches: int) -> int:
        """Steps of an epoch of ``batches``.

        Raises:
            ConfigError: If an epoch has fewer batches than one step takes.
        """
        steps = batches // self.accumulate
        if steps < 1:
            raise ConfigError(
                f"an epoch has {batches} batches and a step takes {self.accumulate}; lower accumulate or the batch size"
            )
        return steps

    def fingerprint(self) -> dict[str, Any]:
        """What must not change when a run is resumed, ready for JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in HARMLESS}
        return values | {"parts": None if self.parts is None else sorted(self.parts)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def _require_names(name: str, value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{name} must be a tuple of names, got {value!r}")

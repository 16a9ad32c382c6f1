"""The kinds of learning rates that the models were trained with, whose ``rate`` depends on the position alone.

The published numbers are in the recipes (``rasa_ram/training/recipes``).

Nothing is counted or kept between calls, so a run that resumes at any step goes on with the same rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rasa.errors import ConfigError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearWarmup:
    """A straight rise to the peak rate, step by step.

    Attributes:
        start: Rate of step 0.
        steps: Steps until the peak.

    Raises:
        ConfigError: If ``start`` is negative or not finite, or ``steps`` is not positive.
    """

    start: float
    steps: int

    def __post_init__(self) -> None:
        _require_rate("start", self.start)
        if self.steps < 1:
            raise ConfigError(f"steps of a warm-up must be at least 1, got {self.steps}; leave the warm-up out instead")

    def rate(self, step: int, *, peak: float) -> float:
        """Return the rate of ``step``, counted from 0; ``peak`` from step ``steps`` on.

        Raises:
            InputError: If ``step`` is negative.
        """
        _require_position("step", step)
        return min(peak, self.start + (peak - self.start) * step / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecay:
    """The same share of the rate is kept from each epoch to the next, down to a floor.

    Attributes:
        peak: Rate of epoch 0.
        floor: Lowest rate.
        kept: Share kept, in (0, 1].

    Raises:
        ConfigError: If a rate is negative or not finite, ``floor`` is above ``peak``, or ``kept`` is out of range.
    """

    peak: float
    floor: float
    kept: float

    def __post_init__(self) -> None:
        _require_rates(self.peak, self.floor)
        if not 0 < self.kept <= 1:
            raise ConfigError(f"kept must be in (0, 1], got {self.kept}")

    def rate(self, epoch: int) -> float:
        """Return the rate of all steps of ``epoch``, counted from 0.

        Raises:
            InputError: If ``epoch`` is negative.
        """
        _require_position("epoch", epoch)
        return max(self.floor, self.peak * self.kept**epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineDecay:
    """Half a cosine from the peak to the floor, one rate per epoch.

    The floor belongs to the epoch after the last: two epochs from 5e-6 to 0 train at 5e-6 and 2.5e-6. Beyond it
    the published formula rises again, and so does this.

    Attributes:
        peak: Rate of epoch 0.
        floor: Rate of epoch ``epochs``.
        epochs: Epochs of the training.

    Raises:
        ConfigError: If a rate is negative or not finite, ``floor`` is above ``peak``, or ``epochs`` is not positive.
    """

    peak: float
    floor: float
    epochs: int

    def __post_init__(self) -> None:
        _require_rates(self.peak, self.floor)
        if self.epochs < 1:
            raise ConfigError(f"epochs must be at least 1, got {self.epochs}")

    def rate(self, epoch: int) -> float:
        """Return the rate of all steps of ``epoch``, counted from 0.

        Raises:
            InputError: If ``epoch`` is negative.
        """
        _require_position("epoch", epoch)
        return (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs)) + self.floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A decay by epochs and, during the first epoch, a warm-up by steps.

    A warm-up longer than the first epoch is cut off at its end, as published; the rate then jumps to the decay's.

    Attributes:
        decay: Rate of each epoch.
        warmup: What replaces it in epoch 0.

    Raises:
        ConfigError: If the warm-up starts above the decay's peak.
    """

    decay: StepDecay | CosineDecay
    warmup: LinearWarmup | None = None

    def __post_init__(self) -> None:
        if self.warmup is not None and self.warmup.start > self.decay.peak:
            raise ConfigError(f"a warm-up must start at most at the peak {self.decay.peak}, got {self.warmup.start}")

    def rate(self, step: int, *, steps_per_epoch: int) -> float:
        """Return the rate of the optimiser step number ``step``.

        Args:
            step: Counted from 0 over the whole training; with gradient accumulation, one per update.
            steps_per_epoch: Optimiser steps that see the data once.

        Raises:
            InputError: If ``step`` is negative or ``steps_per_epoch`` is not positive.
        """
        _require_position("step", step)
        if steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        epoch = step // steps_per_epoch
        if self.warmup is not None and epoch == 0:
            return self.warmup.rate(step, peak=self.decay.peak)
        return self.decay.rate(epoch)


def _require_rates(peak: float, floor: float) -> None:
    _require_rate("peak", peak)
    _require_rate("floor", floor)
    if floor > peak:
        raise ConfigError(f"floor must be at most the peak {peak}, got {floor}")


def _require_rate(name: str, rate: float) -> None:
    if not (math.isfinite(rate) and rate >= 0):
        raise ConfigError(f"{name} must be a learning rate of at least 0, got {rate}")


def _require_position(name: str, value: int) -> None:
    if value < 0:
        raise InputError(f"{name} is counted from 0, got {value}")

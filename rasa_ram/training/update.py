"""One step: from batches to new weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from rasa.errors import InputError
from rasa_ram.data.samples import CaptionBatch, Samples
from rasa_ram.modeling.ram import Ram
from rasa_ram.training.distributed import Processes, share_losses, whole
from rasa_ram.training.failure import NotFiniteError
from rasa_ram.training.losses import Losses
from rasa_ram.training.objective import PARTS, Batch
from rasa_ram.training.optimizer import build_optimizer, set_rate
from rasa_ram.training.settings import RunSettings
from rasa_ram.training.step import TrainingStep, may_leave_unused, shardable_blocks
from rasa_ram.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Updated:
    """What one step did.

    Attributes:
        losses: Of all processes, by name; mean over the step's batches.
        grad_norm: Norm of the gradient of all processes, before clipping.
    """

    losses: dict[str, float]
    grad_norm: float


class Updater:
    """Changes a model's weights, step by step.

    Args:
        model: What is trained; moved to the device of ``processes``, and split if those are sharded.
        settings: How.
        processes: Who takes part.
        teacher: For the parts that imitate one.
    """

    def __init__(self, model: Ram, *, settings: RunSettings, processes: Processes, teacher: Teacher | None) -> None:
        self._settings, self._processes, self._teacher = settings, processes, teacher
        self._parts = PARTS[model.config.family] if settings.parts is None else settings.parts
        step = TrainingStep(model, parts=settings.parts, autocast=settings.precision == "bfloat16")
        step.to(processes.device)
        self._step = processes.wrap(step, shardable_blocks(model))
        # On a GPU torch chooses well by itself, and it does not fuse what is split.
        fused = processes.device.type == "cpu" and not processes.sharded
        self.optimizer: AdamW = build_optimizer(model, rate=0.0, weight_decay=settings.weight_decay, fused=fused)

    def update(self, batches: Sequence[Samples], *, rate: float) -> Updated:
        """Learn from some batches; their gradients are averaged.

        Raises:
            NotFiniteError: If a loss or the gradient is not finite; the weights are as before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        rows = [self._differentiate(samples, i, last=i == len(batches) - 1) for i, samples in enumerate(batches)]
        losses = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        norm = self._clip()
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm is {norm}", losses=losses, batch=len(batches) - 1)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        return Updated(losses, norm)

    def _differentiate(self, samples: Samples, index: int, *, last: bool) -> dict[str, float]:
        with nullcontext() if last else self._processes.without_sync(self._step):
            terms = self._step(self._batch(samples))
            total, common = share_losses(terms, self._processes, loss_images=self._settings.loss_images)
            losses = _numbers(common)
            if not all(math.isfinite(value) for value in losses.values()):
                named = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
                raise NotFiniteError(f"the losses are {named}", losses=losses, batch=index)
            (total if self._settings.accumulate == 1 else total / self._settings.accumulate).backward()
        return losses

    def _clip(self) -> float:
        """The norm of the gradient, which is no longer afterwards than the settings allow."""
        self._processes.average_unsharded(self._step)
        weights = (weight for group in self.optimizer.param_groups for weight in group["params"])
        grads = [weight.grad for weight in weights if weight.grad is not None]
        # FSDP leaves some whole, and torch does not mix the two kinds.
        kinds = [[grad for grad in grads if isinstance(grad, DTensor) is split] for split in (False, True)]
        norms = [whole(nn.utils.get_total_norm(kind)) for kind in kinds if kind]
        norm = float(torch.linalg.vector_norm(torch.stack(norms))) if len(norms) > 1 else float(norms[0])
        limit = self._settings.clip_norm
        if limit is not None and norm > limit:
            for grad in grads:
                grad.mul_(limit / norm)
        return norm

    def _batch(self, samples: Samples) -> Batch:
        device = self._processes.device
        batch = Batch(
            pixels=_moved(samples.pixels, device),
            targets=_moved(samples.targets, device),
            known=None if samples.known is None else _moved(samples.known, device),
        )
        if "captions" in self._parts and samples.captions is not None:
            captions = {f.name: _moved(getattr(samples.captions, f.name), device) for f in fields(CaptionBatch)}
            batch = replace(batch, captions=CaptionBatch(**captions))
        if "image_features" in self._parts:
            batch = replace(batch, image_features=self._image_features(samples))
        return self._with_texts(batch, samples) if "text_features" in self._parts else batch

    def _image_features(self, samples: Samples) -> Tensor:
        if self._teacher is None or samples.teacher_pixels is None:
            raise InputError(f"batch of {samples.image_paths[0]} has no view for the teacher; ask the source for one")
        with torch.no_grad(), self._autocast():
            return self._teacher.image_features(_moved(samples.teacher_pixels, self._processes.device))

    def _with_texts(self, batch: Batch, samples: Samples) -> Batch:
        if self._teacher is None or samples.texts is None:
            raise InputError(
                f"batch of {samples.image_paths[0]} has no captions for the teacher; ask the source for them"
            )
        with torch.no_grad(), self._autocast():
            texts = self._teacher.text_features(samples.texts).to(self._processes.device)
        if self._settings.alignment == "device" or self._processes.count == 1:
            return replace(batch, text_features=texts)
        first = self._processes.rank * len(texts)
        return replace(batch, text_features=self._processes.gather(texts), first_text=first)

    def _autocast(self) -> torch.autocast:
        kind = self._processes.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self._settings.precision == "bfloat16")


def join(model: Ram, settings: RunSettings) -> Processes:
    """Join the processes that train ``model``; see :meth:`Processes.join`."""
    unused = may_leave_unused(model, settings.parts)
    return Processes.join(settings.device, sharded=settings.sharding == "fsdp", unused=unused)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def _numbers(losses: Losses) -> dict[str, float]:
    given = ((field.name, getattr(losses, field.name)) for field in fields(losses))
    return {name: float(value) for name, value in given if value is not None}

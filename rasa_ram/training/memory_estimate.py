"""How much memory a training step takes, without a device that has it and without computing one number of it.

The forward pass runs on fake tensors (``torch._subclasses.fake_tensor``): shapes and types without data. What autograd
saves for the backward pass is added up, each storage once. So it is the step that the loop runs, not a formula for it;
but the kernels are those of the CPU, which keep attention's weights where some GPU kernels compute them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from rasa_ram.config import RamConfig
from rasa_ram.data.samples import CaptionBatch
from rasa_ram.modeling.ram import Ram
from rasa_ram.tokenizer import MAX_TOKENS
from rasa_ram.training.objective import Batch
from rasa_ram.training.step import TrainingStep, recomputed_blocks

_FLOAT = 4  # bytes of a float32


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes that one process holds at the height of a step.

    Attributes:
        weights: All weights and buffers, float32.
        gradients: One float32 per trained weight.
        optimizer: AdamW's two moments, two float32 per trained weight.
        average: The moving average's copy of the trained weights, if there is one.
        activations: What autograd keeps of the forward pass until the backward pass has used it.
        teacher: The frozen CLIP, if there is one.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    teacher: int

    @property
    def total(self) -> int:
        """All of it; buffers of the libraries and what the allocator wastes come on top."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations + self.teacher


def meta_model(config: RamConfig) -> Ram:
    """Build a model without memory for its weights, in training mode; for counting."""
    with torch.device("meta"):
        return Ram(config).train()


def step_activations(
    model: Ram, batch_size: int, *, parts: tuple[str, ...], autocast: bool = False, recompute: bool = False
) -> int:
    """Bytes that autograd keeps of one forward pass.

    Args:
        model: From :func:`meta_model`; it becomes one of fake tensors.
        batch_size: Images.
        parts: What is learned besides tags.
        autocast: Whether the pass runs in bfloat16; its copies of the weights count too.
        recompute: Whether blocks are computed twice: their inputs count, and the largest block's inside.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        ledger = _Ledger(model)
        step = TrainingStep(model, parts=parts, autocast=autocast)
        with ledger.watching(recomputed_blocks(model)), saved_tensors_hooks(ledger.note, lambda tensor: tensor):
            terms = step(blank_batch(model.config, batch_size, parts))
        del terms
        return ledger.recomputed() if recompute else ledger.total()


class _Ledger:
    """Counts storages that autograd saved, and which block saved them first."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}  # noqa: SLF001
        # The storages are kept, for the address of one that is gone may be another's next.
        self._saved: dict[int, tuple[Any, int]] = {}
        self._inputs: dict[int, Any] = {}
        self._block = 0  # 0 is outside of all blocks
        self._blocks = 0

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:  # noqa: SLF001
            self._saved.setdefault(storage._cdata, (storage, self._block))  # noqa: SLF001
        return tensor

    @contextmanager
    def watching(self, blocks: list[nn.Module]) -> Iterator[None]:
        handles = [block.register_forward_pre_hook(self._enter) for block in blocks]
        handles += [block.register_forward_hook(self._leave) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        del module
        self._blocks += 1
        self._block = self._blocks
        for tensor in _tensors(arguments):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._own:  # noqa: SLF001
                self._inputs[storage._cdata] = storage  # noqa: SLF001

    def _leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        del module, arguments, output
        self._block = 0

    def total(self) -> int:
        return sum(storage.nbytes() for storage, _ in self._saved.values())

    def recomputed(self) -> int:
        inside = [0] * (self._blocks + 1)
        kept = dict(self._inputs)
        for key, (storage, block) in self._saved.items():
            if key in self._inputs:
                continue
            if block:
                inside[block] += storage.nbytes()
            else:
                kept[key] = storage
        return sum(storage.nbytes() for storage in kept.values()) + max(inside)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _make_fake(model: nn.Module) -> None:
    """Put fake tensors of the CPU in the place of all weights; shared ones stay shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):  # noqa: SLF001  (no public way keeps ties)
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = (tensor, _fake_like(tensor))
                table[name] = made[id(tensor)][1]


def _fake_like(tensor: Tensor) -> Tensor:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(fake, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def blank_batch(config: RamConfig, size: int, parts: tuple[str, ...]) -> Batch:
    """Make a batch of black images and of captions and tags of the greatest length; fake in a fake mode."""
    side, features = config.vision.image_size, torch.zeros(size, config.label_width)
    ids, mask = torch.zeros(size, MAX_TOKENS, dtype=torch.int64), torch.ones(size, MAX_TOKENS, dtype=torch.int64)
    return Batch(
        pixels=torch.zeros(size, 3, side, side),
        targets=torch.zeros(size, config.num_tags),
        captions=CaptionBatch(tag_ids=ids, tag_mask=mask, caption_ids=ids, caption_mask=mask)
        if "captions" in parts
        else None,
        image_features=features if "image_features" in parts else None,
        text_features=features if "text_features" in parts else None,
    )


def estimate_memory(  # noqa: PLR0913  (each is a number of its own)
    model: Ram,
    batch_size: int,
    *,
    parts: tuple[str, ...],
    autocast: bool = False,
    recompute: bool = False,
    average: bool = False,
    split: int = 1,
    teacher_weights: int = 0,
) -> MemoryEstimate:
    """Add up what a process holds; see :class:`MemoryEstimate`.

    Args:
        model: From :func:`meta_model`, frozen as the training freezes it; it becomes one of fake tensors.
        batch_size: Images of a batch of one process.
        parts: What is learned besides tags.
        autocast: Whether the forward pass runs in bfloat16.
        recompute: Whether blocks are computed twice.
        average: Whether a moving average is kept.
        split: Processes that the weights and all that belongs to them are split over (FSDP).
        teacher_weights: Weights of the frozen teacher.
    """
    weights = [*model.parameters(), *model.buffers()]
    trained = _FLOAT * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    held = sum(weight.numel() * weight.element_size() for weight in weights)
    return MemoryEstimate(
        weights=held // split,
        gradients=trained // split,
        optimizer=2 * trained // split,
        average=trained // split if average else 0,
        activations=step_activations(model, batch_size, parts=parts, autocast=autocast, recompute=recompute),
        teacher=_FLOAT * teacher_weights,
    )

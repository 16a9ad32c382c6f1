"""The forward pass of a training step as one module, which DDP and FSDP can wrap, and what of it is computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.blip.modeling_blip_text import BlipTextLayer

from rasa_ram.modeling.ram import Ram
from rasa_ram.modeling.tag_decoder import TagDecoder
from rasa_ram.training.objective import PARTS, Batch, Terms, compute_terms


class TrainingStep(nn.Module):
    """From a batch to its terms of the losses.

    Args:
        model: What is trained.
        parts: What is learned besides tags; see :func:`rasa_ram.training.objective.compute_losses`.
        autocast: Whether to compute in bfloat16 where that is safe.
    """

    def __init__(self, model: Ram, *, parts: tuple[str, ...] | None, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self._parts = parts
        self._autocast = autocast

    def forward(self, batch: Batch) -> Terms:
        """Compute the terms; the batch is on the model's device."""
        with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            return compute_terms(self.model, batch, parts=self._parts)


def may_leave_unused(model: Ram, parts: tuple[str, ...] | None) -> bool:
    """Whether some trained weights may take no part in the losses, which DDP must know."""
    published = parts is None or set(parts) == set(PARTS[model.config.family])
    weighs = model.config.family != "ram-plus" or model.config.descriptions > 1
    return not (published and weighs)


def shardable_blocks(model: Ram) -> list[nn.Module]:
    """Modules whose parameters belong to them alone: blocks of the image encoder, layers of the caption decoder.

    The tag encoder's first layers share theirs with the tag decoder; FSDP keeps those together with all the rest.
    """
    blocks: list[nn.Module] = [m for m in model.visual_encoder.modules() if isinstance(m, SwinTransformerBlock)]
    if model.config.text is not None:
        blocks += [m for m in model.captioner.text_decoder.modules() if isinstance(m, BlipTextLayer)]
    return blocks


def recomputed_blocks(model: Ram) -> list[nn.Module]:
    """Modules that :func:`recomputing` computes twice."""
    kinds = (SwinTransformerBlock, TagDecoder, BlipTextLayer)
    return [module for module in model.modules() if isinstance(module, kinds)]


@contextmanager
def recomputing(model: Ram, *, enabled: bool = True) -> Iterator[None]:
    """Keep only the inputs of the model's blocks for the backward pass, and compute the rest again.

    Dropout draws the same numbers the second time. Outside the block the model is as before.
    """
    blocks = recomputed_blocks(model) if enabled else []
    for block in blocks:
        # On the instance: its class and its parameters' names stay.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward

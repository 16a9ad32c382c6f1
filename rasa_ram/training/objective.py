"""One training step's forward pass: a batch through the model into its losses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rasa.errors import InputError
from rasa_ram.config import Family
from rasa_ram.data.samples import CaptionBatch
from rasa_ram.modeling.ram import Ram
from rasa_ram.training.losses import (
    Losses,
    alignment_loss,
    asymmetric_loss,
    caption_labels,
    caption_sum,
    combine,
    distillation_loss,
)

# Tokens of "[DEC] a picture of" (published code).
PROMPT_LENGTH = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B samples; T tags in the model's vocabulary.

    Attributes:
        pixels: float ``(B, 3, S, S)``, normalised.
        targets: ``(B, T)``, 1 where a tag is present and 0 elsewhere.
        known: bool ``(B, T)``, False where nobody knows whether a tag is present: it costs and teaches nothing.
            None where all are known, as in the published data.
        captions: For RAM and Tag2Text.
        image_features: float ``(B, C)``, CLIP's, not normalised; for RAM and RAM++.
        text_features: float ``(B, C)``, CLIP's of one caption per image, unit-norm; for RAM++. ``(M, C)`` with those
            of other processes.
        first_text: Row of ``text_features`` of the first image; None where they have one row per image.
    """

    pixels: Tensor
    targets: Tensor
    known: Tensor | None = None
    captions: CaptionBatch | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None
    first_text: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """What a batch contributes to the losses, before anything is averaged over batches or processes; scalars.

    Attributes:
        images: B.
        tag: Asymmetric loss of the tags, summed over images and tags.
        t2t: Caption loss, summed over tokens.
        tokens: Number of these tokens.
        dis: Distance to CLIP's image feature, mean over images and channels.
        alignment: Asymmetric loss between images and captions, summed.
    """

    images: int
    tag: Tensor
    t2t: Tensor | None = None
    tokens: Tensor | None = None
    dis: Tensor | None = None
    alignment: Tensor | None = None


# What each family learns from besides tags.
PARTS: Mapping[Family, tuple[str, ...]] = {
    "ram": ("captions", "image_features"),
    "tag2text": ("captions",),
    "ram-plus": ("image_features", "text_features"),
}


def compute_losses(model: Ram, batch: Batch, *, parts: Collection[str] | None = None) -> Losses:
    """Run the model on a batch and compute its losses; ``Losses.total`` is what to differentiate.

    Args:
        model: RAM, Tag2Text (both with a captioner) or RAM++; its mode, training or evaluation, decides on dropout.
        batch: Samples with all that ``parts`` names, and nothing else.
        parts: What is learned besides tags, some of ``PARTS`` of the family, such as none at all where a data set
            has no captions. None is all of them, as published.

    Raises:
        InputError: If the batch holds other parts, the family has not such a part, or the model has no captioner.
    """
    terms = compute_terms(model, batch, parts=parts)
    t2t = None if terms.t2t is None or terms.tokens is None else terms.t2t / terms.tokens.clamp(min=1)
    return combine(tag=terms.tag, t2t=t2t, dis=terms.dis, alignment=terms.alignment)


def compute_terms(model: Ram, batch: Batch, *, parts: Collection[str] | None = None) -> Terms:
    """Run the model on a batch, as :func:`compute_losses` does, and return what processes add up before they combine.

    Raises:
        InputError: As :func:`compute_losses`.
    """
    _check(model, batch, PARTS[model.config.family] if parts is None else parts)
    memory = model.encode_image(batch.pixels)
    tag = asymmetric_loss(_wide(model.decode(memory, model.queries())), batch.targets, known=batch.known)
    t2t = tokens = dis = alignment = None
    if batch.captions is not None:
        t2t, tokens = _caption_sum(model, batch.captions, memory)
    if batch.image_features is not None:
        dis = distillation_loss(_wide(memory[:, 0]), batch.image_features)
    if batch.text_features is not None:
        logits = _wide(model.decode(memory, model.queries(batch.text_features)))
        alignment = alignment_loss(logits, first=batch.first_text)
    return Terms(images=len(batch.pixels), tag=tag, t2t=t2t, tokens=tokens, dis=dis, alignment=alignment)


def _check(model: Ram, batch: Batch, parts: Collection[str]) -> None:
    family = model.config.family
    if foreign := sorted(set(parts) - set(PARTS[family])):
        raise InputError(f"{family} learns from {' and '.join(PARTS[family])} besides targets, not from {foreign[0]}")
    given = [part for part in ("captions", "image_features", "text_features") if getattr(batch, part) is not None]
    if set(given) != set(parts):
        wanted = [part for part in PARTS[family] if part in parts]
        raise InputError(
            f"a batch for {family} must hold {' and '.join(wanted) or 'nothing'} besides targets, "
            f"got {' and '.join(given) or 'neither'}"
        )
    if batch.captions is not None and model.config.text is None:
        raise InputError(f"this {family} has no captioner to train; build it with a config whose text is given")


def _caption_sum(model: Ram, captions: CaptionBatch, memory: Tensor) -> tuple[Tensor, Tensor]:
    tag_states = model.captioner.encode_tags(captions.tag_ids, captions.tag_mask, memory)
    logits = model.captioner(captions.caption_ids, captions.caption_mask, tag_states)
    labels = caption_labels(captions.caption_ids, captions.caption_mask, prompt_length=PROMPT_LENGTH)
    return caption_sum(_wide(logits), labels)


def _wide(tensor: Tensor) -> Tensor:
    """Float32 of what autocast computed in half of it: sums over thousands of tags need the digits."""
    return tensor.float() if tensor.dtype in {torch.bfloat16, torch.float16} else tensor

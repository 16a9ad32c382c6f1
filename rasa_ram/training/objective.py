"""One training step's forward pass: a batch through the model into its losses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

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
    caption_loss,
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
        text_features: float ``(B, C)``, CLIP's of one caption per image, unit-norm; for RAM++.
    """

    pixels: Tensor
    targets: Tensor
    known: Tensor | None = None
    captions: CaptionBatch | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None


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
    _check(model, batch, PARTS[model.config.family] if parts is None else parts)
    memory = model.encode_image(batch.pixels)
    tag = asymmetric_loss(model.decode(memory, model.queries()), batch.targets, known=batch.known)
    t2t = dis = alignment = None
    if batch.captions is not None:
        t2t = _caption_loss(model, batch.captions, memory)
    if batch.image_features is not None:
        dis = distillation_loss(memory[:, 0], batch.image_features)
    if batch.text_features is not None:
        alignment = alignment_loss(model.decode(memory, model.queries(batch.text_features)))
    return combine(tag=tag, t2t=t2t, dis=dis, alignment=alignment)


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


def _caption_loss(model: Ram, captions: CaptionBatch, memory: Tensor) -> Tensor:
    tag_states = model.captioner.encode_tags(captions.tag_ids, captions.tag_mask, memory)
    logits = model.captioner(captions.caption_ids, captions.caption_mask, tag_states)
    labels = caption_labels(captions.caption_ids, captions.caption_mask, prompt_length=PROMPT_LENGTH)
    return caption_loss(logits, labels)

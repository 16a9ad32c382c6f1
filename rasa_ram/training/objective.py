"""One training step's forward pass: a batch through the model into its losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rasa.errors import InputError
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
        captions: For RAM and Tag2Text.
        image_features: float ``(B, C)``, CLIP's, not normalised; for RAM and RAM++.
        text_features: float ``(B, C)``, CLIP's of one caption per image, unit-norm; for RAM++.
    """

    pixels: Tensor
    targets: Tensor
    captions: CaptionBatch | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None


# What each family learns from besides tags.
_NEEDS = {
    "ram": ("captions", "image_features"),
    "tag2text": ("captions",),
    "ram-plus": ("image_features", "text_features"),
}


def compute_losses(model: Ram, batch: Batch) -> Losses:
    """Run the model on a batch and compute its losses; ``Losses.total`` is what to differentiate.

    Args:
        model: RAM, Tag2Text (both with a captioner) or RAM++; its mode, training or evaluation, decides on dropout.
        batch: Samples with all that the family learns from.

    Raises:
        InputError: If the batch lacks what the family learns from or holds more, or the model has no captioner.
    """
    _check(model, batch)
    memory = model.encode_image(batch.pixels)
    tag = asymmetric_loss(model.decode(memory, model.queries()), batch.targets)
    t2t = dis = alignment = None
    if batch.captions is not None:
        t2t = _caption_loss(model, batch.captions, memory)
    if batch.image_features is not None:
        dis = distillation_loss(memory[:, 0], batch.image_features)
    if batch.text_features is not None:
        alignment = alignment_loss(model.decode(memory, model.queries(batch.text_features)))
    return combine(tag=tag, t2t=t2t, dis=dis, alignment=alignment)


def _check(model: Ram, batch: Batch) -> None:
    family = model.config.family
    given = [part for part in ("captions", "image_features", "text_features") if getattr(batch, part) is not None]
    if sorted(given) != sorted(_NEEDS[family]):
        raise InputError(
            f"a batch for {family} must hold {' and '.join(_NEEDS[family])} besides targets, "
            f"got {' and '.join(given) or 'neither'}"
        )
    if batch.captions is not None and model.config.text is None:
        raise InputError(f"this {family} has no captioner to train; build it with a config whose text is given")


def _caption_loss(model: Ram, captions: CaptionBatch, memory: Tensor) -> Tensor:
    tag_states = model.captioner.encode_tags(captions.tag_ids, captions.tag_mask, memory)
    logits = model.captioner(captions.caption_ids, captions.caption_mask, tag_states)
    labels = caption_labels(captions.caption_ids, captions.caption_mask, prompt_length=PROMPT_LENGTH)
    return caption_loss(logits, labels)

"""The losses that the models were trained with, and their sums; all of them plain functions of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rasa.errors import InputError

# Smallest probability whose logarithm is taken (the published code of arXiv:2009.14119).
LOG_FLOOR = 1e-8
# Focusing power of the negatives in RAM++'s image-to-text alignment (arXiv:2310.15200; tagging keeps 7).
ALIGNMENT_GAMMA_NEG = 4.0
# Label smoothing of the caption loss, from BLIP (arXiv:2201.12086).
LABEL_SMOOTHING = 0.1
# Label of a position that does not count.
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What a training step minimises, and its parts; scalars, None where the model has no such part.

    Attributes:
        total: The sum to differentiate.
        tag: Asymmetric loss of the tags, summed over images and tags, before it is rescaled for the sum.
        t2t: Caption loss, tags and image to text, mean over tokens.
        dis: Distance to CLIP's image feature, mean over images and channels.
        alignment: Asymmetric loss between all images and all captions of the batch, summed.
    """

    total: Tensor
    tag: Tensor
    t2t: Tensor | None = None
    dis: Tensor | None = None
    alignment: Tensor | None = None


def asymmetric_loss(  # noqa: PLR0913  (the last four are options of their own)
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 7.0,
    gamma_pos: float = 0.0,
    clip: float | None = 0.05,
    weight_gradient: bool = False,
    known: Tensor | None = None,
) -> Tensor:
    """Multi-label loss that down-weights easy negatives.

    The probability q of a negative to be none is first shifted to min(q + clip, 1), so that
    tags the model already rejects with confidence add nothing.

    Args:
        logits: Float, any shape such as ``(B, T)``, before the sigmoid.
        targets: Same shape, 1 where the tag is present and 0 elsewhere.
        gamma_neg: Focusing power of the negatives; larger ignores more of them.
        gamma_pos: Focusing power of the positives.
        clip: Shift of the negatives, in [0, 1); None is 0.
        weight_gradient: Whether the focusing weight is differentiated too; published models took it as constant.
        known: bool, same shape, False where nobody knows whether the tag is present; None where all are known.

    Returns:
        Scalar: the sum over all entries, in nats.

    Raises:
        InputError: If the shapes differ or an option is out of range.

    Source:
        Ridnik et al., "Asymmetric Loss for Multi-Label Classification", arXiv:2009.14119.
    """
    _require_same_shape("logits", logits, "targets", targets)
    if known is not None:
        _require_same_shape("logits", logits, "known", known)
    shift = 0.0 if clip is None else clip
    if not 0 <= shift < 1 or gamma_neg < 0 or gamma_pos < 0:
        raise InputError(f"clip must be in [0, 1) and gammas at least 0, got {clip}, {gamma_neg} and {gamma_pos}")
    targets = targets.to(logits.dtype)
    present = torch.sigmoid(logits)
    absent = 1 - present
    if shift > 0:
        absent = (absent + shift).clamp(max=1)
    log_likelihood = targets * present.clamp(min=LOG_FLOOR).log() + (1 - targets) * absent.clamp(min=LOG_FLOOR).log()
    if gamma_neg > 0 or gamma_pos > 0:
        likelihood = present * targets + absent * (1 - targets)
        weight = (1 - likelihood) ** (gamma_pos * targets + gamma_neg * (1 - targets))
        log_likelihood = log_likelihood * (weight if weight_gradient else weight.detach())
    return -(log_likelihood if known is None else log_likelihood * known).sum()


def caption_labels(ids: Tensor, mask: Tensor, *, prompt_length: int) -> Tensor:
    """Labels of :func:`caption_loss`: the ids, with padding and the prompt's positions ignored.

    Args:
        ids: int64 ``(B, S)`` WordPiece ids of captions, start token first.
        mask: ``(B, S)``, 1 for tokens and 0 for padding.
        prompt_length: Positions from the start that do not count, whatever they hold: the published data
            had no prompt in front of the captions, which leaves their first three words untrained.
    """
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :prompt_length] = IGNORED
    return labels


def caption_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross entropy with label smoothing.

    Args:
        logits: ``(B, S, V)``; those at position i predict the label at i + 1.
        labels: int64 ``(B, S)`` from :func:`caption_labels`.

    Returns:
        Scalar: the mean over the positions that count, in nats; 0 if none does.

    Raises:
        InputError: If the shapes do not fit.
    """
    total, count = caption_sum(logits, labels)
    # A mean over nothing would be NaN and spoil every weight.
    return total / count.clamp(min=1)


def caption_sum(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the parts of :func:`caption_loss`, as processes add them up: the sum and the number of positions.

    Raises:
        InputError: If the shapes do not fit.
    """
    if logits.shape[:-1] != labels.shape:
        raise InputError(f"labels must have shape {tuple(logits.shape[:-1])}, got {tuple(labels.shape)}")
    predicted, expected = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    total = F.cross_entropy(predicted, expected, ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING, reduction="sum")
    return total, (expected != IGNORED).sum()


def distillation_loss(image: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference between the pooled image token and CLIP's image feature.

    Args:
        image: ``(B, C)``, the first token of ``Ram.encode_image``.
        teacher: ``(B, C)``, CLIP's, not normalised; it receives no gradient.

    Raises:
        InputError: If the shapes differ.
    """
    _require_same_shape("image", image, "teacher", teacher)
    return F.l1_loss(image, teacher.detach())


def alignment_loss(logits: Tensor, *, first: int | None = None) -> Tensor:
    """Asymmetric loss between all images and all captions of a batch; only those of the same row belong together.

    Args:
        logits: ``(B, B)``, image by caption; ``(B, M)`` with ``first``.
        first: Column of the first image's caption, where there are captions of other processes too.

    Raises:
        InputError: If ``logits`` is not square, or lacks a column for an image.
    """
    if logits.ndim != 2 or (first is None and logits.shape[0] != logits.shape[1]):
        raise InputError(f"alignment logits must have shape (B, B), one caption per image, got {tuple(logits.shape)}")
    start = first or 0
    if not 0 <= start <= logits.shape[1] - logits.shape[0]:
        raise InputError(f"alignment logits {tuple(logits.shape)} lack captions of the images from column {start} on")
    same = torch.zeros_like(logits)
    same.diagonal(start).fill_(1)
    return asymmetric_loss(logits, same, gamma_neg=ALIGNMENT_GAMMA_NEG)


def combine(
    *, tag: Tensor, t2t: Tensor | None = None, dis: Tensor | None = None, alignment: Tensor | None = None
) -> Losses:
    """Sum the parts as published: RAM has tag, t2t and dis, Tag2Text tag and t2t, RAM++ tag, dis and alignment.

    With a caption loss the tagging loss is rescaled to its value, by a factor that receives no gradient.

    Source:
        arXiv:2303.05657, arXiv:2306.03514, arXiv:2310.15200 and the training code of the published models.
    """
    total = tag
    if t2t is not None:
        # A tagging loss of 0 has a gradient of 0 too: any finite factor will do.
        factor = t2t.detach() / tag.detach().clamp(min=torch.finfo(tag.dtype).eps)
        total = t2t + tag * factor
    for part in (dis, alignment):
        if part is not None:
            total = total + part
    return Losses(total=total, tag=tag, t2t=t2t, dis=dis, alignment=alignment)


def _require_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise InputError(
            f"{first_name} and {second_name} must have the same shape, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )

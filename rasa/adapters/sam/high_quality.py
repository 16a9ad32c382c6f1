"""SAM-HQ's features and mask decoder, from transformers' modules.

The decoder of transformers 5.23 upscales the image features from before its transformer, not from after it as the
published code does: with random weights its logits were off by 0.1 to 0.2 where their mean size is 0.9.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def high_quality_features(decoder: nn.Module, embedding: Tensor, early: Tensor) -> Tensor:
    """What refines the masks of every box of an image.

    Args:
        decoder: Mask decoder of a ``SamHQModel``.
        embedding: ``(B, C, h, w)``.
        early: ``(B, h, w, D)``, out of the first encoder layer that sees the whole image.

    Returns:
        ``(B, C / 8, 4 h, 4 w)``.

    Source:
        ``MaskDecoderHQ.forward`` of segment-anything-hq 0.3; Ke et al., arXiv:2306.01567.
    """
    late = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(embedding))))
    early = decoder.compress_vit_conv1(early.permute(0, 3, 1, 2))
    return late + decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(early)))


def decode_high_quality(
    decoder: nn.Module, embedding: Tensor, extra: Tensor, *, positions: Tensor, prompts: Tensor, multimask: bool
) -> tuple[Tensor, Tensor]:
    """Masks of N boxes of one image: the decoder's own plus the high-quality one.

    Args:
        decoder: Mask decoder of a ``SamHQModel``.
        embedding: ``(1, C, h, w)``, with the embedding of "no mask" added.
        extra: Of :func:`high_quality_features`, B = 1.
        positions: ``(1, C, h, w)``.
        prompts: ``(1, N, P, C)``.
        multimask: Three masks a box instead of one.

    Returns:
        Logits ``(N, M, 4 h, 4 w)`` and predicted intersection over union ``(N, M)``.

    Source:
        ``MaskDecoderHQ.predict_masks`` of segment-anything-hq 0.3, with ``hq_token_only=False``.
    """
    count, size = prompts.shape[1], embedding.shape[-2:]
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
    hidden, image = decoder.transformer(
        point_embeddings=torch.cat([tokens.expand(1, count, -1, -1), prompts], dim=2),
        image_embeddings=embedding.repeat_interleave(count, 0),
        image_positional_embeddings=positions.repeat_interleave(count, 0),
        attention_similarity=None,
    )
    fine = _upscale(decoder, image.reshape(count, -1, embedding.shape[1]).transpose(1, 2).unflatten(2, size))
    best = decoder.mask_conv2(decoder.activation(decoder.mask_norm(decoder.mask_conv1(fine)))) + extra
    masks = decoder.mask_tokens.num_embeddings
    kept = slice(1, masks) if multimask else slice(0, 1)
    heads = [*decoder.output_hypernetworks_mlps][kept]
    answers = torch.stack([head(hidden[0, :, 1 + kept.start + i]) for i, head in enumerate(heads)], dim=1)
    refined = decoder.hq_mask_mlp(hidden[0, :, 1 + masks])[:, None]
    logits = (answers @ fine.flatten(2) + refined @ best.flatten(2)).unflatten(2, fine.shape[-2:])
    return logits, decoder.iou_prediction_head(hidden[0, :, 0])[:, kept]


def _upscale(decoder: nn.Module, image: Tensor) -> Tensor:
    fine = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image)))
    return decoder.activation(decoder.upscale_conv2(fine))

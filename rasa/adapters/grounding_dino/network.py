"""Grounding DINO's forward pass in parts, so that what several captions or images share is computed once.

    pixels --encode_images--> ImageFeatures ─┐
    tokens --encode_text--> TextFeatures ────┴─ fuse --> Fused --choose--> Queries --decode--> Prediction

Made of the modules of transformers' ``GroundingDinoForObjectDetection`` and ``MMGroundingDinoForObjectDetection``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.grounding_dino.modeling_grounding_dino import (
    MultiScaleDeformableAttention,
    encode_sinusoidal_position_embedding,
)

from rasa._torch.dense import use_dense
from rasa.adapters.grounding_dino.deformable import DeformableSampling
from rasa.adapters.grounding_dino.features import Fused, ImageFeatures, Prediction, Queries, TextFeatures
from rasa.adapters.grounding_dino.fusion import fuse
from rasa.adapters.grounding_dino.text import PAD, token_blocks
from rasa.errors import InputError

# Limits of a coordinate before the inverse sigmoid (GroundingDINO, util/misc.py); transformers has 1e-5.
CLAMP = 1e-3


class GroundingDinoNetwork(nn.Module):
    """Grounding DINO or MM Grounding DINO, in evaluation mode.

    In half types the text encoder, the deformable sampling and all box coordinates stay in float32.

    Args:
        model: transformers' model with its weights; changed in place: its sampling and dense layers are exchanged for
            faster ones.
        clamp: See :data:`CLAMP`.

    Raises:
        InputError: If the text encoder's attention is of another kind than ``sdpa``, the only one that obeys its mask,
            or the model has one stage.
    """

    def __init__(self, model: Any, *, clamp: float = CLAMP) -> None:
        super().__init__()
        kind = model.model.text_backbone.config._attn_implementation  # noqa: SLF001  (there is no other way to ask)
        if kind != "sdpa":
            raise InputError(f'the text encoder uses "{kind}" attention, which takes its mask for numbers; use "sdpa"')
        if not model.config.two_stage:
            raise InputError("the model has one stage; only two-stage models, as all published ones are, can be run")
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, MultiScaleDeformableAttention) or type(child).__name__ == _SAMPLING:
                    setattr(module, name, DeformableSampling())
                elif type(child) is nn.ReLU:  # of the feed-forward layers, whose input nobody else reads
                    setattr(module, name, nn.ReLU(inplace=True))
        use_dense(model)
        self.model = model.eval()
        self.clamp = clamp

    @property
    def config(self) -> Any:
        """The configuration, as transformers has it."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the image side."""
        return self.model.model.level_embed.dtype

    @property
    def device(self) -> torch.device:
        """Of all weights."""
        return self.model.model.level_embed.device

    @property
    def max_tokens(self) -> int:
        """Most tokens of a caption."""
        return int(min(self.config.max_text_len, self.config.text_config.max_position_embeddings))

    def to_dtype(self, dtype: torch.dtype) -> GroundingDinoNetwork:
        """Change the dtype in place; of half types the text encoder is spared."""
        inner = self.model.model
        text = (inner.text_backbone, inner.text_projection)
        spared = {id(parameter) for module in text for parameter in module.parameters()}
        for parameter in self.parameters():
            # Not half and back: that would round.
            parameter.data = parameter.data.to(_wide(dtype) if id(parameter) in spared else dtype)
        return self

    def encode_images(self, pixels: Tensor, *, present: Tensor | None = None) -> ImageFeatures:
        """Run the backbone.

        Args:
            pixels: ``(B, 3, H, W)``, normalised.
            present: bool ``(B, H, W)``, false on padding; None where there is none.
        """
        inner = self.model.model
        mask = torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.bool, device=pixels.device)
        mask = mask if present is None else present
        sources = [source for source, _ in inner.backbone.conv_encoder(pixels, mask)]
        maps = [project(source) for project, source in zip(inner.input_proj_vision, sources)]  # noqa: B905
        for project in inner.input_proj_vision[len(maps) :]:
            maps.append(project(sources[-1] if len(maps) == len(sources) else maps[-1]))
        masks = [F.interpolate(mask[None].float(), size=each.shape[-2:])[0].bool() for each in maps]
        places = [
            (inner.backbone.position_embedding(each, seen).to(each.dtype) + level[:, None, None]).flatten(2)
            for each, seen, level in zip(maps, masks, inner.level_embed, strict=True)
        ]
        wide = _wide(pixels.dtype)
        return ImageFeatures(
            tokens=torch.cat([each.flatten(2) for each in maps], 2).transpose(1, 2).contiguous(),
            places=torch.cat(places, 2).transpose(1, 2).contiguous(),
            padding=None if present is None else ~torch.cat([seen.flatten(1) for seen in masks], 1),
            valid=torch.stack([inner.get_valid_ratio(seen, dtype=wide) for seen in masks], 1),
            shapes=tuple((each.shape[-2], each.shape[-1]) for each in maps),
        )

    def encode_text(self, token_ids: Sequence[int]) -> TextFeatures:
        """Run the text encoder on one caption of L tokens.

        Raises:
            InputError: If it has more tokens than :attr:`max_tokens`.
        """
        if len(token_ids) > self.max_tokens:
            raise InputError(f"a caption has {len(token_ids)} tokens, and at most {self.max_tokens} are read; split it")
        ids = torch.tensor([list(token_ids)], device=self.device)
        sees, positions = (torch.from_numpy(each).to(self.device) for each in token_blocks(ids.cpu().numpy()))
        inner = self.model.model
        encoded = inner.text_backbone(ids, sees[:, None], torch.zeros_like(ids), positions).last_hidden_state
        return TextFeatures(inner.text_projection(encoded), ids != PAD, sees, positions)

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Prediction:
        """Find boxes; row i of the image features is asked for row i of the text features."""
        fused = self.fuse(image, text)
        queries = self.choose(fused, image, text)
        return self.decode(fused, queries, image=image, text=text)

    def fuse(self, image: ImageFeatures, text: TextFeatures) -> Fused:
        """Run the encoder, in which image and text see each other."""
        encoder = self.model.model.encoder
        device = image.tokens.device
        reference = encoder.get_reference_points(image.shapes, image.valid, device=device)
        where = {"spatial_shapes": torch.tensor(image.shapes, device=device), "spatial_shapes_list": image.shapes}
        pictures, words = image.tokens, text.tokens.to(image.tokens.dtype)
        order = encode_sinusoidal_position_embedding(
            text.positions[..., None].to(text.tokens.dtype), num_pos_feats=self.config.d_model
        ).to(words.dtype)
        for layer in encoder.layers:
            pictures, words = fuse(layer.fusion_layer, pictures, words, padding=image.padding, present=text.present)
            words, _ = layer.text_enhancer_layer(words, attention_masks=text.sees, position_embeddings=order)
            pictures, _ = layer.deformable_layer(
                pictures,
                attention_mask=None if image.padding is None else ~image.padding,
                position_embeddings=image.places,
                reference_points=reference,
                **where,
            )
        return Fused(pictures, words)

    def choose(self, fused: Fused, image: ImageFeatures, text: TextFeatures) -> Queries:
        """Choose the places that become boxes: those that look most like any token.

        The i-th best place gets the i-th learned query, so rounding that swaps two near-equal places swaps two rows
        of the answer, and moves the logits of all others by some 1e-3 (Swin-T with random weights).
        """
        inner = self.model.model
        proposals, usable = _proposals(image, fused.image)
        objects = inner.enc_output_norm(inner.enc_output(fused.image.masked_fill(~usable, 0)))
        head = inner.encoder_output_class_embed
        scores = _token_logits(head, objects, fused.text, present=text.present).amax(-1)
        count = min(self.config.num_queries, scores.shape[1])
        index = scores.topk(count, dim=1).indices
        rows = index[..., None].expand(-1, -1, 4)
        # The box head runs on the chosen alone, a twentieth of all places.
        chosen = objects.gather(1, index[..., None].expand(-1, -1, objects.shape[-1]))
        delta = inner.encoder_output_bbox_embed(chosen).to(proposals.dtype)
        return Queries(index, scores, (proposals.gather(1, rows) + delta).sigmoid())

    def decode(self, fused: Fused, queries: Queries, *, image: ImageFeatures, text: TextFeatures) -> Prediction:
        """Turn the chosen places into boxes with a logit per token."""
        inner, boxes = self.model.model, queries.boxes
        decoder = inner.decoder
        count = boxes.shape[1]
        states = inner.query_position_embeddings.weight[:count].expand(len(boxes), -1, -1)
        words_mask = torch.zeros(len(boxes), 1, 1, fused.text.shape[1], dtype=states.dtype, device=states.device)
        words_mask = words_mask.masked_fill(~text.present[:, None, None], torch.finfo(states.dtype).min)
        shared = {
            "spatial_shapes": torch.tensor(image.shapes, device=states.device),
            "spatial_shapes_list": image.shapes,
            "vision_encoder_hidden_states": fused.image,
            "vision_encoder_attention_mask": None if image.padding is None else ~image.padding,
            "text_encoder_hidden_states": fused.text,
            "text_encoder_attention_mask": words_mask,
        }
        scale = torch.cat([image.valid, image.valid], -1)[:, None]
        inner_so_far = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
        for layer, head in zip(decoder.layers, decoder.bbox_embed, strict=True):
            start = boxes
            inner_so_far &= ((start > self.clamp) & (start < 1 - self.clamp)).all(-1)
            reference = start[:, :, None] * scale
            sine = encode_sinusoidal_position_embedding(reference[:, :, 0], num_pos_feats=self.config.d_model // 2)
            place = decoder.reference_points_head(sine.to(states.dtype))
            (states,) = layer(states, position_embeddings=place, reference_points=reference, **shared)
            boxes = self._refined(start, head(states))
        # The answer comes from normalised states, which the layers do not pass on.
        final = decoder.layer_norm(states)
        logits = _token_logits(self.model.class_embed[-1], final, fused.text, present=text.present)
        return Prediction(logits, self._refined(start, self.model.bbox_embed[-1](final)), inner_so_far)

    def _refined(self, boxes: Tensor, delta: Tensor) -> Tensor:
        return (delta.to(boxes.dtype) + torch.special.logit(boxes, eps=self.clamp)).sigmoid()


# MM Grounding DINO has a copy of its own.
_SAMPLING = "MultiScaleDeformableAttention"


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _token_logits(head: Any, queries: Tensor, words: Tensor, *, present: Tensor) -> Tensor:
    """How much each query looks like each token, ``(B, Q, L)``: transformers' heads without the padding to 256."""
    wide = _wide(queries.dtype)
    logits = queries.to(wide) @ words.to(wide).transpose(1, 2)
    if (bias := getattr(head, "bias", None)) is not None:  # MM Grounding DINO
        logits = logits / math.sqrt(queries.shape[-1]) + bias.to(wide)
    return logits.masked_fill(~present[:, None], -math.inf)


def _proposals(image: ImageFeatures, like: Tensor) -> tuple[Tensor, Tensor]:
    """A box around each place before the sigmoid, ``(B, N, 4)``, and whether it may be chosen, ``(B, N, 1)``."""
    wide, device = _wide(like.dtype), like.device
    boxes = []
    for level, (height, width) in enumerate(image.shapes):
        ys, xs = torch.meshgrid(
            torch.arange(height, dtype=wide, device=device),
            torch.arange(width, dtype=wide, device=device),
            indexing="ij",
        )
        size = (image.valid[:, level] * torch.tensor([width, height], dtype=wide, device=device))[:, None, None]
        centres = (torch.stack([xs, ys], -1) + 0.5) / size
        boxes.append(torch.cat([centres, torch.full_like(centres, 0.05 * 2**level)], -1).flatten(1, 2))
    shares = torch.cat(boxes, 1)
    usable = ((shares > 0.01) & (shares < 0.99)).all(-1, keepdim=True)
    if image.padding is not None:
        usable &= ~image.padding[..., None]
    return torch.log(shares / (1 - shares)).masked_fill(~usable, math.inf), usable

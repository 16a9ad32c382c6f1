"""The configuration of a model, told from the shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import BertConfig, GroundingDinoConfig, MMGroundingDinoConfig, SwinConfig

from rasa.adapters.grounding_dino.keys import SWIN, Weight
from rasa.errors import CheckpointError

# What the published models have and no weight shows: heads of both encoders and the decoder, and the width of a head of
# the text encoder (IDEA-Research/GroundingDINO, config/GroundingDINO_SwinT_OGC.py; bert-base-uncased).
HEADS = 8
TEXT_HEAD_WIDTH = 64


def infer_config(weights: Mapping[str, Weight], *, name: str) -> Any:
    """The configuration, as transformers has it, of a Grounding DINO or MM Grounding DINO.

    Args:
        weights: By published names.
        name: What errors call the file.

    Raises:
        CheckpointError: If a weight that shows a size is missing or has another number of dimensions.
    """
    sizes = _Sizes(weights, name)
    points = HEADS * 2 * (levels := sizes.of("model.level_embed", 2)[0])
    deformable, decoder = "model.encoder.layers.0.deformable_layer", "model.decoder.layers.0"
    kind = MMGroundingDinoConfig if "model.encoder_output_class_embed.bias" in weights else GroundingDinoConfig
    return kind(
        backbone_config=_swin(sizes),
        text_config=_bert(sizes),
        d_model=sizes.of("model.level_embed", 2)[1],
        num_queries=sizes.of("model.query_position_embeddings.weight", 2)[0],
        num_feature_levels=levels,
        encoder_layers=sizes.count(r"model\.encoder\.layers\.(\d+)\."),
        encoder_ffn_dim=sizes.of(f"{deformable}.fc1.weight", 2)[0],
        encoder_attention_heads=HEADS,
        encoder_n_points=sizes.of(f"{deformable}.self_attn.sampling_offsets.weight", 2)[0] // points,
        decoder_layers=sizes.count(r"model\.decoder\.layers\.(\d+)\."),
        decoder_ffn_dim=sizes.of(f"{decoder}.fc1.weight", 2)[0],
        decoder_attention_heads=HEADS,
        decoder_n_points=sizes.of(f"{decoder}.encoder_attn.sampling_offsets.weight", 2)[0] // points,
        **_sharing(weights, mm=kind is MMGroundingDinoConfig),
    )


def _swin(sizes: _Sizes) -> SwinConfig:
    blocks = rf"{re.escape(SWIN)}\.(?:swin\.)?encoder\.layers\.(\d+)\."
    stages = range(sizes.count(blocks))
    tables = [sizes.of(f"{SWIN}.encoder.layers.{i}.blocks.0.{_TABLE}", 2) for i in stages]
    width, _, patch, _ = sizes.of(f"{SWIN}.embeddings.patch_embeddings.projection.weight", 4)
    window = (math.isqrt(tables[0][0]) + 1) // 2
    return SwinConfig(
        image_size=384 if window == 12 else 224,  # of the pretraining; nothing depends on it
        patch_size=patch,
        embed_dim=width,
        depths=[sizes.count(rf"{re.escape(SWIN)}\.encoder\.layers\.{i}\.blocks\.(\d+)\.") for i in stages],
        num_heads=[heads for _, heads in tables],
        window_size=window,
        mlp_ratio=sizes.of(f"{SWIN}.encoder.layers.0.blocks.0.intermediate.dense.weight", 2)[0] / width,
        out_features=sorted({found[1] for key in sizes.weights if (found := _STAGE.match(key))}),
    )


_TABLE = "attention.self.relative_position_bias_table"
_STAGE = re.compile(rf"{re.escape(SWIN)}\.hidden_states_norms\.(stage\d+)\.")


def _bert(sizes: _Sizes) -> BertConfig:
    words, width = sizes.of("model.text_backbone.embeddings.word_embeddings.weight", 2)
    return BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=sizes.count(r"model\.text_backbone\.encoder\.layer\.(\d+)\."),
        num_attention_heads=max(1, width // TEXT_HEAD_WIDTH),
        intermediate_size=sizes.of("model.text_backbone.encoder.layer.0.intermediate.dense.weight", 2)[0],
        max_position_embeddings=sizes.of("model.text_backbone.embeddings.position_embeddings.weight", 2)[0],
    )


def _sharing(weights: Mapping[str, Weight], *, mm: bool) -> dict[str, bool]:
    """Whether the decoder's layers share their heads: they do unless the file holds two that differ."""
    shared = {"decoder_bbox_embed_share": _alike(weights, "bbox_embed.{}.layers.0.weight")}
    return shared | ({"decoder_cls_embed_share": _alike(weights, "class_embed.{}.bias")} if mm else {})


def _alike(weights: Mapping[str, Weight], template: str) -> bool:
    for prefix in ("", "model.decoder."):
        first, second = (weights.get(prefix + template.format(i)) for i in (0, 1))
        if first and second and not first.tensor.is_meta:
            return torch.equal(first.tensor, second.tensor)
    return True


class _Sizes:
    """Questions to the shapes, answered or refused by name."""

    def __init__(self, weights: Mapping[str, Weight], name: str) -> None:
        self.weights, self._name = weights, name

    def of(self, key: str, dimensions: int) -> tuple[int, ...]:
        if key not in self.weights:
            raise CheckpointError(f'{self._name} lacks "{key}"; fetch the file again, or pass the configuration')
        shape = tuple(self.weights[key].tensor.shape)
        if len(shape) != dimensions:
            raise CheckpointError(
                f'{self._name}: "{self.weights[key].key}" must have {dimensions} dimensions, got shape {shape}; '
                "fetch the file again"
            )
        return shape

    def count(self, pattern: str) -> int:
        found = {int(match[1]) for key in self.weights if (match := re.match(pattern, key))}
        if not found:
            raise CheckpointError(f"{self._name} holds no tensor like {pattern}; fetch the file again")
        return max(found) + 1

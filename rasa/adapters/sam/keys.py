"""Names of weights: those of the published files, and those of transformers' ``SamModel`` and ``SamHQModel``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from rasa.errors import CheckpointError

# Published to transformers; "#" is a number, and a weight or a bias may follow. Names that are equal in both are last.
_TABLE = (
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection"),
    ("image_encoder.blocks.#.norm1", "vision_encoder.layers.#.layer_norm1"),
    ("image_encoder.blocks.#.norm2", "vision_encoder.layers.#.layer_norm2"),
    ("image_encoder.blocks.#.attn.qkv", "vision_encoder.layers.#.attn.qkv"),
    ("image_encoder.blocks.#.attn.proj", "vision_encoder.layers.#.attn.proj"),
    ("image_encoder.blocks.#.attn.rel_pos_h", "vision_encoder.layers.#.attn.rel_pos_h"),
    ("image_encoder.blocks.#.attn.rel_pos_w", "vision_encoder.layers.#.attn.rel_pos_w"),
    ("image_encoder.blocks.#.mlp.lin1", "vision_encoder.layers.#.mlp.lin1"),
    ("image_encoder.blocks.#.mlp.lin2", "vision_encoder.layers.#.mlp.lin2"),
    ("image_encoder.neck.0", "vision_encoder.neck.conv1"),
    ("image_encoder.neck.1", "vision_encoder.neck.layer_norm1"),
    ("image_encoder.neck.2", "vision_encoder.neck.conv2"),
    ("image_encoder.neck.3", "vision_encoder.neck.layer_norm2"),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    ("prompt_encoder.point_embeddings.#", "prompt_encoder.point_embed.#"),
    ("prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
    ("prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
    ("prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
    ("prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
    ("prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    ("mask_decoder.transformer.layers.#.norm1", "mask_decoder.transformer.layers.#.layer_norm1"),
    ("mask_decoder.transformer.layers.#.norm2", "mask_decoder.transformer.layers.#.layer_norm2"),
    ("mask_decoder.transformer.layers.#.norm3", "mask_decoder.transformer.layers.#.layer_norm3"),
    ("mask_decoder.transformer.layers.#.norm4", "mask_decoder.transformer.layers.#.layer_norm4"),
    ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
    ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
    ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    # SAM-HQ.
    ("mask_decoder.hf_token", "mask_decoder.hq_token"),
    ("mask_decoder.compress_vit_feat.0", "mask_decoder.compress_vit_conv1"),
    ("mask_decoder.compress_vit_feat.1", "mask_decoder.compress_vit_norm"),
    ("mask_decoder.compress_vit_feat.3", "mask_decoder.compress_vit_conv2"),
    ("mask_decoder.embedding_encoder.0", "mask_decoder.encoder_conv1"),
    ("mask_decoder.embedding_encoder.1", "mask_decoder.encoder_norm"),
    ("mask_decoder.embedding_encoder.3", "mask_decoder.encoder_conv2"),
    ("mask_decoder.embedding_maskfeature.0", "mask_decoder.mask_conv1"),
    ("mask_decoder.embedding_maskfeature.1", "mask_decoder.mask_norm"),
    ("mask_decoder.embedding_maskfeature.3", "mask_decoder.mask_conv2"),
    *(
        (name, name)
        for name in (
            "prompt_encoder.not_a_point_embed",
            "prompt_encoder.no_mask_embed",
            "mask_decoder.iou_token",
            "mask_decoder.mask_tokens",
            "mask_decoder.transformer.layers.#.mlp.lin1",
            "mask_decoder.transformer.layers.#.mlp.lin2",
            *(
                f"mask_decoder.transformer.{attention}.{part}_proj"
                for attention in (
                    "layers.#.self_attn",
                    "layers.#.cross_attn_token_to_image",
                    "layers.#.cross_attn_image_to_token",
                    "final_attn_token_to_image",
                )
                for part in ("q", "k", "v", "out")
            ),
        )
    ),
)
# Stacks of dense layers, numbered in the published files; transformers calls the first and the last by names.
_STACKS = (
    ("mask_decoder.output_hypernetworks_mlps.#", "mask_decoder.output_hypernetworks_mlps.#"),
    ("mask_decoder.iou_prediction_head", "mask_decoder.iou_prediction_head"),
    ("mask_decoder.hf_mlp", "mask_decoder.hq_mask_mlp"),
)
_SHARED = "shared_image_embedding.positional_embedding"
# The same tensor again: transformers ties the two names, and a file holds one or both.
TIED = "prompt_encoder.shared_embedding.positional_embedding"

_Rule = tuple[re.Pattern[str], str]


def is_transformers(names: Iterable[str]) -> bool:
    """Whether the names of a file are those of transformers."""
    return any(name.startswith("vision_encoder.") for name in names)


def to_transformers(tensors: Mapping[str, Tensor], *, file: str) -> dict[str, Tensor]:
    """Tensors of a published file by transformers' names; the tied name is left out.

    Raises:
        CheckpointError: If a name is none of the published ones; ``file`` says where.
    """
    depths = _stack_depths(tensors)
    return {_renamed(_numbered_to_named(name, depths), _FORWARD, file): value for name, value in tensors.items()}


def to_published(tensors: Mapping[str, Tensor], *, file: str) -> dict[str, Tensor]:
    """Tensors of a transformers file by published names; the tied name is dropped.

    Raises:
        CheckpointError: If a name is none of transformers', or the two tied tensors differ; ``file`` says where.
    """
    found = dict(tensors)
    tied = found.pop(TIED, None)
    if tied is not None and not found.setdefault(_SHARED, tied).equal(tied):
        raise CheckpointError(f"{file}: {TIED} and {_SHARED} must be equal; fetch the weights again")
    renamed = {_renamed(name, _BACKWARD, file): value for name, value in found.items()}
    depths = _stack_depths(renamed)
    return {_named_to_numbered(name, depths): value for name, value in renamed.items()}


def _compile(pairs: Iterable[tuple[str, str]]) -> list[_Rule]:
    rules = []
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\#", r"(\d+)")
        rules.append((re.compile(pattern + r"(\.weight|\.bias)?"), target.replace("#", r"\g<1>")))
    return rules


def _stack_pairs() -> list[tuple[str, str]]:
    layers = ("proj_in", "proj_out", *(f"layers.{i}" for i in range(8)))
    return [(f"{ours}.{layer}", f"{theirs}.{layer}") for ours, theirs in _STACKS for layer in layers]


_FORWARD = _compile((*_TABLE, *_stack_pairs()))
_BACKWARD = _compile((theirs, ours) for ours, theirs in (*_TABLE, *_stack_pairs()))
_STACK_LAYER = re.compile(
    "("
    + "|".join(re.escape(ours).replace(r"\#", r"\d+") for ours, _ in _STACKS)
    + r")\.(layers\.(\d+)|proj_in|proj_out)\."
)


def _renamed(name: str, rules: list[_Rule], file: str) -> str:
    for pattern, target in rules:
        if found := pattern.fullmatch(name):
            return found.expand(target) + (found[found.re.groups] or "")
    raise CheckpointError(f'{file} holds "{name}", which is no weight of Segment Anything; fetch its own checkpoint')


def _stack_depths(names: Iterable[str]) -> dict[str, int]:
    """Number of dense layers of each stack, by its published name."""
    layers: dict[str, set[str]] = {}
    for name in names:
        if found := _STACK_LAYER.match(name):
            layers.setdefault(found[1], set()).add(found[2])
    return {stack: len(found) for stack, found in layers.items()}


def _numbered_to_named(name: str, depths: Mapping[str, int]) -> str:
    found = _STACK_LAYER.match(name)
    if found is None or found[3] is None:
        return name
    number, last = int(found[3]), depths[found[1]] - 1
    layer = "proj_in" if number == 0 else "proj_out" if number == last else f"layers.{number - 1}"
    return f"{found[1]}.{layer}.{name[found.end() :]}"


def _named_to_numbered(name: str, depths: Mapping[str, int]) -> str:
    found = _STACK_LAYER.match(name)
    if found is None:
        return name
    places = {"proj_in": 0, "proj_out": depths[found[1]] - 1}
    number = places[found[2]] if found[3] is None else int(found[3]) + 1
    return f"{found[1]}.layers.{number}.{name[found.end() :]}"

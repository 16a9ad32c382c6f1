"""Names of the weights: the authors' own, those published for transformers, and those in memory.

    original .pth --read_names--> published names --in_memory--> names of the module

A template names a module or a tensor; ``#`` stands for an index, and what follows the template is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from rasa.errors import CheckpointError

Pairs = Sequence[tuple[str, str]]

SWIN = "model.backbone.conv_encoder.model"
_BLOCK, _SWIN_BLOCK = "backbone.0.layers.#.blocks.#", f"{SWIN}.encoder.layers.#.blocks.#"
_IMAGE, _TEXT, _FUSION = (f"transformer.encoder.{kind}.#" for kind in ("layers", "text_layers", "fusion_layers"))
_LAYER = "model.encoder.layers.#"
_DECODER, _DECODER_LAYER = "transformer.decoder.layers.#", "model.decoder.layers.#"

# Original to published, from the reference's README; one tensor to one.
_PLAIN: Pairs = (
    ("backbone.0.patch_embed.proj", f"{SWIN}.embeddings.patch_embeddings.projection"),
    ("backbone.0.patch_embed.norm", f"{SWIN}.embeddings.norm"),
    (f"{_BLOCK}.norm1", f"{_SWIN_BLOCK}.layernorm_before"),
    (f"{_BLOCK}.norm2", f"{_SWIN_BLOCK}.layernorm_after"),
    (f"{_BLOCK}.attn.proj", f"{_SWIN_BLOCK}.attention.output.dense"),
    (f"{_BLOCK}.attn.relative_position_bias_table", f"{_SWIN_BLOCK}.attention.self.relative_position_bias_table"),
    (f"{_BLOCK}.mlp.fc1", f"{_SWIN_BLOCK}.intermediate.dense"),
    (f"{_BLOCK}.mlp.fc2", f"{_SWIN_BLOCK}.output.dense"),
    ("backbone.0.layers.#.downsample", f"{SWIN}.encoder.layers.#.downsample"),
    *((f"backbone.0.norm{i}", f"{SWIN}.hidden_states_norms.stage{i + 1}") for i in (1, 2, 3)),
    ("input_proj", "model.input_proj_vision"),
    ("bert", "model.text_backbone"),
    ("feat_map", "model.text_projection"),
    ("transformer.level_embed", "model.level_embed"),
    ("transformer.tgt_embed", "model.query_position_embeddings"),
    ("transformer.enc_output", "model.enc_output"),
    ("transformer.enc_output_norm", "model.enc_output_norm"),
    ("transformer.enc_out_bbox_embed", "model.encoder_output_bbox_embed"),
    ("bbox_embed", "bbox_embed"),
    ("transformer.decoder.bbox_embed", "model.decoder.bbox_embed"),
    ("transformer.decoder.norm", "model.decoder.layer_norm"),
    ("transformer.decoder.ref_point_head", "model.decoder.reference_points_head"),
    (f"{_IMAGE}.self_attn", f"{_LAYER}.deformable_layer.self_attn"),
    (f"{_IMAGE}.norm1", f"{_LAYER}.deformable_layer.self_attn_layer_norm"),
    (f"{_IMAGE}.norm2", f"{_LAYER}.deformable_layer.final_layer_norm"),
    (f"{_IMAGE}.linear1", f"{_LAYER}.deformable_layer.fc1"),
    (f"{_IMAGE}.linear2", f"{_LAYER}.deformable_layer.fc2"),
    (f"{_TEXT}.self_attn.out_proj", f"{_LAYER}.text_enhancer_layer.self_attn.out_proj"),
    (f"{_TEXT}.norm1", f"{_LAYER}.text_enhancer_layer.layer_norm_before"),
    (f"{_TEXT}.norm2", f"{_LAYER}.text_enhancer_layer.layer_norm_after"),
    (f"{_TEXT}.linear1", f"{_LAYER}.text_enhancer_layer.fc1"),
    (f"{_TEXT}.linear2", f"{_LAYER}.text_enhancer_layer.fc2"),
    (f"{_FUSION}.gamma_v", f"{_LAYER}.fusion_layer.vision_param"),
    (f"{_FUSION}.gamma_l", f"{_LAYER}.fusion_layer.text_param"),
    (f"{_FUSION}.layer_norm_v", f"{_LAYER}.fusion_layer.layer_norm_vision"),
    (f"{_FUSION}.layer_norm_l", f"{_LAYER}.fusion_layer.layer_norm_text"),
    (f"{_FUSION}.attn.v_proj", f"{_LAYER}.fusion_layer.attn.vision_proj"),
    (f"{_FUSION}.attn.l_proj", f"{_LAYER}.fusion_layer.attn.text_proj"),
    (f"{_FUSION}.attn.values_v_proj", f"{_LAYER}.fusion_layer.attn.values_vision_proj"),
    (f"{_FUSION}.attn.values_l_proj", f"{_LAYER}.fusion_layer.attn.values_text_proj"),
    (f"{_FUSION}.attn.out_v_proj", f"{_LAYER}.fusion_layer.attn.out_vision_proj"),
    (f"{_FUSION}.attn.out_l_proj", f"{_LAYER}.fusion_layer.attn.out_text_proj"),
    (f"{_DECODER}.self_attn.out_proj", f"{_DECODER_LAYER}.self_attn.out_proj"),
    (f"{_DECODER}.norm2", f"{_DECODER_LAYER}.self_attn_layer_norm"),
    (f"{_DECODER}.ca_text.out_proj", f"{_DECODER_LAYER}.encoder_attn_text.out_proj"),
    (f"{_DECODER}.catext_norm", f"{_DECODER_LAYER}.encoder_attn_text_layer_norm"),
    (f"{_DECODER}.cross_attn", f"{_DECODER_LAYER}.encoder_attn"),
    (f"{_DECODER}.norm1", f"{_DECODER_LAYER}.encoder_attn_layer_norm"),
    (f"{_DECODER}.linear1", f"{_DECODER_LAYER}.fc1"),
    (f"{_DECODER}.linear2", f"{_DECODER_LAYER}.fc2"),
    (f"{_DECODER}.norm3", f"{_DECODER_LAYER}.final_layer_norm"),
)
# One tensor to three, cut along its first dimension in this order.
_PARTS = ("query", "key", "value")
_PACKED: Pairs = (
    (f"{_BLOCK}.attn.qkv.", f"{_SWIN_BLOCK}.attention.self"),
    (f"{_TEXT}.self_attn.in_proj_", f"{_LAYER}.text_enhancer_layer.self_attn"),
    (f"{_DECODER}.self_attn.in_proj_", f"{_DECODER_LAYER}.self_attn"),
    (f"{_DECODER}.ca_text.in_proj_", f"{_DECODER_LAYER}.encoder_attn_text"),
)
# Training only, computed, or never used: all that a file may hold beyond its model.
_DROPPED = re.compile(
    r"label_enc\.weight|.*\.relative_position_index|(bert|model\.text_backbone)\.(pooler\..*|embeddings\.position_ids)"
)
# Published to in-memory, since transformers gave its Swin a module of its own (5.23).
_MEMORY_BLOCK = f"{SWIN}.swin.encoder.layers.#.blocks.#"
_MEMORY: Pairs = (
    (f"{_SWIN_BLOCK}.attention.self.query", f"{_MEMORY_BLOCK}.attention.q_proj"),
    (f"{_SWIN_BLOCK}.attention.self.key", f"{_MEMORY_BLOCK}.attention.k_proj"),
    (f"{_SWIN_BLOCK}.attention.self.value", f"{_MEMORY_BLOCK}.attention.v_proj"),
    (f"{_SWIN_BLOCK}.attention.output.dense", f"{_MEMORY_BLOCK}.attention.o_proj"),
    (
        f"{_SWIN_BLOCK}.attention.self.relative_position_bias_table",
        f"{_MEMORY_BLOCK}.attention.relative_position_bias.relative_position_bias_table",
    ),
    (f"{_SWIN_BLOCK}.intermediate.dense", f"{_MEMORY_BLOCK}.mlp.fc1"),
    (f"{_SWIN_BLOCK}.output.dense", f"{_MEMORY_BLOCK}.mlp.fc2"),
    (f"{_SWIN_BLOCK}.layernorm_before", f"{_MEMORY_BLOCK}.layernorm_before"),
    (f"{_SWIN_BLOCK}.layernorm_after", f"{_MEMORY_BLOCK}.layernorm_after"),
    (f"{SWIN}.encoder.layers.#.downsample", f"{SWIN}.swin.encoder.layers.#.downsample"),
    (f"{SWIN}.embeddings", f"{SWIN}.swin.embeddings"),
    (f"{SWIN}.layernorm", f"{SWIN}.swin.layernorm"),
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of a file, or a third of one.

    Attributes:
        key: Its name in the file, for error messages.
        tensor: A view of the file's tensor.
    """

    key: str
    tensor: Tensor


def read_names(tensors: Mapping[str, Tensor], *, name: str) -> dict[str, Weight]:
    """Weights by published names, from an original file or a published one.

    Args:
        tensors: By the names in the file, with or without a leading ``module.``; meta tensors will do.
        name: What errors call the file.

    Raises:
        CheckpointError: If they are no Grounding DINO's, or a key of an original file is unknown.
    """
    plain = {key.removeprefix("module."): Weight(key, tensor) for key, tensor in tensors.items()}
    kept = {key: weight for key, weight in plain.items() if not _DROPPED.fullmatch(key)}
    if "model.level_embed" in kept:
        return kept
    if "transformer.level_embed" not in kept:
        first = ", ".join(f'"{key}"' for key in list(tensors)[:3])
        raise CheckpointError(
            f"{name} is no Grounding DINO: it holds {len(tensors)} tensors{f', such as {first}' if first else ''}; "
            "expected groundingdino_swint_ogc.pth, groundingdino_swinb_cogcoor.pth, or the model.safetensors of a "
            "grounding-dino or mm-grounding-dino"
        )
    published: dict[str, Weight] = {}
    for key, weight in kept.items():
        published |= _published(key, weight, name)
    return published


def in_memory(name: str) -> str:
    """The name in memory of a published weight, where transformers has a Swin module of its own.

    >>> in_memory("model.backbone.conv_encoder.model.embeddings.norm.bias")
    'model.backbone.conv_encoder.model.swin.embeddings.norm.bias'
    """
    return _renamed(name, _MEMORY_TABLE) or name


def published_name(name: str) -> str:
    """The published name of a weight in memory; the inverse of :func:`in_memory`."""
    return _renamed(name, _PUBLISHED_TABLE) or name


def original_key(published: str) -> str:
    """The key of the original file that a published weight comes from.

    >>> original_key("model.decoder.layers.3.self_attn.key.bias")
    'transformer.decoder.layers.3.self_attn.in_proj_bias'
    """
    for source, target in _PACKED:
        found = re.fullmatch(_pattern(target) + rf"\.(?:{'|'.join(_PARTS)})\.(weight|bias)", published)
        if found:
            return _filled(source, found.groups()) + found[found.lastindex or 0]
    return _renamed(published, _ORIGINAL_TABLE) or published


def _published(key: str, weight: Weight, name: str) -> dict[str, Weight]:
    for source, target in _PACKED:
        if found := re.fullmatch(_pattern(source) + "(weight|bias)", key):
            _check_packed(weight, name)
            prefix, kind = _filled(target, found.groups()), found[found.lastindex or 0]
            thirds = weight.tensor.chunk(3)
            return {f"{prefix}.{part}.{kind}": Weight(weight.key, third) for part, third in zip(_PARTS, thirds)}  # noqa: B905
    renamed = _renamed(key, _PLAIN_TABLE)
    if renamed is None:
        raise CheckpointError(
            f'{name} holds "{weight.key}", which Grounding DINO does not have; it is of another version or family'
        )
    return {renamed: weight}


def _check_packed(weight: Weight, name: str) -> None:
    shape = tuple(weight.tensor.shape)
    if not shape or shape[0] % 3 or not shape[0]:
        raise CheckpointError(
            f'{name}: "{weight.key}" packs queries, keys and values and must have a first dimension that is three '
            f"times something, got shape {shape}; fetch the file again"
        )


def _pattern(template: str) -> str:
    return re.escape(template).replace(r"\#", r"(\d+)")


def _filled(template: str, indices: Sequence[str | None]) -> str:
    for index in indices[: template.count("#")]:
        template = template.replace("#", index or "", 1)
    return template


def _table(pairs: Pairs) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(_pattern(source) + r"(?P<rest>\..*)?"), target) for source, target in pairs]


def _renamed(key: str, table: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in table:
        if found := pattern.fullmatch(key):
            return _filled(target, found.groups()) + (found["rest"] or "")
    return None


def _swapped(pairs: Pairs) -> Pairs:
    return [(target, source) for source, target in pairs]


_PLAIN_TABLE, _ORIGINAL_TABLE = _table(_PLAIN), _table(_swapped(_PLAIN))
_MEMORY_TABLE, _PUBLISHED_TABLE = _table(_MEMORY), _table(_swapped(_MEMORY))

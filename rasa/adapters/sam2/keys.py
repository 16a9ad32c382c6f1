"""Names of SAM 2's weights: the published files' against transformers'.

Both are read strictly: every key of a file is converted by one rule, or dropped by name, or refused.

Source:
    Published names: ``SAM2Base`` of sam2 1.1.0. Names in transformers: ``Sam2Model`` of transformers 5.23.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from rasa.errors import CheckpointError

# Of the memory that follows objects through a video; a still image has none.
_VIDEO_PUBLISHED = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\..+"
    r"|maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial"
)
_VIDEO_HUB = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|object_pointer_proj"
    r"|temporal_positional_encoding_projection_layer)\..+"
    r"|memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer"
    r"|occlusion_spatial_embedding_parameter"
)

_TRUNK = r"image_encoder\.trunk\."
_BLOCK = rf"{_TRUNK}blocks\.(\d+)\."
_LAYER = r"sam_mask_decoder\.transformer\.layers\.(\d+)\."
_HEAD = r"sam_mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\."
_BACKBONE = "vision_encoder.backbone."
_OUR_LAYER = r"mask_decoder.transformer.layers.\1."

# Every rule stands for whole keys; what is not written in a group is constant.
_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("no_mem_embed", "no_memory_embedding"),
        (rf"{_TRUNK}(pos_embed|pos_embed_window)", rf"{_BACKBONE}\1"),
        (rf"{_TRUNK}patch_embed\.proj\.(\w+)", rf"{_BACKBONE}patch_embed.projection.\1"),
        (rf"{_BLOCK}norm([12])\.(\w+)", rf"{_BACKBONE}blocks.\1.layer_norm\2.\3"),
        (rf"{_BLOCK}(attn\.qkv|attn\.proj|proj)\.(\w+)", rf"{_BACKBONE}blocks.\1.\2.\3"),
        (rf"{_BLOCK}mlp\.layers\.0\.(\w+)", rf"{_BACKBONE}blocks.\1.mlp.proj_in.\2"),
        (rf"{_BLOCK}mlp\.layers\.1\.(\w+)", rf"{_BACKBONE}blocks.\1.mlp.proj_out.\2"),
        (r"image_encoder\.neck\.convs\.(\d+)\.conv\.(\w+)", r"vision_encoder.neck.convs.\1.\2"),
        (r"sam_prompt_encoder\.(no_mask_embed|not_a_point_embed)\.weight", r"prompt_encoder.\1.weight"),
        (r"sam_prompt_encoder\.mask_downscaling\.0\.(\w+)", r"prompt_encoder.mask_embed.conv1.\1"),
        (r"sam_prompt_encoder\.mask_downscaling\.1\.(\w+)", r"prompt_encoder.mask_embed.layer_norm1.\1"),
        (r"sam_prompt_encoder\.mask_downscaling\.3\.(\w+)", r"prompt_encoder.mask_embed.conv2.\1"),
        (r"sam_prompt_encoder\.mask_downscaling\.4\.(\w+)", r"prompt_encoder.mask_embed.layer_norm2.\1"),
        (r"sam_prompt_encoder\.mask_downscaling\.6\.(\w+)", r"prompt_encoder.mask_embed.conv3.\1"),
        (rf"{_LAYER}norm([1-4])\.(\w+)", rf"{_OUR_LAYER}layer_norm\2.\3"),
        (rf"{_LAYER}(\w+attn\w*)\.([qkv]_proj)\.(\w+)", rf"{_OUR_LAYER}\2.\3.\4"),
        (rf"{_LAYER}(\w+attn\w*)\.out_proj\.(\w+)", rf"{_OUR_LAYER}\2.o_proj.\3"),
        (rf"{_LAYER}mlp\.layers\.0\.(\w+)", rf"{_OUR_LAYER}mlp.proj_in.\2"),
        (rf"{_LAYER}mlp\.layers\.1\.(\w+)", rf"{_OUR_LAYER}mlp.proj_out.\2"),
        (r"sam_mask_decoder\.transformer\.(final_attn_token_to_image\.[qkv]_proj)\.(\w+)",
         r"mask_decoder.transformer.\1.\2"),
        (r"sam_mask_decoder\.transformer\.final_attn_token_to_image\.out_proj\.(\w+)",
         r"mask_decoder.transformer.final_attn_token_to_image.o_proj.\1"),
        (r"sam_mask_decoder\.transformer\.norm_final_attn\.(\w+)",
         r"mask_decoder.transformer.layer_norm_final_attn.\1"),
        (r"sam_mask_decoder\.(iou_token|mask_tokens|obj_score_token)\.weight", r"mask_decoder.\1.weight"),
        (r"sam_mask_decoder\.output_upscaling\.0\.(\w+)", r"mask_decoder.upscale_conv1.\1"),
        (r"sam_mask_decoder\.output_upscaling\.1\.(\w+)", r"mask_decoder.upscale_layer_norm.\1"),
        (r"sam_mask_decoder\.output_upscaling\.3\.(\w+)", r"mask_decoder.upscale_conv2.\1"),
        (r"sam_mask_decoder\.(conv_s[01])\.(\w+)", r"mask_decoder.\1.\2"),
        (rf"{_HEAD}0\.(\w+)", r"mask_decoder.\1.proj_in.\2"),
        (rf"{_HEAD}1\.(\w+)", r"mask_decoder.\1.layers.0.\2"),
        (rf"{_HEAD}2\.(\w+)", r"mask_decoder.\1.proj_out.\2"),
    )
)  # fmt: skip

_POINTS = tuple(f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(4))
_WAVES = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
# transformers keeps the same matrix twice, and files may hold it once.
_OUR_WAVES = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def convert_keys(tensors: Mapping[str, Tensor], *, name: str) -> dict[str, Tensor]:
    """Tensors by the names of transformers' ``Sam2Model``, without those of the video memory.

    Args:
        tensors: By the published names, or by those of a hub folder, which are told apart.
        name: What errors call them: their file.

    Raises:
        CheckpointError: If a key of a published file is unknown. Missing keys are the loading's affair.
    """
    if any(key.startswith("image_encoder.") for key in tensors):
        return _published(tensors, name)
    kept = {key: tensor for key, tensor in tensors.items() if not _VIDEO_HUB.fullmatch(key)}
    return kept | _both_waves(kept)


def _published(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key in (*_POINTS, _WAVES) or _VIDEO_PUBLISHED.fullmatch(key):
            continue
        found[_renamed(key, name)] = tensor
    if all(key in tensors for key in _POINTS):
        found["prompt_encoder.point_embed.weight"] = torch.cat([tensors[key] for key in _POINTS])
    if _WAVES in tensors:
        found |= dict.fromkeys(_OUR_WAVES, tensors[_WAVES])
    return found


def _renamed(key: str, name: str) -> str:
    for pattern, replacement in _RENAMED:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(replacement)
    raise CheckpointError(f'{name} has the unknown key "{key}"; it is no checkpoint of SAM 2, or a newer one')


def _both_waves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first, second = _OUR_WAVES
    if (first in tensors) == (second in tensors):
        return {}
    return dict.fromkeys(_OUR_WAVES, tensors[first if first in tensors else second])

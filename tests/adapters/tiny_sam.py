"""Tiny models of Segment Anything 1 to 3, and their folders; see :mod:`tests.adapters.tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import (
    Sam2Config,
    Sam2Model,
    Sam3Config,
    Sam3Model,
    Sam3VideoConfig,
    Sam3VideoModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamModel,
)
from transformers.models.sam2.configuration_sam2 import (
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)
from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig

from tests.adapters.tiny import clip_ends, seeded, write_clip_tokenizer, write_json


def tiny_sam(*, seed: int = 0) -> SamModel:
    """SAM on images of 64 pixels: two layers, one with windows and one without."""
    return seeded(lambda: SamModel(SamConfig(**_sam_parts())), seed)


def tiny_sam_hq(*, seed: int = 0) -> SamHQModel:
    """SAM-HQ of the same sizes."""
    parts = _sam_parts()
    parts["mask_decoder_config"]["vit_dim"] = parts["vision_config"]["hidden_size"]
    return seeded(lambda: SamHQModel(SamHQConfig(**parts)), seed)


def _sam_parts() -> dict[str, dict[str, Any]]:
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 16,
        "mlp_dim": 64,
        "num_pos_feats": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
        "iou_head_depth": 2,
    }
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}


def save_tiny_sam(folder: Path, *, seed: int = 0, high_quality: bool = False) -> Path:
    """Save SAM or SAM-HQ as a hub folder."""
    (tiny_sam_hq if high_quality else tiny_sam)(seed=seed).save_pretrained(folder)
    _write_sam_processor(folder, "SamImageProcessor", {"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return folder


def tiny_sam2(*, seed: int = 0) -> Sam2Model:
    """SAM 2.1 for still images of 64 pixels, four stages of Hiera."""
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[64, 64],
        patch_kernel_size=[7, 7],
        patch_stride=[4, 4],
        patch_padding=[3, 3],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return seeded(lambda: Sam2Model(config), seed)


def save_tiny_sam2(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder."""
    tiny_sam2(seed=seed).save_pretrained(folder)
    _write_sam_processor(folder, "Sam2ImageProcessorFast", {"height": 64, "width": 64})
    return folder


def tiny_sam3(*, seed: int = 0) -> Sam3Model:
    """SAM 3 on images of 56 pixels with ten queries and a text encoder of two layers."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    text = {
        "model_type": "clip_text_model",
        **clip_ends(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    layer = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = Sam3Config(
        vision_config=Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=sizes),
        text_config=text,
        geometry_encoder_config={"num_layers": 1, "roi_size": 3, **layer},
        detr_encoder_config={"num_layers": 1, **layer},
        detr_decoder_config={"num_layers": 2, "num_queries": 10, **layer},
        mask_decoder_config={"hidden_size": 32, "num_upsampling_stages": 3, "num_attention_heads": 2},
    )
    return seeded(lambda: Sam3Model(config), seed)


def save_tiny_sam3(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder, with CLIP's tokenizer of single bytes (no merges)."""
    tiny_sam3(seed=seed).save_pretrained(folder)
    _write_sam_processor(folder, "Sam3ImageProcessorFast", {"height": 56, "width": 56}, mean=0.5, std=0.5)
    write_clip_tokenizer(folder, length=32)
    return folder


def tiny_sam3_video(*, seed: int = 0) -> Sam3VideoModel:
    """SAM 3 with its tracker, as the hub publishes it; the detector is :func:`tiny_sam3` in size."""
    detector = tiny_sam3().config.to_dict()
    memory = {
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1,
    }
    decoder = {"mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": detector["vision_config"],
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 56, "patch_size": 14, "mask_input_channels": 4},
        "mask_decoder_config": {"hidden_size": 32, **decoder},
        "image_size": 56,
        **memory,
    }
    return seeded(lambda: Sam3VideoModel(Sam3VideoConfig(detector_config=detector, tracker_config=tracker)), seed)


def save_tiny_sam3_video(folder: Path, *, seed: int = 0) -> Path:
    """Save the model as a hub folder with the published names; transformers 5.23 writes the tracker's prefix twice."""
    save_tiny_sam3(folder)
    model = tiny_sam3_video(seed=seed)
    model.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_sam_processor(
    folder: Path,
    kind: str,
    size: dict[str, int],
    *,
    pad_size: dict[str, int] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> None:
    settings = {
        "image_processor_type": kind,
        "size": size,
        "image_mean": [0.485, 0.456, 0.406] if mean is None else [mean] * 3,
        "image_std": [0.229, 0.224, 0.225] if std is None else [std] * 3,
    }
    write_json(folder / "preprocessor_config.json", settings | ({"pad_size": pad_size} if pad_size else {}))

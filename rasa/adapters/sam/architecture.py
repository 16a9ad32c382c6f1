"""Sizes of a Segment Anything model, read from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rasa.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

# Width and layers of the published encoders (build_sam.py of segment-anything 1.0).
_VARIANTS = {(768, 12): "vit-b", (1024, 24): "vit-l", (1280, 32): "vit-h"}
# Of the mask decoder; its tensors do not show it.
DECODER_HEADS = 8
# The decoder's norms: torch's own default in the published code. transformers' configurations say 1e-6, which
# changes 6 of 294,912 pixels of a mask.
DECODER_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class SamArchitecture:
    """What a model is built from.

    Attributes:
        width: Channels of the image encoder.
        depth: Its layers.
        heads: Its attention heads.
        mlp_width: Channels inside its dense blocks.
        patch: Side of a patch, in pixels.
        grid: Patches along each side of the square input.
        window: Side of the attention windows, in patches.
        global_layers: Layers that see the whole image at once.
        channels: Of the image embedding, the prompts and the decoder.
        mask_channels: Of the encoder of mask prompts.
        decoder_depth: Layers of the mask decoder.
        decoder_heads: Its attention heads.
        decoder_mlp_width: Channels inside its dense blocks.
        downsample: By how much its cross-attention is narrower than ``channels``.
        masks: Masks offered for an ambiguous prompt.
        quality_depth: Layers of the head that predicts a mask's quality.
        quality_width: Its channels.
        high_quality: Whether it is SAM-HQ, with a token and features of its own for the final mask.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int
    grid: int
    window: int
    global_layers: tuple[int, ...]
    channels: int
    mask_channels: int
    decoder_depth: int
    decoder_heads: int
    decoder_mlp_width: int
    downsample: int
    masks: int
    quality_depth: int
    quality_width: int
    high_quality: bool

    @property
    def side(self) -> int:
        """Side of the square input, in pixels."""
        return self.grid * self.patch

    @property
    def name(self) -> str:
        """Such as ``"sam-vit-b"``; sizes that nobody published are written out."""
        variant = _VARIANTS.get((self.width, self.depth), f"vit-{self.width}x{self.depth}")
        return ("sam-hq-" if self.high_quality else "sam-") + variant


def architecture_of(shapes: Shapes, *, file: str, decoder_heads: int = DECODER_HEADS) -> SamArchitecture:
    """The architecture of a model whose weights have these shapes.

    Args:
        shapes: By published names.
        file: What errors call the weights.
        decoder_heads: Of the mask decoder, which no shape tells.

    Raises:
        CheckpointError: If it is another kind of model.
    """
    look = _Look(shapes, file)
    _, grid, _, width = look("image_encoder.pos_embed", 4)
    depth = look.count(r"image_encoder\.blocks\.(\d+)\.")
    reach = [look(f"image_encoder.blocks.{i}.attn.rel_pos_h", 2) for i in range(depth)]
    # A table holds every distance inside a window: twice its side, less one.
    sides = [(length + 1) // 2 for length, _ in reach]
    channels = look("image_encoder.neck.0.weight", 4)[0]
    attention = look("mask_decoder.transformer.final_attn_token_to_image.q_proj.weight", 2)[0]
    for total, part in ((width, reach[0][1]), (channels, attention)):
        if part < 1 or total % part:
            raise CheckpointError(f"{file}: {total} channels are no multiple of {part}; fetch the weights again")
    return SamArchitecture(
        width=width,
        depth=depth,
        heads=width // reach[0][1],
        mlp_width=look("image_encoder.blocks.0.mlp.lin1.weight", 2)[0],
        patch=look("image_encoder.patch_embed.proj.weight", 4)[2],
        grid=grid,
        window=min(sides),
        global_layers=tuple(i for i, side in enumerate(sides) if side == grid),
        channels=channels,
        mask_channels=look("prompt_encoder.mask_downscaling.3.weight", 4)[0],
        decoder_depth=look.count(r"mask_decoder\.transformer\.layers\.(\d+)\."),
        decoder_heads=decoder_heads,
        decoder_mlp_width=look("mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)[0],
        downsample=channels // attention,
        masks=look("mask_decoder.mask_tokens.weight", 2)[0] - 1,
        quality_depth=look.count(r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        quality_width=look("mask_decoder.iou_prediction_head.layers.0.weight", 2)[0],
        high_quality="mask_decoder.hf_token.weight" in shapes,
    )


def transformers_config(sizes: SamArchitecture) -> dict[str, dict[str, Any]]:
    """Return the parts of transformers' configuration of a model of these sizes."""
    vision = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "mlp_dim": sizes.mlp_width,
        "image_size": sizes.side,
        "patch_size": sizes.patch,
        "window_size": sizes.window,
        "global_attn_indexes": list(sizes.global_layers),
        "output_channels": sizes.channels,
        "num_pos_feats": sizes.channels // 2,
        "use_rel_pos": True,
        "use_abs_pos": True,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }
    prompts = {
        "hidden_size": sizes.channels,
        "image_size": sizes.side,
        "patch_size": sizes.patch,
        "mask_input_channels": sizes.mask_channels,
        "hidden_act": "gelu",
    }
    decoder = {
        "hidden_size": sizes.channels,
        "num_hidden_layers": sizes.decoder_depth,
        "num_attention_heads": sizes.decoder_heads,
        "mlp_dim": sizes.decoder_mlp_width,
        "attention_downsample_rate": sizes.downsample,
        "num_multimask_outputs": sizes.masks,
        "iou_head_depth": sizes.quality_depth,
        "iou_head_hidden_dim": sizes.quality_width,
        "hidden_act": "relu",
        "layer_norm_eps": DECODER_EPS,
    }
    if sizes.high_quality:
        decoder["vit_dim"] = sizes.width
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}


class _Look:
    """Looks up shapes, and says what the file is not when one is absent."""

    def __init__(self, shapes: Shapes, file: str) -> None:
        self._shapes, self._file = shapes, file

    def __call__(self, key: str, axes: int) -> tuple[int, ...]:
        shape = self._shapes.get(key)
        if shape is None or len(shape) != axes:
            got = "lacks it" if shape is None else f"has shape {shape} there"
            raise CheckpointError(
                f'{self._file} is no checkpoint of Segment Anything 1 or SAM-HQ: those have "{key}" with {axes} axes, '
                f"and it {got}; pass weights of a ViT-B, ViT-L or ViT-H"
            )
        return shape

    def count(self, pattern: str) -> int:
        numbers = {int(found[1]) for key in self._shapes if (found := re.match(pattern, key))}
        if not numbers:
            raise CheckpointError(f"{self._file} is no checkpoint of Segment Anything: nothing is called {pattern}")
        return max(numbers) + 1

"""The image encoder: timm's Swin transformer, with a pooled token in front of its output."""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import Tensor

from rasa._torch.dense import use_dense
from rasa.errors import InputError
from rasa_ram.config import SwinConfig


class SwinEncoder(SwinTransformer):
    """Turns pixels into tokens; all parameter names are timm's.

    Attention runs fused (``scaled_dot_product_attention``), which timm leaves off for Swin unless its environment asks
    for it: the result differs from the unfused one by rounding only (1e-14 in float64).

    Args:
        config: Sizes.

    Source:
        Liu et al., "Swin Transformer", arXiv:2103.14030; the pooled token: Zhang et al., arXiv:2306.03514.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,  # no classifier, so no parameters beyond the tokens' own
            embed_dim=config.embed_dim,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
            drop_path_rate=config.drop_path,
        )
        self.image_size = config.image_size
        use_dense(self)
        for module in self.modules():
            if isinstance(module, WindowAttention):
                module.fused_attn = True

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch of images.

        Args:
            pixels: ``(B, 3, S, S)``, normalised; S is the configured image size.

        Returns:
            ``(B, 1 + N, C)``: the mean of the N normalised tokens, then the tokens, row by row.

        Raises:
            InputError: If ``pixels`` has another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise InputError(f"pixels must have shape (B, {', '.join(map(str, expected))}), got {tuple(pixels.shape)}")
        if not len(pixels):  # timm's reshapes cannot tell the sizes of nothing
            height, width = self.layers[-1].output_resolution
            return pixels.new_empty(0, 1 + height * width, self.num_features)
        tokens = self.forward_features(pixels).flatten(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)

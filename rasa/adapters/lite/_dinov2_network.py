"""The network of DINOv2 ViT with an importance decoder on top; opens no file.

Network and parameter names of the backbone are those of DINOv2 (Oquab et al., arXiv:2304.07193)
without registers, so weights of the original and of timm fit as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa.errors import InputError


@dataclass(frozen=True, slots=True)
class DinoV2Config:
    """Sizes of the network; the defaults are those of the weights.

    Attributes:
        width: Channels of a token, D.
        depth: Transformer blocks.
        heads: Attention heads, each of ``width / heads`` channels.
        patch_size: Pixels along one side of a patch.
        table_size: Positions along one side of the learned position table.
        decoder_widths: Channels after each upsampling by two in the importance decoder.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch_size: int = 14
    table_size: int = 37
    decoder_widths: tuple[int, ...] = (256, 128, 64)


class Attention(nn.Module):
    """Multi-head self-attention over ``(B, L, D)`` tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class LayerScale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """One transformer block, normalised before each half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each to a token."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        embedded: Tensor = self.proj(pixels)
        return embedded


class ImportanceDecoder(nn.Module):
    """Upsamples patch tokens by two, thrice, to one logit of importance per location."""

    def __init__(self, width: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(zip((width, *widths[:-1]), widths, strict=True))
        self.upconvs = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths)
        self.final_conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, grid: Tensor) -> Tensor:
        for upconv, norm in zip(self.upconvs, self.norms, strict=True):
            grid = F.relu(norm(upconv(grid)))
        logits: Tensor = self.final_conv(grid)
        return logits


class DinoV2Focus(nn.Module):
    """DINOv2 and the importance decoder on top of it.

    Parameter names of the backbone are those of DINOv2 and timm; the decoder's start with ``decoder``.
    """

    def __init__(self, config: DinoV2Config = DinoV2Config()) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.table_size**2, config.width))
        self.patch_embed = PatchEmbed(config.width, config.patch_size)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.decoder = ImportanceDecoder(config.width, config.decoder_widths)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and importance of normalised images.

        Args:
            pixels: ``(B, 3, H, W)``, ImageNet-normalised; H and W are multiples of the patch size.

        Returns:
            Tokens ``(B, h, w, D)`` after the last norm, with h = H / patch size, and the
            logits of importance ``(B, 8 h, 8 w)``.

        Raises:
            InputError: If a side is no multiple of the patch size.
        """
        if pixels.shape[-2] % self.config.patch_size or pixels.shape[-1] % self.config.patch_size:
            raise InputError(
                f"sides must be multiples of {self.config.patch_size} px, got {tuple(pixels.shape[-2:])}; "
                "resize the image first"
            )
        patches = self.patch_embed(pixels)
        height, width = patches.shape[-2:]
        patches = (patches + self._positions(height, width)).flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(pixels), -1, -1)
        tokens = torch.cat([first, patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        grid = self.norm(tokens)[:, 1:].unflatten(1, (height, width))
        return grid, self.decoder(grid.permute(0, 3, 1, 2))[:, 0]

    def _positions(self, height: int, width: int) -> Tensor:
        size = self.config.table_size
        table = self.pos_embed[:, 1:].unflatten(1, (size, size)).permute(0, 3, 1, 2)
        if (height, width) == (size, size):
            return table
        # The file's graph resizes the same way: cubic with a = -0.75, half-pixel centres, no antialiasing.
        return F.interpolate(table, size=(height, width), mode="bicubic", align_corners=False)

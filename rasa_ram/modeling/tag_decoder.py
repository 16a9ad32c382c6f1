"""The tag decoder: label queries attend to image tokens, each tag by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.dense import Dense

# The published head normalises with BERT's epsilon, not PyTorch's 1e-5.
LAYER_NORM_EPS = 1e-12

KeysValues = tuple[Tensor, Tensor]


class CrossAttention(nn.Module):
    """Multi-head attention from label queries to image tokens.

    Args:
        width: Channels of queries and output, D.
        memory_width: Channels of the image tokens, C.
        heads: Heads; the scale is 1 / sqrt(D / heads).
        dropout: Probability of dropping an attention weight in training.
    """

    def __init__(self, width: int, memory_width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = Dense(width, width)
        self.key = Dense(memory_width, width)
        self.value = Dense(memory_width, width)
        self.out = Dense(width, width)

    def project(self, memory: Tensor) -> KeysValues:
        """Compute what every query of these images shares.

        Args:
            memory: ``(B, N, C)`` image tokens.

        Returns:
            Keys and values, ``(B, heads, N, D / heads)`` each.
        """
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, query: Tensor, keys_values: KeysValues) -> Tensor:
        """Attend.

        Args:
            query: ``(B, T, D)``, or ``(1, T, D)`` where all images are asked the same; already through ``self.query``.
            keys_values: From ``project``, of B images.

        Returns:
            ``(B, T, D)``.
        """
        keys, values = keys_values
        heads = self._split(query).expand(len(keys), -1, -1, -1)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(heads, keys, values, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TagDecoderLayer(nn.Module):
    """Cross-attention and a feed-forward network, each with a residual and a norm behind it.

    Args:
        width: Channels of the labels, D.
        memory_width: Channels of the image tokens.
        intermediate: Channels inside the feed-forward network.
        heads: Attention heads.
        dropout: Probability of dropout in training.
    """

    def __init__(self, width: int, memory_width: int, *, intermediate: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = CrossAttention(width, memory_width, heads=heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.intermediate = Dense(width, intermediate)
        self.output = Dense(intermediate, width)
        self.output_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, keys_values: KeysValues, query: Tensor | None = None) -> Tensor:
        """Let the labels look at the images.

        Args:
            hidden: ``(B, T, D)`` or ``(1, T, D)`` labels.
            keys_values: From ``attention.project``, of B images.
            query: ``attention.query(hidden)``, where the caller has it already.

        Returns:
            ``(B, T, D)``.
        """
        query = self.attention.query(hidden) if query is None else query
        attended = self.dropout(self.attention(query, keys_values))
        hidden = self.attention_norm(attended + hidden)
        transformed = self.output(self.intermediate.gelu(hidden))
        return self.output_norm(self.dropout(transformed) + hidden)


class TagDecoder(nn.Module):
    """A stack of layers without self-attention: no tag's score depends on which others are asked.

    Args:
        layers: Layers.
        width: Channels of the labels, D.
        memory_width: Channels of the image tokens.
        intermediate: Channels inside the feed-forward networks.
        heads: Attention heads.
        dropout: Probability of dropout in training.

    Source:
        Liu et al., "Query2Label", arXiv:2107.10834, as reduced by Zhang et al., arXiv:2306.03514.
    """

    def __init__(
        self, layers: int, width: int, *, memory_width: int, intermediate: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TagDecoderLayer(width, memory_width, intermediate=intermediate, heads=heads, dropout=dropout)
            for _ in range(layers)
        )

    def project(self, memory: Tensor) -> list[KeysValues]:
        """Compute keys and values of ``memory``, ``(B, N, C)``, for every layer."""
        return [layer.attention.project(memory) for layer in self.layers]

    def first_query(self, hidden: Tensor) -> Tensor:
        """Compute the first layer's query of the labels ``hidden``; it depends on no image."""
        return self.layers[0].attention.query(hidden)

    def forward(self, hidden: Tensor, memory: list[KeysValues], query: Tensor | None = None) -> Tensor:
        """Run all layers.

        Args:
            hidden: ``(B, T, D)`` or ``(1, T, D)`` labels.
            memory: From ``project``, of B images.
            query: ``first_query(hidden)``, where the caller has it already.

        Returns:
            ``(B, T, D)``.
        """
        for layer, keys_values in zip(self.layers, memory, strict=True):
            hidden = layer(hidden, keys_values, query)
            query = None
        return hidden

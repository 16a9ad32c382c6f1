"""What the tag decoder asks an image: label queries, and how they come from label vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.dense import Dense


@dataclass(frozen=True, slots=True, eq=False)
class LabelQueries:
    """The part of a vocabulary's queries that no image changes; computed once, used for every image.

    Either ``hidden`` and ``projected`` are given, or ``descriptions`` is: then each image weighs them itself.

    Attributes:
        hidden: ``(T, D)`` label queries.
        projected: ``(T, D)``, the first decoder layer's query projection of ``hidden``.
        descriptions: ``(T, K, C)`` unit-norm description vectors (RAM++).
        present: bool ``(T, K)``, False where ``descriptions`` is filled up; None if all are real.
        rows: int64 ``(T,)``, the tags' rows in the model's own vocabulary; None if they have none or all are asked.
    """

    hidden: Tensor | None = None
    projected: Tensor | None = None
    descriptions: Tensor | None = None
    present: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        tensor = self.hidden if self.descriptions is None else self.descriptions
        return 0 if tensor is None else len(tensor)

    def split(self, size: int) -> Iterator[LabelQueries]:
        """Cut the vocabulary into consecutive parts of ``size`` tags; the last may be shorter."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield LabelQueries(*(None if tensor is None else tensor[part] for tensor in self._tensors()))

    def to(self, device: torch.device) -> LabelQueries:
        """The same on ``device``; what is there already is not copied."""
        return LabelQueries(*(None if tensor is None else tensor.to(device) for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.hidden, self.projected, self.descriptions, self.present, self.rows


class LabelTable(nn.Module):
    """Tag2Text's label queries: a learned table.

    Args:
        num_tags: Rows.
        width: Channels, D.
    """

    def __init__(self, num_tags: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(num_tags, width))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the label queries of ``vectors``, ``(T, D)``: themselves."""
        return vectors


class LabelEmbedding(nn.Module):
    """RAM's and RAM++'s label queries: frozen text vectors through a learned projection.

    Args:
        num_tags: Tags.
        descriptions: Vectors per tag; row ``tag * descriptions + i`` is the tag's i-th.
        label_width: Channels of a vector, C.
        width: Channels of a query, D.
        reweighted: Whether an image weighs the descriptions of a tag (RAM++).
    """

    def __init__(self, num_tags: int, descriptions: int, *, label_width: int, width: int, reweighted: bool) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(num_tags * descriptions, label_width), requires_grad=False)
        self.proj = Dense(label_width, width)
        if reweighted:
            # The temperature CLIP starts from, 0.07 (arXiv:2103.00020, section 2.5).
            self.reweight_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Project ``vectors``, ``(..., C)``, to label queries, ``(..., D)``."""
        return F.relu(self.proj(vectors))

    def reweight(self, descriptions: Tensor, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Mix each tag's descriptions by how well they fit each image.

        Args:
            descriptions: ``(T, K, C)``, unit-norm.
            image: ``(B, C)`` pooled image tokens, of any length.
            present: bool ``(T, K)``, False where a description is missing.

        Returns:
            ``(B, T, C)``; a weighted mean, so not unit-norm.

        Source:
            Huang et al., "Open-Set Image Tagging with Multi-Grained Text Supervision", arXiv:2310.15200, section 3.
        """
        tags, count, channels = descriptions.shape
        direction = F.normalize(image, dim=-1) * self.reweight_scale.exp()
        fit = F.linear(direction, descriptions.reshape(tags * count, channels)).view(-1, tags, count)
        if present is not None:
            fit = fit.masked_fill(~present, -math.inf)
        weights = fit.softmax(dim=-1)
        return torch.bmm(weights.transpose(0, 1), descriptions).transpose(0, 1)

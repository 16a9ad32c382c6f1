"""What travels between the parts of the network; tensors on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the image side gives, whatever the caption.

    Attributes:
        tokens: ``(B, N, D)``; N places, feature level after feature level, row after row.
        places: ``(B, N, D)``, their position embeddings.
        padding: bool ``(B, N)``, true where there is no image; None where there is no padding at all.
        valid: ``(B, levels, 2)``, share of width and height of each level that is image; float32 at least.
        shapes: ``(height, width)`` of the levels.
    """

    tokens: Tensor
    places: Tensor
    padding: Tensor | None
    valid: Tensor
    shapes: tuple[tuple[int, int], ...]

    def take(self, rows: Sequence[int]) -> ImageFeatures:
        """The images at ``rows``; a row may repeat."""
        at = list(rows)
        if at == list(range(len(self.tokens))):
            return self
        padding = None if self.padding is None else self.padding[at]
        return ImageFeatures(self.tokens[at], self.places[at], padding, self.valid[at], self.shapes)


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the text side gives, whatever the image.

    Attributes:
        tokens: ``(B, L, D)``, float32 at least.
        present: bool ``(B, L)``, false on padding.
        sees: bool ``(B, L, L)``, true where the row's token attends to the column's.
        positions: int64 ``(B, L)``, counted anew in each phrase.
    """

    tokens: Tensor
    present: Tensor
    sees: Tensor
    positions: Tensor

    @classmethod
    def stack(cls, features: Sequence[TextFeatures]) -> TextFeatures:
        """Several as one batch, padded at the end to the longest."""
        length = max(each.tokens.shape[1] for each in features)
        padded = [each.padded_to(length) for each in features]
        rows = zip(*((each.tokens, each.present, each.sees, each.positions) for each in padded), strict=True)
        return cls(*(torch.cat(row) for row in rows))

    def padded_to(self, length: int) -> TextFeatures:
        """The same with padding up to ``length`` tokens."""
        more = length - self.tokens.shape[1]
        if not more:
            return self
        sees = F.pad(self.sees, (0, more, 0, more))
        # A token that sees nothing would be no number.
        sees |= torch.eye(sees.shape[-1], dtype=torch.bool, device=sees.device)
        tokens, positions = F.pad(self.tokens, (0, 0, 0, more)), F.pad(self.positions, (0, more))
        return TextFeatures(tokens, F.pad(self.present, (0, more)), sees, positions)


@dataclass(frozen=True, slots=True)
class Fused:
    """Image and text features that have seen each other: ``(B, N, D)`` and ``(B, L, D)``."""

    image: Tensor
    text: Tensor


@dataclass(frozen=True, slots=True)
class Queries:
    """The places that become boxes.

    Attributes:
        index: int64 ``(B, Q)``, positions among the N places, best first; Q is N where there are fewer places.
        scores: ``(B, N)``, the best token's logit of each place.
        boxes: ``(B, Q, 4)``, first guess: centre x and y, width and height as shares of the padded image.
    """

    index: Tensor
    scores: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network answers, float32 at least.

    Attributes:
        logits: ``(B, Q, L)``; minus infinity on padding.
        boxes: ``(B, Q, 4)``, centre x and y, width and height as shares of the padded image.
        inner: bool ``(B, Q)``, whether no coordinate of the queries came beyond the limits of the clamp.
    """

    logits: Tensor
    boxes: Tensor
    inner: Tensor

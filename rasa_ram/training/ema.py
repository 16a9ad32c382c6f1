"""A moving average of the weights, which often tags better than the last ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rasa_ram.training.distributed import fill_from


class MovingAverage:
    """The exponential moving average of what a model trains, in float32.

    Args:
        model: Whose trained parameters are followed; the average begins with their values.
        decay: Share of the average that is kept each step, in (0, 1).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self._followed = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._shadow = {name: weight.detach().float().clone() for name, weight in self._followed.items()}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The averages by parameter name; split over processes where the model is."""
        return self._shadow

    @torch.no_grad()
    def update(self) -> None:
        """Move on by the weights as they are now."""
        for name, weight in self._followed.items():
            self._shadow[name].lerp_(weight.detach().float(), 1 - self._decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from saved averages, whole tensors by the names of :attr:`weights`."""
        for name, shadow in self._shadow.items():
            fill_from(shadow, weights[name])

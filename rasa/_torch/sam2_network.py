"""transformers' models of the SAM 2 design, SAM 3's tracker among them, as a network that takes boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rasa._torch.box_segmenter import Features
from rasa.errors import InputError


class Sam2Network:
    """A :class:`rasa._torch.box_segmenter.BoxNetwork`.

    Args:
        model: A ``Sam2Model`` or ``Sam3TrackerModel`` in evaluation mode, on its device and in its dtype. In half
            precision the coordinates of the boxes are encoded in float32 all the same: bfloat16 has no numbers
            closer than 4 px at 1024.

    Raises:
        InputError: If the model is in training mode.
    """

    def __init__(self, model: nn.Module) -> None:
        if model.training:
            raise InputError("the model is in training mode, in which its answers are random; call model.eval() first")
        self.model: Any = model
        self._dtype = next(model.parameters()).dtype
        if self._dtype in (torch.bfloat16, torch.float16):
            self.model.prompt_encoder.shared_embedding.float()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        where: torch.device = self.model.device
        return where

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder and the decoder."""
        return self._dtype

    def to(self, device: torch.device) -> None:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.to`."""
        self.model.to(device)

    def encode(self, pixels: Tensor) -> Features:
        """Levels from fine to coarse; see :meth:`rasa._torch.box_segmenter.BoxNetwork.encode`."""
        return tuple(self.model.get_image_embeddings(pixels))

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.decode`."""
        if self._dtype == torch.float64:
            boxes = boxes.double()
        answer = self.model(image_embeddings=list(features), input_boxes=boxes[None], multimask_output=multimask)
        return answer.pred_masks[0], answer.iou_scores[0]

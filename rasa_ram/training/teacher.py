"""The teacher: a frozen CLIP whose image features RAM and RAM++ imitate, and whose text features RAM++ aligns with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import open_clip
import torch
from torch import Tensor, nn

from rasa.errors import InputError
from rasa_ram.text_encoder import ARCHITECTURE, load_clip


@runtime_checkable
class Teacher(Protocol):
    """Gives the features that a model learns to imitate. Nothing of it is trained."""

    def image_features(self, pixels: Tensor) -> Tensor:
        """Features of images, as the encoder gives them: not normalised.

        Args:
            pixels: float ``(B, 3, R, R)``, normalised as the teacher wants it; on the run's device.

        Returns:
            float ``(B, C)``, C the student's ``label_width``.
        """
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Features of captions, float ``(B, C)``, unit-norm."""
        ...


class OpenClipTeacher:
    """A CLIP model of open_clip as teacher; it follows the images to their device.

    Args:
        model: What ``open_clip.create_model`` returns; it is frozen and put in evaluation mode.
        tokenizer: What ``open_clip.get_tokenizer`` returns for it; None for images alone.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """``encode_image`` of ``pixels``, ``(B, 3, R, R)``, in float32 and not normalised."""
        weight = next(self._model.visual.parameters())
        if weight.device != pixels.device:
            self._model.to(pixels.device)
        features: Tensor = self._model.encode_image(pixels.to(weight.dtype))
        return features.float()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm ``encode_text`` of each text, cut where the encoder ends, in float32.

        Raises:
            InputError: If the teacher has no tokenizer, or there is no text.
        """
        if self._tokenizer is None:
            raise InputError("this teacher reads no text; pass it the tokenizer of its model")
        if not texts:
            raise InputError("no caption for the teacher to read; RAM++ learns from one caption per image")
        tokens = self._tokenizer(list(texts))
        features: Tensor = self._model.encode_text(tokens.to(next(self._model.parameters()).device))
        return nn.functional.normalize(features.float(), dim=-1)


def load_teacher(
    weights: str | os.PathLike[str] | None = None, *, device: str = "cpu", dtype: str = "float32"
) -> OpenClipTeacher:
    """Load CLIP ViT-B/16 by OpenAI, the teacher of the published models.

    Args:
        weights: Its weight file; None takes that of the label vectors' text encoder, fetched if need be.
        device: As torch names it.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Raises:
        ConfigError: If the dtype is none of the three.
        WeightsError: If the weights cannot be had, or the file does not hold them.
    """
    return OpenClipTeacher(load_clip(weights, device=device, dtype=dtype), open_clip.get_tokenizer(ARCHITECTURE))

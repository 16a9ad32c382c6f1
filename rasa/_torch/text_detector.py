"""What OWLv2 and OmDet-Turbo are built around: a model of transformers, its tokenizer and options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from rasa._torch.loading import torch_device
from rasa._torch.tag_texts import TextIds, TextOptions


class TextDetector(ABC):
    """A detector that reads one text per tag, without its ``detect``.

    Args:
        model: In evaluation mode; its two towers may have another dtype than the rest, which is float32.
        pixels: Makes the model's pixels.
        tokenizer: The text side.
        options: See :class:`rasa._torch.tag_texts.TextOptions`.
        provenance: Plain JSON values that :meth:`describe` adds.
    """

    family: ClassVar[str]

    def __init__(
        self,
        model: Any,
        pixels: Any,
        *,
        tokenizer: Any,
        options: TextOptions,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._pixels, self._options = model, pixels, options
        self._ids = TextIds(tokenizer, model.config.text_config.max_position_embeddings)
        self._provenance = dict(provenance or {})

    def to(self, device: str) -> Self:
        """Move the model, in place; InputError if torch knows no such device."""
        self._model.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, options, dtype of the towers, and the provenance that was given."""
        dtype = str(self._dtype).removeprefix("torch.")
        return {"model": self.family, **self._provenance, **self._options.describe(), "dtype": dtype}

    @property
    @abstractmethod
    def _dtype(self) -> torch.dtype:
        """Of the towers."""

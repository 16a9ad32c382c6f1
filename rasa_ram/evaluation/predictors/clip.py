"""CLIP as tagger: cosine of the image's vector with the mean vector of a class's prompts."""

from __future__ import annotations

import os
import pickle  # for its error class; nothing is unpickled here
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import torch
from torch import nn

from rasa.arrays import FloatArray
from rasa.errors import WeightsError
from rasa.types import Image
from rasa.weights import fetch
from rasa_ram._fingerprint import json_hash, weights_hash
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.predictors.asked import Asked
from rasa_ram.label_cache import encode_labels
from rasa_ram.text_encoder import ARCHITECTURE, CHECKPOINT, OpenClipTextEncoder, TextEncoder


class ClipPredictor:
    """Cosines in [-1, 1] between images and classes; no threshold is published for them.

    Args:
        model: Of open_clip, on its device; its image tower is used.
        transform: From a PIL image to pixels, as ``open_clip.create_model_and_transforms`` returns it.
        encoder: Of the texts, in the same space; its prompts are the 80 templates for ImageNet.
        benchmark: Gives the words of the classes.
        name: Of the model.
        descriptions: Some words to sentences that take the place of the prompts.
    """

    thresholds: FloatArray | None = None

    def __init__(
        self,
        model: nn.Module,
        transform: Any,
        encoder: TextEncoder,
        benchmark: Benchmark,
        *,
        name: str = "clip-vit-b-16",
        descriptions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._model, self._transform, self._name = model.eval(), transform, name
        self._asked, self._identity = Asked.of(benchmark.asked), encoder.identity
        self._described = {word: list(texts) for word, texts in (descriptions or {}).items()}
        self._labels = encode_labels(
            encoder, self._asked.words, texts_of=lambda word: self._described.get(word) or encoder.prompts(word)
        )

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)``, cosines."""
        weight = next(self._model.parameters())
        pixels = torch.stack([self._transform(PIL.Image.fromarray(np.array(image.pixels))) for image in images])
        with torch.inference_mode():
            vectors = self._model.encode_image(pixels.to(weight.device, weight.dtype)).float()
            unit = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return self._asked.spread(unit @ self._labels.T)

    def describe(self) -> Mapping[str, Any]:
        """Name, hash of the weights, the text tower's identity, and how many classes which sentences describe."""
        return {
            "model": self._name,
            "weights": self._weights,
            "text_encoder": self._identity,
            "described": len(self._described),
            "descriptions": json_hash(self._described),
        }

    @cached_property
    def _weights(self) -> str:
        return weights_hash(self._model)


def load_clip(
    benchmark: Benchmark,
    weights: str | os.PathLike[str] | None = None,
    *,
    descriptions: Mapping[str, Sequence[str]] | None = None,
    device: str = "cpu",
) -> ClipPredictor:
    """CLIP ViT-B/16 of OpenAI, the baseline of the papers.

    Args:
        benchmark: Gives the words of the classes.
        weights: Its weight file; None fetches it.
        descriptions: Some words to sentences that take the place of the prompts.
        device: As torch names it.

    Raises:
        WeightsError: If the weights cannot be had, or the file does not hold them.
    """
    path = fetch(CHECKPOINT) if weights is None else Path(weights)
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            ARCHITECTURE, pretrained=str(path), device=device, weights_only=True
        )
    except (RuntimeError, OSError, ValueError, LookupError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(f"{path} does not hold the weights of CLIP ViT-B/16: {reason}; fetch it again") from error
    encoder = OpenClipTextEncoder(model, open_clip.get_tokenizer(ARCHITECTURE), name=f"open_clip/{ARCHITECTURE}")
    name = "clip-vit-b-16-llm" if descriptions else "clip-vit-b-16"  # as the tables call them
    return ClipPredictor(model, transform, encoder, benchmark, name=name, descriptions=descriptions)

"""What is asked of the models about a region: a vector, and the score of its tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError
from rasa.protocols import Tagger
from rasa.types import Image
from rasa_ram.modeling.ram import Ram
from rasa_ram.preprocess import preprocess
from rasa_ram.tagger import THRESHOLD
from rasa_ram.vocabulary import Vocabulary


class Embedder(Protocol):
    """Turns regions into vectors that are near each other where the regions look alike."""

    def embed(self, crops: Sequence[Image]) -> FloatArray:
        """float32 ``(N, C)``, one row per crop."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A tagger that tells the score of every tag, as :class:`rasa_ram.tagger.RamTagger` does."""

    @property
    def vocabulary(self) -> Vocabulary:
        """T tags."""
        ...

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)`` in [0, 1]."""
        ...


class RamEmbedder:
    """The image encoder of a RAM, RAM++ or Tag2Text; the vector of a region is its pooled token.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        batch_size: Crops at once.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.

    Raises:
        InputError: If ``batch_size`` is below 1.
    """

    def __init__(self, model: Ram, *, batch_size: int = 16, provenance: Mapping[str, Any] | None = None) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self._model, self._batch_size, self._provenance = model, batch_size, dict(provenance or {})

    def embed(self, crops: Sequence[Image]) -> FloatArray:
        """float32 ``(N, C)``; C is ``model.config.memory_width``."""
        rows = [np.zeros((0, self._model.config.memory_width), np.float32)]
        rows += [self._encode(crops[i : i + self._batch_size]) for i in range(0, len(crops), self._batch_size)]
        return np.concatenate(rows)

    def describe(self) -> Mapping[str, Any]:
        """Family and dtype, and the provenance that was given."""
        dtype = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        return {"model": self._model.config.family, "dtype": dtype, **self._provenance}

    def _encode(self, crops: Sequence[Image]) -> FloatArray:
        weight = next(self._model.parameters())
        pixels = torch.from_numpy(preprocess(crops, self._model.config.vision.image_size))
        with torch.inference_mode():
            memory = self._model.encode_image(pixels.to(weight.device, weight.dtype))
            vectors: FloatArray = memory[:, 0].float().cpu().numpy()
        return vectors


def unit_vectors(embedder: Embedder, crops: Sequence[Image]) -> FloatArray:
    """float32 ``(N, C)`` of length 1; a vector of zeros stays one.

    Raises:
        ContractError: If the embedder does not give one finite row per crop.
    """
    rows = np.asarray(embedder.embed(crops), np.float32)
    if rows.ndim != 2 or len(rows) != len(crops):
        raise ContractError(f"the embedder must give {len(crops)} rows, one per crop, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ContractError("the embedder gave no number for a region; use bfloat16 or float32, or check its weights")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def region_scores(tagger: Tagger, crops: Sequence[Image], labels: Sequence[str]) -> FloatArray:
    """The tagger's score of each crop's own label.

    Args:
        tagger: Either a :class:`Scorer`, or one that gives tags alone.
        crops: N regions.
        labels: N tags.

    Returns:
        float32 ``(N,)``: in [0, 1]; 0 where a tagger that gives tags alone does not give it; NaN where a scorer does
        not know the tag.

    Raises:
        ContractError: If the tagger does not give one answer per crop.
    """
    if isinstance(tagger, Scorer):
        columns: dict[str, list[int]] = {}
        for column, name in enumerate(tagger.vocabulary.names):
            columns.setdefault(name, []).append(column)
        table = tagger.scores(crops)
        found = [float(row[columns[label]].max()) if label in columns else np.nan
                 for row, label in zip(table, labels, strict=True)]  # fmt: skip
        return np.array(found, np.float32)
    answers = tagger.tag(crops)
    if len(answers) != len(crops):
        raise ContractError(f"the tagger must give one answer for each of {len(crops)} crops, got {len(answers)}")
    by_name = [dict(zip(tags.names, tags.scores.tolist(), strict=True)) for tags in answers]
    return np.array([scores.get(label, 0.0) for scores, label in zip(by_name, labels, strict=True)], np.float32)


def own_thresholds(tagger: Tagger, names: Sequence[str]) -> dict[str, float]:
    """The score that each tag must exceed to be given by the tagger, as :func:`region_scores` reports scores."""
    if not isinstance(tagger, Scorer):
        return dict.fromkeys(names, 0.0)
    table = tagger.vocabulary
    known = {} if table.thresholds is None else dict(zip(table.names, table.thresholds.tolist(), strict=True))
    return {name: known.get(name, THRESHOLD) for name in names}

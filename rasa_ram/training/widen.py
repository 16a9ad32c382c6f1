"""A trained model for other tags: rows of its label table added, taken away, or put into another order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rasa.errors import InputError
from rasa_ram._loading import fill
from rasa_ram._names import our_aliases
from rasa_ram.builders import build
from rasa_ram.data.own_tags import name_to_rows
from rasa_ram.label_cache import encode_labels
from rasa_ram.modeling.ram import Ram
from rasa_ram.tagger import OPEN_THRESHOLD
from rasa_ram.vocabulary import Vocabulary

if TYPE_CHECKING:  # open_clip is not needed for an encoder of the caller's own
    from rasa_ram.text_encoder import TextEncoder


@dataclass(frozen=True, slots=True, eq=False)
class Widened:
    """A model with another vocabulary.

    Attributes:
        model: In evaluation mode, on the device and in the floating-point type of the one it was made of.
        vocabulary: One tag per row of ``model``.
        old_rows: int64 ``(T,)``, where each tag stood in the old model; -1 if it is new.
    """

    model: Ram
    vocabulary: Vocabulary
    old_rows: np.ndarray[tuple[int], np.dtype[np.int64]]

    @property
    def new_rows(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """int64, the positions of the new tags."""
        return np.flatnonzero(self.old_rows < 0)


def widen(
    model: Ram,
    vocabulary: Vocabulary,
    tags: Sequence[str],
    *,
    encoder: TextEncoder | None,
    keep_old: bool = True,
    drop_path: float | None = None,
) -> Widened:
    """Make a model that knows ``tags`` too, or alone; all else in it is copied.

    A tag that is there already, by name or synonym, keeps its row. A new one gets the text encoder's vector of its
    name, so that RAM and RAM++ know something of it at once; RAM++ holds it as often as it has descriptions per tag,
    which its weights make one again. Tag2Text, which learned its tags as a table, gets rows of the table's own mean
    and spread: it knows nothing of new tags before it is trained.

    Args:
        model: Any of the three.
        vocabulary: Its tags.
        tags: Those asked for, distinct.
        encoder: Made the model's label vectors; asked only if a tag is new, and not for Tag2Text.
        keep_old: Whether the other tags of ``vocabulary`` stay, in front; else they go.
        drop_path: Of the new model's image encoder; None keeps the old one's.

    Raises:
        InputError: If there is no tag, one is asked for twice, the vocabulary is not the model's, there is no
            encoder for a new tag, or its vectors have another width.
    """
    if len(vocabulary) != model.config.num_tags:
        raise InputError(f"the vocabulary has {len(vocabulary)} tags, the model {model.config.num_tags}; pass its own")
    if not tags or len(set(tags)) != len(tags):
        raise InputError(f"expected at least one tag, each once, got {', '.join(tags) or 'none'}")
    known = name_to_rows(vocabulary)
    asked = [row for tag in tags for row in known.get(tag, ())]
    old = list(range(len(vocabulary))) if keep_old else list(dict.fromkeys(asked))
    new = new_tags(tags, vocabulary)
    rows = np.array([*old, *[-1] * len(new)], np.int64)
    vision = model.config.vision if drop_path is None else replace(model.config.vision, drop_path=drop_path)
    config = replace(model.config, num_tags=len(rows), vision=vision)
    state = model.state_dict()
    state |= _rows(model, state, torch.from_numpy(rows), _vectors(model, new, encoder))
    one = next(model.parameters())
    kind = str(one.dtype).removeprefix("torch.")
    widened = fill(lambda: build(config), state, aliases=our_aliases(config), device=str(one.device), dtype=kind)
    return Widened(widened.eval(), _vocabulary(vocabulary, old, new), rows)


def new_tags(tags: Iterable[str], vocabulary: Vocabulary) -> list[str]:
    """Those of ``tags`` that are neither a name nor a synonym in ``vocabulary``."""
    known = name_to_rows(vocabulary)
    return [tag for tag in tags if tag not in known]


def _rows(model: Ram, state: Mapping[str, Tensor], rows: Tensor, vectors: Tensor | None) -> dict[str, Tensor]:
    """The tensors that have a row per tag, for the new tags."""
    per_tag = {"label_embedding.vectors": model.config.descriptions}
    if model.config.family == "tag2text":
        per_tag |= {"fc.weight": 1, "fc.bias": 1}
    changed = {}
    for name, count in per_tag.items():
        table = state[name].unflatten(0, (-1, count))
        new = int((rows < 0).sum())
        fresh = vectors if vectors is not None and count == model.config.descriptions else None
        if new and fresh is None:
            fresh = _like(table, new)
        kept = table[rows[rows >= 0].to(table.device)]
        joined = kept if fresh is None else torch.cat([kept, fresh.to(kept)])
        changed[name] = joined.flatten(0, 1)
    return changed


def _like(table: Tensor, count: int) -> Tensor:
    """``count`` rows with the mean of ``table`` over tags and, along channels, its spread; always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *table.shape[1:], generator=generator).to(table)
    spread = table.std(dim=0) if len(table) > 1 else torch.zeros_like(table[0])
    return table.mean(dim=0) + noise * spread


def _vectors(model: Ram, new: Sequence[str], encoder: TextEncoder | None) -> Tensor | None:
    """``(N, K, C)`` label vectors of the new tags; None where the model has none or no tag is new."""
    if not new or model.config.family == "tag2text":
        return None
    if encoder is None:
        raise InputError(f'tag "{new[0]}" is new to the model; pass the text encoder that its label vectors come from')
    vectors = torch.from_numpy(encode_labels(encoder, new))
    if vectors.shape[1] != model.config.label_width:
        raise InputError(
            f"the model needs label vectors of {model.config.label_width} channels, the text encoder gives "
            f"{vectors.shape[1]}; pass the one that its label vectors come from"
        )
    return vectors[:, None].expand(-1, model.config.descriptions, -1)


def _vocabulary(vocabulary: Vocabulary, old: Sequence[int], new: Sequence[str]) -> Vocabulary:
    kept = vocabulary.take(old) if old else None
    if kept is None:
        return Vocabulary(tuple(new))
    count = len(new)
    return replace(
        kept,
        names=(*kept.names, *new),
        ids=np.arange(len(kept) + count),
        translations={language: (*column, *new) for language, column in kept.translations.items()},
        thresholds=None if kept.thresholds is None else np.append(kept.thresholds, [OPEN_THRESHOLD] * count),
        kinds=None if kept.kinds is None else (*kept.kinds, *[None] * count),
        synonyms=None if kept.synonyms is None else (*kept.synonyms, *[()] * count),
    )

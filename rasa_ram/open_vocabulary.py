"""Tags that a model was not trained on: from names and descriptions to what the decoder is asked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rasa._suggest import did_you_mean
from rasa.arrays import BoolArray, FloatArray, IntArray
from rasa.errors import InputError
from rasa_ram.config import RamConfig
from rasa_ram.label_cache import encode_labels
from rasa_ram.vocabulary import Vocabulary

if TYPE_CHECKING:  # open_clip is not needed for an encoder of the caller's own
    from rasa_ram.text_encoder import TextEncoder


@dataclass(frozen=True, slots=True, eq=False)
class LabelGroup:
    """Tags that the model is asked for in one go, either rows of its own label table or vectors.

    Attributes:
        positions: int64 ``(t,)``, where the tags stand in the tagger's vocabulary.
        rows: int64 ``(t,)``, rows of the model's own table.
        vectors: float32 ``(t, C)``, or ``(t, K, C)`` with up to K descriptions per tag; unit-norm.
        present: bool ``(t, K)``, False where ``vectors`` is filled up; None if nothing is.
    """

    positions: IntArray
    rows: IntArray | None = None
    vectors: FloatArray | None = None
    present: BoolArray | None = None


def label_groups(
    config: RamConfig,
    own: Vocabulary,
    wanted: Vocabulary,
    *,
    descriptions: Mapping[str, Sequence[str]],
    load_encoder: Callable[[], TextEncoder],
) -> list[LabelGroup]:
    """How to ask a model for the tags of ``wanted``: as rows of its own table, or as vectors of new tags.

    Args:
        config: Of the model.
        own: Its vocabulary.
        wanted: The tags to ask for.
        descriptions: Some of them to any number of sentences; such a tag is asked for by these alone.
        load_encoder: Called if a text has to be encoded.

    Raises:
        InputError: If a description is empty or of no wanted tag, or the model cannot be asked for such tags.
    """
    _check_family(config, descriptions)
    _check_descriptions(wanted, descriptions)
    names = [(position, name) for position, name in enumerate(wanted.names) if name not in descriptions]
    seen = [(position, _row(own, name)) for position, name in names if name in own]
    new = [(position, name) for position, name in names if name not in own]
    groups = []
    if seen:
        positions, rows = np.array(seen, np.int64).T
        groups.append(LabelGroup(positions, rows=rows))
    if not new and not descriptions:
        return groups
    encoder = load_encoder()
    if new:
        vectors = encode_labels(encoder, [name for _, name in new])
        groups.append(LabelGroup(np.array([position for position, _ in new], np.int64), vectors=vectors))
    if descriptions:
        groups.extend(_described(encoder, [(wanted.positions([name])[0], descriptions[name]) for name in descriptions]))
    for group in groups:
        _check_width(group, config)
    return groups


def fingerprint(groups: Sequence[LabelGroup]) -> str:
    """``"own"`` if all tags are rows of the model's table, else a sha256 that changes with the vectors."""
    if all(group.vectors is None for group in groups):
        return "own"
    digest = hashlib.sha256()
    for group in groups:
        for array in (group.positions, group.rows, group.vectors, group.present):
            digest.update(b"-" if array is None else f"{array.dtype}{array.shape}".encode())
            digest.update(b"" if array is None else array.tobytes())
    return digest.hexdigest()


def _described(encoder: TextEncoder, tags: Sequence[tuple[int, Sequence[str]]]) -> list[LabelGroup]:
    """Group tags with about as many descriptions, so that at most half of a group's places are empty."""
    texts = [text for _, described in tags for text in described]
    vectors = encode_labels(encoder, texts, texts_of=lambda text: (text,))
    ends = np.cumsum([len(described) for _, described in tags])
    by_size = defaultdict(list)
    for (position, described), end in zip(tags, ends, strict=True):
        count = len(described)
        by_size[(count - 1).bit_length()].append((position, vectors[end - count : end]))
    return [_padded(members) for _, members in sorted(by_size.items())]


def _padded(members: Sequence[tuple[int, FloatArray]]) -> LabelGroup:
    counts = np.array([len(vectors) for _, vectors in members])
    present = np.arange(counts.max()) < counts[:, None]
    padded = np.zeros((*present.shape, members[0][1].shape[1]), np.float32)
    padded[present] = np.concatenate([vectors for _, vectors in members])
    positions = np.array([position for position, _ in members], np.int64)
    return LabelGroup(positions, vectors=padded, present=None if present.all() else present)


def _row(own: Vocabulary, name: str) -> int:
    rows = own.positions([name])
    if len(rows) > 1:
        raise InputError(
            f"tag {name!r} stands for {len(rows)} meanings in the model's vocabulary; describe one of them"
        )
    return rows[0]


def _check_family(config: RamConfig, descriptions: Mapping[str, Sequence[str]]) -> None:
    if config.family == "tag2text":
        raise InputError("tag2text learned its tags as a table and cannot be asked for others; choose some with allow=")
    if descriptions and config.family != "ram-plus":
        raise InputError(f"only ram-plus weighs descriptions, this model is {config.family}; give the names alone")


def _check_descriptions(wanted: Vocabulary, descriptions: Mapping[str, Sequence[str]]) -> None:
    for name, texts in descriptions.items():
        if name not in wanted:
            hint = did_you_mean(str(name), wanted.names)
            raise InputError(f'descriptions of "{name}", which is none of the {len(wanted)} tags asked for{hint}')
        if isinstance(texts, str) or not texts:
            raise InputError(f"descriptions of {name!r} must be a sequence of at least one sentence, got {texts!r}")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"descriptions of {name!r} must be non-empty strings")


def _check_width(group: LabelGroup, config: RamConfig) -> None:
    if group.vectors is not None and group.vectors.shape[-1] != config.label_width:
        got = group.vectors.shape[-1]
        raise InputError(
            f"the model needs label vectors of {config.label_width} channels, the text encoder gives {got}"
        )

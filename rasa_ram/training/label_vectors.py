"""Where a model's frozen label vectors come from: a file, or a text encoder over tags or their descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rasa._suggest import did_you_mean
from rasa._torch.files import open_tensors
from rasa.errors import CheckpointError, ConfigError, FormatError
from rasa_ram.label_cache import encode_labels
from rasa_ram.vocabulary import Vocabulary

if TYPE_CHECKING:  # open_clip is not needed where the vectors are in a file
    from rasa_ram.text_encoder import TextEncoder

# What the vectors are called in files with several tensors: published models, ours, and our own files of vectors.
_NAMES = ("label_embed", "label_embedding.vectors", "vectors")


def read_vectors(path: Path, *, rows: int) -> Tensor:
    """Read label vectors from ``.npy``, ``.safetensors`` or ``.pth``; tag by tag, each with all its descriptions.

    Args:
        path: A file with one array or tensor, or with the vectors under a name of the published models or of ours.
        rows: Tags times descriptions.

    Returns:
        float32 ``(rows, C)``.

    Raises:
        CheckpointError: If the file is unreadable, has no such tensor, another number of rows, or NaN or infinity.
    """
    vectors = _open(path).to(torch.float32)
    vectors = vectors.flatten(0, -2) if vectors.ndim > 1 else vectors
    if vectors.ndim != 2 or len(vectors) != rows:
        raise CheckpointError(
            f"{path} must hold {rows} label vectors, one per tag and description, got shape {tuple(vectors.shape)}; "
            "give the vectors of this vocabulary, in its order"
        )
    if not torch.isfinite(vectors).all():
        raise CheckpointError(f"{path} holds NaN or infinity; make the label vectors again")
    return vectors


def encode_vocabulary(
    vocabulary: Vocabulary,
    descriptions: Mapping[str, Sequence[str]] | None,
    *,
    load_encoder: Callable[[], TextEncoder],
) -> Tensor:
    """Encode every tag by its prompts, or by its descriptions one by one, through the cache of label vectors.

    Args:
        vocabulary: T tags.
        descriptions: Each tag's K sentences (RAM++); None for one vector per tag (RAM).
        load_encoder: Called once.

    Returns:
        Unit-norm float32 ``(T * K, C)``, tag by tag.
    """
    encoder = load_encoder()
    if descriptions is None:
        return torch.from_numpy(encode_labels(encoder, vocabulary.names))
    texts = [text for name in vocabulary.names for text in descriptions[name]]
    return torch.from_numpy(encode_labels(encoder, texts, texts_of=lambda text: (text,)))


def read_descriptions(path: Path, vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Read a JSON file of descriptions: tag to sentences, or the published list of such objects with one tag each.

    Args:
        path: The file.
        vocabulary: Every tag of it must be there, with the same number of sentences.

    Raises:
        FormatError: If the file is no such JSON.
        ConfigError: If a tag is missing or unknown, or the numbers of sentences differ.
    """
    table = _described(path)
    if missing := [name for name in vocabulary.names if name not in table]:
        raise ConfigError(f'{path} describes not "{missing[0]}", nor {len(missing) - 1} more tags; describe all')
    if unknown := [name for name in table if name not in vocabulary]:
        hint = did_you_mean(unknown[0], vocabulary.names)
        raise ConfigError(f'{path} describes "{unknown[0]}", which is no tag of the vocabulary{hint}')
    counts = {len(table[name]) for name in vocabulary.names}
    if len(counts) != 1 or counts == {0}:
        raise ConfigError(
            f"{path} must describe every tag with the same number of sentences to train on, got {min(counts)} to "
            f"{max(counts)}; repeat sentences where there are fewer"
        )
    return table


def count_descriptions(path: Path) -> int:
    """Sentences per tag of a file of :func:`read_descriptions`.

    Raises:
        FormatError: If the file is no such JSON, or describes nothing.
    """
    table = _described(path)
    if not table:
        raise FormatError(f"{path} describes no tag")
    return len(next(iter(table.values())))


def _described(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot read the descriptions {path}: {error}") from error
    parts = values if isinstance(values, list) else [values]
    if not all(isinstance(part, dict) for part in parts):
        raise FormatError(f"{path} must hold a JSON object of tags with their sentences, or a list of such objects")
    table = {tag: row for part in parts for tag, row in part.items()}
    for tag, row in table.items():
        if not isinstance(row, list) or not all(isinstance(text, str) and text.strip() for text in row):
            raise FormatError(f'{path}: "{tag}" must have a list of sentences, none of them empty')
    return {tag: tuple(row) for tag, row in table.items()}


def _open(path: Path) -> Tensor:
    if path.suffix == ".npy":
        return _open_numpy(path)
    tensors = _bare_tensor(path) or open_tensors(path).tensors
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    for name in _NAMES:
        if name in tensors:
            return tensors[name]
    raise CheckpointError(f"{path} holds {len(tensors)} tensors and none is called {' or '.join(_NAMES)}")


def _open_numpy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"cannot read the label vectors {path}: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise CheckpointError(f"{path} must hold one array of floating-point numbers; save it with numpy.save")
    return torch.from_numpy(array.astype(np.float32))


def _bare_tensor(path: Path) -> dict[str, Tensor]:
    """The tensor of a ``.pth`` that holds nothing else, as the published frozen embeddings; empty for other files."""
    if path.suffix == ".safetensors" or not path.is_file():
        return {}
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  (whatever it is, open_tensors meets it again and says what to do)
        return {}
    return {"vectors": loaded} if isinstance(loaded, Tensor) else {}

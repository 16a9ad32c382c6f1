"""Label vectors, encoded once and kept on disk by what they were made of.

A label is a group of texts: the prompts of a tag, or one description. Its vector is the mean of the texts'
unit-norm vectors, made unit-norm again. Files in the cache are never changed: each is called by its own sha256
and put in place in one step, so that processes cannot disturb each other and a damaged file gives itself away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rasa._files import write_atomically
from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError, OutputError
from rasa.weights import cache_folder

if TYPE_CHECKING:  # open_clip is not needed for an encoder of the caller's own
    from rasa_ram.text_encoder import TextEncoder

# Labels encoded between two writes: an interrupted run keeps what it has, and a file has about 1 MB.
LABELS_PER_FILE = 512

_KEY_BYTES = 32
_HEADER = struct.Struct("<QQ")  # channels, labels
_log = logging.getLogger(__name__)


def encode_labels(
    encoder: TextEncoder,
    labels: Sequence[str],
    *,
    texts_of: Callable[[str], Sequence[str]] | None = None,
    folder: Path | None = None,
) -> FloatArray:
    """Vectors of ``labels``, from the cache where they are known, else encoded and kept there.

    Args:
        encoder: Encodes the texts; its identity is part of what a vector is known by.
        labels: N tags or descriptions.
        texts_of: The texts whose mean stands for a label, at least one; ``encoder.prompts`` unless given.
        folder: The cache; ``labels`` in :func:`rasa.weights.cache_folder` unless given. One that cannot be
            written is no error: the vectors are encoded every time then.

    Returns:
        Unit-norm float32 ``(N, C)``.

    Raises:
        InputError: If there is no label.
        ContractError: If the encoder returns other than one finite vector per text.
    """
    if not labels:
        raise InputError("no label to encode; pass at least one")
    texts_of = texts_of or encoder.prompts
    # Texts are made where they are needed: those of 100,000 tags would take a gigabyte.
    order = [_key(encoder, texts_of(label)) for label in labels]
    keys = dict(zip(order, labels, strict=True))
    place = (folder or cache_folder() / "labels") / hashlib.sha256(encoder.identity.encode()).hexdigest()[:16]
    known = _read(place, keys)
    missing = [key for key in keys if key not in known]
    for start in range(0, len(missing), LABELS_PER_FILE):
        part = missing[start : start + LABELS_PER_FILE]
        vectors = _encode(encoder, [texts_of(keys[key]) for key in part])
        _write(place, part, vectors)
        known.update(zip(part, vectors, strict=True))
    return np.stack([known[key] for key in order])


def _key(encoder: TextEncoder, texts: Sequence[str]) -> bytes:
    return hashlib.sha256(json.dumps([encoder.identity, *texts]).encode()).digest()


def _encode(encoder: TextEncoder, groups: Sequence[Sequence[str]]) -> FloatArray:
    texts = [text for group in groups for text in group]
    vectors = np.asarray(encoder.encode(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
        raise ContractError(f"the text encoder must return one vector per text, ({len(texts)}, C), got {vectors.shape}")
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    return _unit(np.add.reduceat(_unit(vectors), starts, axis=0))


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ContractError("the text encoder returned a vector that is zero or not finite")
    unit: FloatArray = vectors / lengths
    return unit


# Files


def _read(place: Path, wanted: Mapping[bytes, object]) -> dict[bytes, FloatArray]:
    found: dict[bytes, FloatArray] = {}
    for path in sorted(place.glob("*.vectors")):
        for key, vector in _entries(path):
            if key in wanted:
                found[key] = vector.copy()  # a view would keep the whole file in memory
    return found


def _entries(path: Path) -> Iterator[tuple[bytes, FloatArray]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        _log.warning("cannot read the label vectors %s: %s; they are encoded again", path, error)
        return
    if hashlib.sha256(data).hexdigest() != path.stem:
        _log.warning("the label vectors %s are damaged; they are encoded again", path)
        with contextlib.suppress(OSError):
            path.unlink()
        return
    channels, count = _HEADER.unpack_from(data)
    keys_end = _HEADER.size + count * _KEY_BYTES
    vectors = np.frombuffer(data, "<f4", offset=keys_end).reshape(count, channels)
    for row in range(count):
        start = _HEADER.size + row * _KEY_BYTES
        yield data[start : start + _KEY_BYTES], vectors[row]


def _write(place: Path, keys: Sequence[bytes], vectors: FloatArray) -> None:
    header = _HEADER.pack(vectors.shape[1], len(keys))
    data = b"".join((header, *keys, vectors.astype("<f4").tobytes()))
    try:
        with write_atomically(place / f"{hashlib.sha256(data).hexdigest()}.vectors", make_folder=True) as file:
            file.write(data)
    except OutputError as error:
        _log.warning("cannot keep label vectors: %s", error)

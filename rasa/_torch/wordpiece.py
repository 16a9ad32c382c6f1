"""BERT's WordPiece: the vocabulary file, and the split of a text into pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from rasa.errors import FormatError


def read_pieces(path: str | Path) -> list[str]:
    """Read a vocabulary file, one WordPiece per line in the order of the ids, as ``vocab.txt`` of bert-base-uncased.

    Raises:
        FormatError: If the file cannot be read as text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read the WordPiece vocabulary {path}: {error}") from error
    return text.removesuffix("\n").split("\n")


def piece_ids(pieces: Sequence[str]) -> dict[str, int]:
    """Each piece to its id, its place in the vocabulary.

    Raises:
        FormatError: If a piece is empty or repeats.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    if "" in ids:
        raise FormatError(f"line {ids[''] + 1} of the WordPiece vocabulary is empty; it would shift all ids behind it")
    if len(ids) != len(pieces):
        repeated = next(piece for i, piece in enumerate(pieces) if ids[piece] != i)
        raise FormatError(f"the WordPiece vocabulary has {repeated!r} twice; pass that of bert-base-uncased")
    return ids


def uncased_tokenizer(ids: Mapping[str, int]) -> Tokenizer:
    """The tokenizer of bert-base-uncased: lower case, no accents, ``[UNK]`` for words it cannot spell.

    It adds no special tokens, and a text that spells one, such as ``[SEP]``, is split like any other.
    """
    tokenizer = Tokenizer(models.WordPiece(dict(ids), unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer

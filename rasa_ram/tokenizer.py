"""The captioner's tokenizer: BERT's WordPiece with two more tokens, ``[DEC]`` and ``[ENC]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rasa._torch.wordpiece import piece_ids, read_pieces, uncased_tokenizer
from rasa.arrays import BoolArray, IntArray
from rasa.errors import FormatError, InputError
from rasa.weights import fetch

# Checkpoint that the published weights were trained with; in rasa/checkpoints.toml.
VOCABULARY = "bert-base-uncased.vocab"
# Tokens of a tag text and most tokens of a training caption, the first and the last one included (published code).
MAX_TOKENS = 40
# What every generated caption starts with; it is cut off again (published code).
PROMPT = "a picture of "
TAG_SEPARATOR = " | "

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# In this order (transformers 4.36, clean_up_tokenization): it glues what WordPiece split off.
_CLEANUP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokenized texts.

    Attributes:
        ids: int64 ``(B, L)``, padded.
        mask: int64 ``(B, L)``, 1 for tokens and 0 for padding.
        cut: bool ``(B,)``, whether a text was longer than ``MAX_TOKENS`` and lost its end.
    """

    ids: IntArray
    mask: IntArray
    cut: BoolArray


class CaptionTokenizer:
    """Text to WordPiece ids and back, for the tag encoder and the text decoder.

    Text is text: a tag or caption that spells a special token, such as ``[SEP]``, is split like any other.

    Args:
        pieces: The WordPiece vocabulary in the order of its ids, that of bert-base-uncased for published
            weights; ``[DEC]`` and ``[ENC]`` come behind it.

    Raises:
        FormatError: If a special token is missing, or a piece is empty or repeats.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        ids = piece_ids(pieces)
        if missing := [token for token in _SPECIAL if token not in ids]:
            raise FormatError(f"the WordPiece vocabulary has no {', '.join(missing)}; pass that of bert-base-uncased")
        self._pieces = tuple(pieces)
        self._tokenizer = uncased_tokenizer(ids)
        self.dec_id, self.enc_id = len(pieces), len(pieces) + 1
        self.pad_id, self.sep_id, self._cls_id = ids["[PAD]"], ids["[SEP]"], ids["[CLS]"]
        self._skipped = {self.dec_id, self.enc_id, *(ids[token] for token in _SPECIAL)}

    @classmethod
    def read(cls, path: str | Path) -> CaptionTokenizer:
        """Read a vocabulary file: one WordPiece per line, as ``vocab.txt`` of bert-base-uncased.

        Raises:
            FormatError: If the file cannot be read as such.
        """
        pieces = read_pieces(path)
        try:
            return cls(pieces)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    @classmethod
    def published(cls) -> CaptionTokenizer:
        """The tokenizer of the published weights, whose vocabulary is fetched unless it is in the cache.

        Raises:
            WeightsError: If the vocabulary cannot be had.
        """
        return cls.read(fetch(VOCABULARY))

    def __len__(self) -> int:
        """Number of ids, ``[DEC]`` and ``[ENC]`` included."""
        return len(self._pieces) + 2

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What every generated caption starts with: ``[DEC] a picture of``."""
        return (self.dec_id, *self._split(PROMPT))

    def encode_tags(self, tags: Sequence[Sequence[str]]) -> Tokens:
        """Tags of B images for the tag encoder: joined, ``[ENC]`` first, cut and padded to ``MAX_TOKENS``.

        Cut as published: the last tags of a long list are lost, in the middle of a word if need be.
        No tags at all are a valid input too.
        """
        texts = [TAG_SEPARATOR.join(names) for names in tags]
        return self._encode(texts, first=self.enc_id, length=MAX_TOKENS)

    def encode_captions(self, captions: Sequence[str]) -> Tokens:
        """B captions for training the text decoder: ``[DEC]`` first, cut to ``MAX_TOKENS``, padded to the longest."""
        return self._encode(captions, first=self.dec_id, length=None)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids without special tokens and without the prompt.

        Raises:
            InputError: If an id is not in the vocabulary.
        """
        if unknown := [i for i in ids if not 0 <= i < len(self)]:
            raise InputError(f"token ids must be in [0, {len(self)}), got {unknown[0]}")
        text = " ".join(self._pieces[i] for i in ids if i not in self._skipped).replace(" ##", "").strip()
        for spaced, glued in _CLEANUP:
            text = text.replace(spaced, glued)
        return text[len(PROMPT) :]

    def _encode(self, texts: Sequence[str], *, first: int, length: int | None) -> Tokens:
        split = [self._split(text) for text in texts]
        room = MAX_TOKENS - 2
        rows = [[first, *ids[:room], self.sep_id] for ids in split]
        length = max((len(row) for row in rows), default=2) if length is None else length
        ids, mask = np.full((len(rows), length), self.pad_id, np.int64), np.zeros((len(rows), length), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return Tokens(ids, mask, np.array([len(ids) > room for ids in split], np.bool_))

    def _split(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

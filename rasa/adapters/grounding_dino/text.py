"""The text side: tags to token ids, and which tokens may see each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rasa._torch.wordpiece import piece_ids, read_pieces, uncased_tokenizer
from rasa.arrays import BoolArray, IntArray
from rasa.errors import FormatError, InputError
from rasa.ops.phrases import CLS, MAX_TOKENS, QUESTION, SEP, STOP, Caption, build_captions
from rasa.weights import fetch

# Vocabulary of the published weights, in rasa/checkpoints.toml.
VOCABULARY = "bert-base-uncased.vocab"
PAD = 0
# Pieces whose ids the network knows by number; another vocabulary would be read as noise.
FIXED = {"[PAD]": PAD, "[CLS]": CLS, "[SEP]": SEP, ".": STOP, "?": QUESTION}
DELIMITERS = (CLS, SEP, STOP, QUESTION)
Prompts = Mapping[str, str | Sequence[str]]


class BertTokenizer:
    """Text to WordPiece ids, lower-cased and without accents.

    Text is text: a tag that spells a special token, such as ``[SEP]``, is split like any other.

    Args:
        ids: Id of each WordPiece, those of bert-base-uncased; a part of them makes the same ids or ``[UNK]``.

    Raises:
        FormatError: If a delimiter is missing or has not the id that the network knows.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        if wrong := [piece for piece, i in FIXED.items() if ids.get(piece) != i]:
            found = ids.get(wrong[0], "no id")
            raise FormatError(
                f'the WordPiece vocabulary has {found} for "{wrong[0]}", and Grounding DINO knows it as '
                f"{FIXED[wrong[0]]}; pass the vocabulary of bert-base-uncased"
            )
        if "[UNK]" not in ids:
            raise FormatError('the WordPiece vocabulary has no "[UNK]"; pass the vocabulary of bert-base-uncased')
        self.unknown_id = ids["[UNK]"]
        self._tokenizer = uncased_tokenizer(ids)

    @classmethod
    def read(cls, path: str | Path) -> BertTokenizer:
        """Read ``vocab.txt`` (one WordPiece per line), ``tokenizer.json``, or the folder of a model that has one.

        Raises:
            FormatError: If there is no such file, or it cannot be read as such.
        """
        file = _vocabulary_file(Path(path))
        found = _described_ids(file) if file.suffix == ".json" else read_pieces(file)
        try:
            return cls(found if isinstance(found, dict) else piece_ids(found))
        except FormatError as error:
            raise FormatError(f"{file}: {error}") from error

    @classmethod
    def published(cls) -> BertTokenizer:
        """The tokenizer of the published weights, whose vocabulary is fetched unless it is in the cache.

        Raises:
            WeightsError: If the vocabulary cannot be had.
        """
        return cls.read(fetch(VOCABULARY))

    def encode(self, text: str) -> list[int]:
        """Ids of a text without delimiters: its periods and question marks are left out."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [i for i in ids if i not in DELIMITERS]

    def captions(
        self, tags: Sequence[str], *, prompts: Prompts | None = None, limit: int = MAX_TOKENS
    ) -> list[Caption]:
        """Captions that hold every tag, see :func:`rasa.ops.phrases.build_captions`.

        Args:
            tags: T tags; of tags with equal tokens the first is asked for.
            prompts: Some tags to what the detector reads instead, one text or several.
            limit: Most tokens of a caption.

        Raises:
            InputError: If a prompt has no tokens, unknown ones or too many, or a tag has no prompt.
        """
        phrases, owners = self.phrases(tags, prompts=prompts)
        return build_captions(phrases, owners, names=tags, limit=limit)

    def phrases(self, tags: Sequence[str], *, prompts: Prompts | None = None) -> tuple[list[list[int]], list[int]]:
        """Token ids of every prompt, and the index of its tag; arguments and errors as for :meth:`captions`."""
        if isinstance(tags, str):
            raise InputError(f"tags must be a sequence of tags, got the single string {tags!r}; pass [{tags!r}]")
        prompts = {} if prompts is None else prompts
        phrases, owners = [], []
        for owner, tag in enumerate(tags):
            for prompt in _prompts_of(tag, prompts):
                phrases.append(self._phrase(prompt, tag))
                owners.append(owner)
        return phrases, owners

    def _phrase(self, prompt: str, tag: str) -> list[int]:
        ids = self.encode(prompt)
        of = f"tag {tag!r}" if prompt == tag else f"prompt {prompt!r} of tag {tag!r}"
        cure = f"give the tag an English prompt, as in prompts={{{tag!r}: ...}}"
        if not ids:
            raise InputError(f"{of} has no tokens besides periods and question marks, which separate tags; {cure}")
        # Neither sent nor left out: all unknown words are one token, so "猫" and "犬" would be one tag, and without
        # it "猫 toy" would be "toy".
        if self.unknown_id in ids:
            raise InputError(f"{of} holds {self._unknown(prompt)!r}, which the detector's vocabulary lacks; {cure}")
        return ids

    def _unknown(self, text: str) -> str:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        start, end = encoding.offsets[encoding.ids.index(self.unknown_id)]
        return text[start:end]


def token_blocks(token_ids: IntArray) -> tuple[BoolArray, IntArray]:
    """Which tokens may see each other, and their positions, as the published network was trained.

    A block is the run of tokens after one delimiter, up to and including the next. ``[CLS]``, padding, the last
    column, and tokens before it whose delimiter is that column, see themselves alone.

    Args:
        token_ids: ``(B, L)``, padded with 0.

    Returns:
        bool ``(B, L, L)``, true where the row's token sees the column's; int64 ``(B, L)``, counted anew in each block.

    Source:
        GroundingDINO, bertwarper.py, generate_masks_with_special_tokens_and_transfer_map.
    """
    batch, length = token_ids.shape
    sees = np.repeat(np.eye(length, dtype=np.bool_)[None], batch, axis=0)
    positions = np.zeros((batch, length), np.int64)
    for row, ids in enumerate(token_ids):
        start = 1
        for end in (np.flatnonzero(np.isin(ids, DELIMITERS)) + 1).tolist():
            if end < length:
                sees[row, start:end, start:end] = True
                positions[row, start:end] = np.arange(end - start)
            start = end
    return sees, positions


def _prompts_of(tag: str, prompts: Prompts) -> Sequence[str]:
    given = prompts.get(tag, tag)
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not texts:
        raise InputError(f"tag {tag!r} has an empty list of prompts; give it one, or leave it out of the prompts")
    return texts


def _vocabulary_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("tokenizer.json", "vocab.txt"):
        if (path / name).is_file():
            return path / name
    raise FormatError(f"{path} has neither tokenizer.json nor vocab.txt; add one of them from the model's page")


def _described_ids(path: Path) -> dict[str, int]:
    try:
        model = json.loads(path.read_bytes())["model"]
        kind, ids = model["type"], {str(piece): int(i) for piece, i in dict(model["vocab"]).items()}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FormatError(f"cannot read {path} as the tokenizer.json of a WordPiece tokenizer: {error!r}") from error
    if kind != "WordPiece":
        raise FormatError(f'{path}: the tokenizer is of the kind "{kind}", expected "WordPiece"; use BERT\'s own')
    return ids

"""A text encoder that works without a model hub: all-MiniLM-L6-v2, whose weights a package on the index carries."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel

from rasa._torch.wordpiece import piece_ids, read_pieces, uncased_tokenizer
from rasa.arrays import FloatArray
from rasa.errors import InputError, WeightsError
from rasa.weights import fetch

# Both in rasa/checkpoints.toml; the model reads BERT's own WordPiece vocabulary.
CHECKPOINT = "all-minilm-l6-v2.sentence"
VOCABULARY = "bert-base-uncased.vocab"
# Channels of a text vector.
WIDTH = 384
# Most tokens of a text, [CLS] and [SEP] included (sentence_bert_config.json of the model).
MAX_TOKENS = 256
# config.json of the model.
_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# Sentences that a tag stands in, as open_clip's prompts do for CLIP, far fewer.
_PROMPTS = ("{}", "a {}", "a picture of a {}", "there is a {} in the picture")


class SentenceEncoder:
    """all-MiniLM-L6-v2: sentences to unit vectors of 384 channels, whose dot product tells how alike they mean.

    It has never seen an image. Its vectors can be label queries for a model that learns to look, such as the toy RAM.

    Args:
        model: A ``BertModel`` without pooling layer, on its device.
        pieces: Its WordPiece vocabulary, in the order of the ids.
        batch_size: Texts encoded at once.

    Raises:
        InputError: If ``batch_size`` is not positive.

    Source:
        Reimers and Gurevych, "Sentence-BERT", arXiv:1908.10084; Wang et al., "MiniLM", arXiv:2002.10957.
    """

    def __init__(self, model: BertModel, pieces: Sequence[str], *, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1 text, got {batch_size}")
        self._model = model.eval()
        ids = piece_ids(pieces)
        self._tokenizer: Any = uncased_tokenizer(ids)
        self._first, self._last, self._padding = ids["[CLS]"], ids["[SEP]"], ids["[PAD]"]
        self._batch_size = batch_size

    @cached_property
    def identity(self) -> str:
        """Name and sha256 of the weights."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy() if tensor.ndim else b"")
        return f"sentence/{CHECKPOINT}:{digest.hexdigest()}"

    def prompts(self, tag: str) -> list[str]:
        """``<tag>``, ``a picture of a <tag>`` and two more."""
        return [prompt.format(tag) for prompt in _PROMPTS]

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Unit-norm float32 ``(N, 384)``: the mean over a text's tokens; what is past 256 tokens is left out.

        Raises:
            InputError: If there is no text.
        """
        if not texts:
            raise InputError("no text to encode; pass at least one")
        parts = [texts[start : start + self._batch_size] for start in range(0, len(texts), self._batch_size)]
        return np.concatenate([self._encode(part) for part in parts])

    def _encode(self, texts: Sequence[str]) -> FloatArray:
        ids, mask = self._tokens(texts)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask[..., None].to(states.dtype)
            means = (states * weights).sum(dim=1) / weights.sum(dim=1)
            unit: FloatArray = F.normalize(means.float(), dim=-1).cpu().numpy()
        return unit

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [
            [self._first, *encoding.ids[: MAX_TOKENS - 2], self._last]
            for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]
        longest, device = max(map(len, rows)), next(self._model.parameters()).device
        ids = torch.tensor([row + [self._padding] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        return ids, (torch.arange(longest, device=device) < lengths[:, None]).long()


def load_sentence_encoder(
    weights: str | os.PathLike[str] | None = None,
    *,
    vocabulary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> SentenceEncoder:
    """Load all-MiniLM-L6-v2, 22.7 million parameters in float32.

    Args:
        weights: Its ``model.safetensors``; None takes :data:`CHECKPOINT` from :mod:`rasa.weights`, fetched if need be.
        vocabulary: Its ``vocab.txt``; None takes :data:`VOCABULARY` likewise.
        device: As torch names it.

    Raises:
        WeightsError: If the weights cannot be had, or the file does not hold them.
        FormatError: If the vocabulary is none.
    """
    path = fetch(CHECKPOINT) if weights is None else Path(weights)
    pieces = read_pieces(fetch(VOCABULARY) if vocabulary is None else Path(vocabulary))
    model = BertModel(BertConfig(vocab_size=len(pieces), **_SIZES), add_pooling_layer=False)
    try:
        tensors = {key: tensor for key, tensor in load_file(path).items() if not _left_out(key)}
        model.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(f"{path} does not hold the weights of all-MiniLM-L6-v2: {reason}; fetch it again") from error
    return SentenceEncoder(model.to(device).requires_grad_(False), pieces)


def _left_out(key: str) -> bool:
    """Positions are counted, and the pooling layer has no part in a mean over tokens."""
    return key == "embeddings.position_ids" or key.startswith("pooler.")

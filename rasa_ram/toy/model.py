"""The toy RAM: its sizes, the weights that its training begins with, and its scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.config import Family, RamConfig, SwinConfig, TextConfig
from rasa_ram.label_cache import encode_labels
from rasa_ram.modeling.ram import Ram
from rasa_ram.preprocess import preprocess
from rasa_ram.sentence_encoder import WIDTH
from rasa_ram.text_encoder import TextEncoder
from rasa_ram.toy.drawing import SIDE
from rasa_ram.toy.scenes import GRID
from rasa_ram.toy.wordpieces import toy_wordpieces
from rasa_ram.vocabulary import Vocabulary

# [DEC] and [ENC], behind the WordPiece vocabulary.
_OWN_TOKENS = 2
# The projection of a unit vector of 384 channels, drawn as torch does, has entries of about 0.03; times this they are
# about as large as what the decoder adds to them, so that its layers see from the first step which tag is asked.
_QUERY_GAIN = 20.0
# What all tags score before training: with some 9 of 225 tags in a scene, half is far off.
_FIRST_LOGIT = -2.0


def toy_config(num_tags: int, *, family: Family = "ram", captioner: bool = False) -> RamConfig:
    """Sizes of the toy RAM: 1.8 million parameters, 2.4 with the captioner.

    Args:
        num_tags: Size of the vocabulary.
        family: ``"ram"`` asks by text vectors; ``"tag2text"`` by a learned table, for comparison.
        captioner: Whether it writes captions: two layers of encoder and decoder.
    """
    width = 128
    text = TextConfig(
        vocab_size=len(toy_wordpieces()) + _OWN_TOKENS,
        width=width,
        layers=2,
        heads=4,
        intermediate=2 * width,
        max_positions=64,
        dropout=0.0,
    )
    return RamConfig(
        family=family,
        vision=SwinConfig(
            image_size=SIDE, embed_dim=96, depths=(2, 2), heads=(3, 6), window=8, patch_size=GRID, drop_path=0.0
        ),
        num_tags=num_tags,
        label_width=WIDTH,
        width=width,
        layers=2,
        heads=4,
        intermediate=2 * width,
        dropout=0.0,
        text=text if captioner else None,
    )


def draw_toy_model(
    config: RamConfig, vocabulary: Vocabulary, encoder: TextEncoder | None = None, *, seed: int = 0
) -> Ram:
    """Build a toy model with fresh weights, in training mode; the caller's random numbers stay as they are.

    Outside of the image encoder, weights are drawn as ``torch.nn`` does, not with BERT's deviation of 0.02, which is
    made for a width of 768.

    Args:
        config: From :func:`toy_config`.
        vocabulary: One tag per row of the model.
        encoder: Makes the label vectors; not needed for Tag2Text, which learns a table.
        seed: The same seed gives the same weights.

    Raises:
        InputError: If the vocabulary has another size than the model, or a RAM gets no encoder.
    """
    if len(vocabulary) != config.num_tags:
        raise InputError(f"the vocabulary has {len(vocabulary)} tags and the model {config.num_tags}; make them equal")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Ram(config)
        if config.family != "tag2text":
            if encoder is None:
                raise InputError("a toy RAM asks by text vectors; pass the encoder that makes them")
            model.fc.bias.fill_(_FIRST_LOGIT)
            model.label_embedding.proj.weight.mul_(_QUERY_GAIN)
            model.label_embedding.vectors.copy_(label_vectors(encoder, vocabulary.names))
    return model.train()


def label_vectors(encoder: TextEncoder, tags: Sequence[str]) -> Tensor:
    """Unit-norm float32 ``(T, 384)``, through the cache of label vectors."""
    return torch.from_numpy(encode_labels(encoder, list(tags)))


def score_images(
    model: Ram, images: Sequence[Image], *, vectors: Tensor | None = None, batch_size: int = 100
) -> FloatArray:
    """Scores of all tags on images, in evaluation mode.

    Args:
        model: Its mode, training or evaluation, is left as it was.
        images: B of them.
        vectors: Unit-norm ``(T, 384)`` of the tags to ask for; None asks for the model's own.
        batch_size: Images at once.

    Returns:
        float32 ``(B, T)`` in [0, 1].
    """
    training = model.training
    model.eval()
    with torch.inference_mode():
        queries = model.queries(vectors)
        rows = [
            model.decode(model.encode_image(_pixels(images[start : start + batch_size])), queries).sigmoid()
            for start in range(0, len(images), batch_size)
        ]
    model.train(training)
    return np.concatenate([row.numpy() for row in rows]).astype(np.float32)


def _pixels(images: Sequence[Image]) -> Tensor:
    return torch.from_numpy(preprocess(images, SIDE))

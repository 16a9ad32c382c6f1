"""The tagging model: RAM, RAM++ and Tag2Text are one module with three label embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rasa._torch.dense import Dense
from rasa.errors import InputError
from rasa_ram.config import RamConfig
from rasa_ram.modeling.label_embedding import LabelEmbedding, LabelQueries, LabelTable
from rasa_ram.modeling.swin import SwinEncoder
from rasa_ram.modeling.tag_decoder import KeysValues, TagDecoder

# Labels times images decoded at once: 2**13 rows of a 3072-wide feed-forward network take 96 MiB in float32.
ROWS_AT_ONCE = 2**13


class GroupedLinear(nn.Module):
    """One weight vector and bias per tag (Tag2Text).

    Args:
        num_tags: Tags, T.
        width: Channels, D.
    """

    def __init__(self, num_tags: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_tags, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_tags))

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Score ``hidden``, ``(B, t, D)``, with the tags' own ``rows``, int64 ``(t,)``; returns ``(B, t)``."""
        return torch.einsum("btd,td->bt", hidden, self.weight[rows]) + self.bias[rows]


class Ram(nn.Module):
    """Pixels to tag logits.

    Args:
        config: Which family, and its sizes.

    Source:
        Zhang et al., "Recognize Anything", arXiv:2306.03514; RAM++: arXiv:2310.15200; Tag2Text: arXiv:2303.05657.
    """

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = SwinEncoder(config.vision)
        self.tag_decoder = TagDecoder(
            config.layers,
            config.width,
            memory_width=config.memory_width,
            intermediate=config.intermediate,
            heads=config.heads,
            dropout=config.dropout,
        )
        if config.family == "tag2text":
            self.label_embedding: LabelTable | LabelEmbedding = LabelTable(config.num_tags, config.width)
            self.fc: GroupedLinear | nn.Linear = GroupedLinear(config.num_tags, config.width)
        else:
            self.image_proj = Dense(config.vision.width, config.label_width)
            self.label_embedding = LabelEmbedding(
                config.num_tags,
                config.descriptions,
                label_width=config.label_width,
                width=config.width,
                reweighted=config.family == "ram-plus",
            )
            self.fc = nn.Linear(config.width, 1)
        if config.text is not None:
            # Needs transformers, which a model that only tags does not.
            from rasa_ram.modeling.captioner import Captioner  # noqa: PLC0415

            self.captioner = Captioner(config.text, memory_width=config.memory_width, tag_decoder=self.tag_decoder)

    def forward(self, pixels: Tensor) -> Tensor:
        """Score every tag of the model's own vocabulary.

        Args:
            pixels: ``(B, 3, S, S)``, normalised.

        Returns:
            Logits ``(B, T)``.

        Raises:
            InputError: If ``pixels`` has another shape.
        """
        return self.decode(self.encode_image(pixels), self.queries())

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Turn pixels into the tokens that the tag decoder and the captioner attend to.

        Args:
            pixels: ``(B, 3, S, S)``, normalised.

        Returns:
            ``(B, 1 + N, C)``, the pooled token first; C is ``config.memory_width``.

        Raises:
            InputError: If ``pixels`` has another shape.
        """
        features = self.visual_encoder(pixels)
        return features if self.config.family == "tag2text" else self.image_proj(features)

    def queries(
        self, vectors: Tensor | None = None, *, rows: Tensor | None = None, present: Tensor | None = None
    ) -> LabelQueries:
        """Prepare a vocabulary: all that does not depend on an image, computed once.

        Args:
            vectors: Unit-norm text vectors of other tags, ``(T, C)``, or ``(T, K, C)`` with K descriptions per tag
                (RAM++). None asks for the model's own tags.
            rows: int64 ``(T,)``: the model's own tags to keep, in this order. None keeps all.
            present: bool ``(T, K)``, False where ``vectors`` is filled up because a tag has fewer descriptions.

        Raises:
            InputError: If the vectors do not fit the model, or ``rows`` and ``vectors`` are both given.
        """
        vectors = self._own_vectors(rows) if vectors is None else self._other_vectors(vectors, rows=rows)
        if vectors.shape[1] > 1:
            return LabelQueries(descriptions=vectors, present=present)
        hidden = self.label_embedding(vectors.flatten(0, 1))
        if self.config.family != "tag2text":
            rows = None  # one weight vector scores all tags: which they were matters no more
        elif rows is None:
            rows = torch.arange(len(hidden), device=hidden.device)
        return LabelQueries(hidden=hidden, projected=self.tag_decoder.first_query(hidden), rows=rows)

    def decode(self, memory: Tensor, queries: LabelQueries, *, chunk: int | None = None) -> Tensor:
        """Score tags on encoded images.

        Args:
            memory: ``(B, 1 + N, C)`` from ``encode_image``.
            queries: T tags, from ``queries``.
            chunk: Tags at once; bounds the memory and changes nothing but rounding. None chooses by the batch size.

        Returns:
            Logits ``(B, T)``.

        Raises:
            InputError: If ``chunk`` is not positive.
        """
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1 tag, got {chunk}")
        size = max(1, ROWS_AT_ONCE // max(1, len(memory))) if chunk is None else chunk
        keys_values = self.tag_decoder.project(memory)
        scores = [self._score(memory[:, 0], part, keys_values) for part in queries.split(size)]
        return torch.cat([memory.new_empty(len(memory), 0), *scores], dim=1)

    def _score(self, pooled: Tensor, queries: LabelQueries, keys_values: list[KeysValues]) -> Tensor:
        """Score one chunk of tags; ``pooled`` is ``(B, C)``, the logits ``(B, t)``."""
        if queries.descriptions is None:
            hidden, projected = queries.hidden[None], queries.projected[None]  # type: ignore[index]
        else:
            mixed = self.label_embedding.reweight(queries.descriptions, pooled, queries.present)
            hidden, projected = self.label_embedding(mixed), None
        hidden = self.tag_decoder(hidden, keys_values, projected)
        return self.fc(hidden).squeeze(-1) if queries.rows is None else self.fc(hidden, queries.rows)

    def _own_vectors(self, rows: Tensor | None) -> Tensor:
        vectors = self.label_embedding.vectors.unflatten(0, (self.config.num_tags, -1))
        return vectors if rows is None else vectors[rows]

    def _other_vectors(self, vectors: Tensor, *, rows: Tensor | None) -> Tensor:
        if rows is not None:
            raise InputError("rows picks the model's own tags and cannot be given with vectors; index the vectors")
        if self.config.family == "tag2text":
            raise InputError("tag2text learned its tags as a table and cannot score others; use ram or ram-plus")
        if vectors.ndim not in {2, 3} or vectors.shape[-1] != self.config.label_width:
            width = self.config.label_width
            raise InputError(f"vectors must have shape (T, {width}) or (T, K, {width}), got {tuple(vectors.shape)}")
        if vectors.ndim == 3 and vectors.shape[1] != 1 and self.config.family != "ram-plus":
            raise InputError(f"only ram-plus weighs several descriptions per tag, got {vectors.shape[1]}; average them")
        return vectors if vectors.ndim == 3 else vectors[:, None]

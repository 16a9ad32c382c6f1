"""Sizes of a model, as data: RAM, RAM++ and Tag2Text in every size are configs, not files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from rasa.errors import ConfigError

Family = Literal["ram", "ram-plus", "tag2text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """The image encoder (Liu et al., arXiv:2103.14030).

    Attributes:
        image_size: Height and width of the input, in pixels.
        embed_dim: Channels after the patch embedding; they double with every stage.
        depths: Blocks of the four stages.
        heads: Attention heads of the four stages.
        window: Side of an attention window, in patches of its stage.
        patch_size: Side of a patch, in pixels.
        drop_path: Share of samples that skip the last block in training; rises linearly from 0 at the first.

    Raises:
        ConfigError: If a size is not positive or the sizes do not fit each other.
    """

    image_size: int
    embed_dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    patch_size: int = 4
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        _require_positive(self)
        _require_probability(self, "drop_path")
        if self.image_size % self.patch_size:
            raise ConfigError(f"image_size must be a multiple of patch_size {self.patch_size}, got {self.image_size}")
        if not self.depths or len(self.depths) != len(self.heads):
            raise ConfigError(f"depths and heads must name the same stages, got {self.depths} and {self.heads}")
        for stage, heads in enumerate(self.heads):
            _require_multiple(self.embed_dim * 2**stage, heads, what=f"channels of stage {stage}")

    @property
    def width(self) -> int:
        """Channels of the output."""
        return int(self.embed_dim * 2 ** (len(self.depths) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The captioner's text encoder and decoder, each a BERT with cross-attention (arXiv:2303.05657, section 3).

    Attributes:
        vocab_size: Rows of the word embedding: WordPiece plus ``[DEC]`` and ``[ENC]``.
        width: Channels.
        layers: Layers of the encoder and of the decoder, each.
        heads: Attention heads.
        intermediate: Channels inside the feed-forward network.
        max_positions: Rows of the position embedding.
        dropout: Probability of dropout in training.

    Raises:
        ConfigError: If a size is not positive or ``heads`` does not divide ``width``.
    """

    vocab_size: int = 30524
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    max_positions: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require_positive(self)
        _require_probability(self, "dropout")
        _require_multiple(self.width, self.heads, what="width")


@dataclass(frozen=True, slots=True, kw_only=True)
class RamConfig:
    """A whole model.

    Attributes:
        family: Which of the three.
        vision: The image encoder.
        num_tags: Size of the vocabulary.
        descriptions: Label vectors per tag: 1 for RAM, 51 for the published RAM++; Tag2Text learns a table instead.
        label_width: Channels of a label vector (CLIP ViT-B/16), and of the projected image tokens.
        width: Channels of the tag decoder.
        layers: Layers of the tag decoder.
        heads: Attention heads of the tag decoder.
        intermediate: Channels inside its feed-forward networks.
        dropout: Probability of dropout in the tag decoder, in training.
        text: The captioner, if the model has one.

    Raises:
        ConfigError: If the family is unknown, a size is not positive or the sizes do not fit each other.
    """

    family: Family
    vision: SwinConfig
    num_tags: int = 4585
    descriptions: int = 1
    label_width: int = 512
    width: int = 768
    layers: int = 2
    heads: int = 4
    intermediate: int = 3072
    dropout: float = 0.1
    text: TextConfig | None = None

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ConfigError(f"family must be one of {', '.join(get_args(Family))}, got {self.family!r}")
        _require_positive(self)
        _require_probability(self, "dropout")
        _require_multiple(self.width, self.heads, what="width")
        if self.family != "ram-plus" and self.descriptions != 1:
            raise ConfigError(f"only ram-plus has several descriptions per tag, got {self.descriptions}; leave it at 1")
        if self.family == "ram-plus" and self.text is not None:
            raise ConfigError("ram-plus has no captioner; leave text out")

    @property
    def memory_width(self) -> int:
        """Channels of the image tokens that the tag decoder attends to."""
        return self.vision.width if self.family == "tag2text" else self.label_width


def _require_positive(config: Any) -> None:
    """Refuse sizes below 1, alone or in a tuple."""
    for field in fields(config):
        value = getattr(config, field.name)
        sizes = value if isinstance(value, tuple) else (value,)
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise ConfigError(f"{field.name} must be positive, got {value}")


def _require_probability(config: Any, name: str) -> None:
    """Refuse a rate at which nothing would be left, or that is none."""
    if not 0 <= getattr(config, name) < 1:
        raise ConfigError(f"{name} must be in [0, 1), got {getattr(config, name)}")


def _require_multiple(channels: int, heads: int, *, what: str) -> None:
    """Refuse attention heads of unequal size."""
    if channels % heads:
        raise ConfigError(f"{what} must be a multiple of its {heads} heads, got {channels}")

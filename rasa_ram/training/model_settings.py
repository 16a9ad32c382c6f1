"""The ``[model]`` table of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rasa.errors import ConfigError
from rasa_ram.builders import architecture
from rasa_ram.config import Family, RamConfig, TextConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model is trained, and what its weights begin as.

    Attributes:
        architecture: One of :data:`rasa_ram.builders.ARCHITECTURES`; None where ``sizes`` is given.
        sizes: A model of the caller's own sizes; its ``num_tags`` and ``text`` do not count.
        captioner: Whether the model writes captions; RAM++ does not.
        text: Sizes of the captioner.
        vocabulary: Name of a published model, whose list it is, or a file of tags.
        label_vectors: File of the tags' vectors, in the order of the vocabulary; None keeps those of ``init`` where
            it has the same number of tags, else has a text encoder make them.
        text_encoder: What makes label vectors: ``"clip"`` (512 channels), as published, or ``"minilm"`` (384), a small
            sentence encoder; each is fetched where it is needed.
        descriptions: JSON file of each tag's sentences (RAM++), for the text encoder.
        init: Name of a published model or file of a whole model to begin from.
        backbone: File of a Swin trained on ImageNet-22k to begin the image encoder from.
        text_init: File of BERT-base uncased to begin the captioner from; the published models begin without.
        teacher: File of the weights of CLIP ViT-B/16, from which RAM and RAM++ learn; None fetches them.
        wordpieces: File of the WordPiece vocabulary of the captioner; None fetches that of bert-base-uncased.
        freeze: Parts that are not trained, such as ``"visual_encoder"``; label vectors are frozen anyway.

    Raises:
        ConfigError: If neither or both of ``architecture`` and ``sizes`` are given, or a name is unknown.
    """

    vocabulary: str
    architecture: str | None = None
    sizes: RamConfig | None = None
    captioner: bool = False
    text: TextConfig = field(default_factory=TextConfig)
    label_vectors: Path | None = None
    text_encoder: Literal["clip", "minilm"] = "clip"
    descriptions: Path | None = None
    init: str | None = None
    backbone: Path | None = None
    text_init: Path | None = None
    teacher: Path | None = None
    wordpieces: Path | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.architecture is None) == (self.sizes is None):
            raise ConfigError("give either architecture, a name, or sizes, a table; not both and not neither")
        if self.captioner and self.family == "ram-plus":
            raise ConfigError("ram-plus has no captioner; leave captioner out")

    @property
    def family(self) -> Family:
        """Which of the three."""
        return (self.sizes or architecture(self.architecture or "")).family

    @property
    def image_size(self) -> int:
        """Side of the image in pixels."""
        return (self.sizes or architecture(self.architecture or "")).vision.image_size

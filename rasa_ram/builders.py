"""The published sizes as configs, and a config as a module."""

from __future__ import annotations

from typing import get_args

from rasa._suggest import did_you_mean
from rasa.errors import ConfigError
from rasa_ram.config import Family, RamConfig, SwinConfig, TextConfig
from rasa_ram.modeling.ram import Ram

# Descriptions per tag in the published RAM++ (arXiv:2310.15200, section 4).
RAM_PLUS_DESCRIPTIONS = 51
# Tags of the published Tag2Text 14M, some of them twice.
TAG2TEXT_TAGS = 3429


def swin_b(image_size: int = 384) -> SwinConfig:
    """Return Swin-B; its window is a twelfth of an eighth of the image: 12 patches at 384 pixels, 7 at 224."""
    return SwinConfig(
        image_size=image_size, embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=image_size // 32
    )


def swin_l(image_size: int = 384) -> SwinConfig:
    """Return Swin-L; 12 patches a window at 384 pixels, 7 at 224."""
    return SwinConfig(
        image_size=image_size, embed_dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=image_size // 32
    )


def ram_swin_b_384(*, text: TextConfig | None = None) -> RamConfig:
    """Return RAM with Swin-B at 384 pixels; ``text`` adds the captioner of the published file."""
    return RamConfig(family="ram", vision=swin_b(), text=text)


def ram_swin_l_224(*, text: TextConfig | None = None) -> RamConfig:
    """Return RAM with Swin-L at 224 pixels; ``text`` adds the captioner of the published file."""
    return RamConfig(family="ram", vision=swin_l(224), text=text)


def ram_swin_l_384(*, text: TextConfig | None = None) -> RamConfig:
    """Return RAM with Swin-L at 384 pixels; ``text`` adds the captioner of the published file."""
    return RamConfig(family="ram", vision=swin_l(), text=text)


def ram_plus_swin_l_384() -> RamConfig:
    """Return RAM++ with Swin-L at 384 pixels."""
    return RamConfig(family="ram-plus", vision=swin_l(), descriptions=RAM_PLUS_DESCRIPTIONS)


def tag2text_swin_b_384(*, text: TextConfig | None = None) -> RamConfig:
    """Return Tag2Text with Swin-B at 384 pixels; ``text`` adds the captioner of the published file."""
    return RamConfig(family="tag2text", vision=swin_b(), num_tags=TAG2TEXT_TAGS, text=text)


_BACKBONES = {"swin-b": swin_b, "swin-l": swin_l}
ARCHITECTURES = tuple(
    f"{family}-{backbone}-{size}" for family in get_args(Family) for backbone in _BACKBONES for size in (224, 384)
)
"""Names of the sizes that the papers train and fine-tune, such as ``"ram-plus-swin-l-384"``."""


def architecture(name: str, *, text: TextConfig | None = None) -> RamConfig:
    """Return the configuration called ``name``, with the vocabulary size of its published model.

    Args:
        name: One of :data:`ARCHITECTURES`.
        text: The captioner, for RAM and Tag2Text.

    Raises:
        ConfigError: If there is no such name, or RAM++ is to have a captioner.
    """
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f'unknown architecture "{name}"{did_you_mean(name, ARCHITECTURES)}; known are {known}')
    family = next(one for one in sorted(get_args(Family), key=len, reverse=True) if name.startswith(f"{one}-swin"))
    backbone, _, size = name.removeprefix(f"{family}-").rpartition("-")
    vision = _BACKBONES[backbone](int(size))
    sizes = {"ram": {}, "ram-plus": {"descriptions": RAM_PLUS_DESCRIPTIONS}, "tag2text": {"num_tags": TAG2TEXT_TAGS}}
    return RamConfig(family=family, vision=vision, text=text, **sizes[family])


def build(config: RamConfig) -> Ram:
    """Build a module with fresh weights, in evaluation mode; ``rasa_ram.checkpoint`` fills them.

    Args:
        config: Any config, of this module or the caller's own.
    """
    return Ram(config).eval()

"""The published sizes as configs, and a config as a module."""

from __future__ import annotations

from rasa_ram.config import RamConfig, SwinConfig, TextConfig
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


def build(config: RamConfig) -> Ram:
    """Build a module with fresh weights, in evaluation mode; ``rasa_ram.checkpoint`` fills them.

    Args:
        config: Any config, of this module or the caller's own.
    """
    return Ram(config).eval()

"""What kind of model a file holds, told from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rasa.errors import CheckpointError
from rasa_ram._names import Shape
from rasa_ram.builders import RAM_PLUS_DESCRIPTIONS
from rasa_ram.config import Family, RamConfig, SwinConfig, TextConfig

FAMILY_NAMES: dict[Family, str] = {"ram": "RAM", "ram-plus": "RAM++", "tag2text": "Tag2Text"}

# What the published configurations have and no tensor shows.
PUBLISHED_HEADS = 4
TEXT_HEAD_WIDTH = 64
_IMAGE_SIZES = {7: 224, 12: 384}  # by window
_SWIN_NAMES = {128: "Swin-B", 192: "Swin-L"}  # by channels of the patch embedding

_OURS = ("tag_decoder.", "label_embedding.", "captioner.")
_LAYER = r"(?:tagging_head\.encoder\.layer|tag_decoder\.layers)\.(\d+)\."
_BLOCK = r"visual_encoder\.layers\.(\d+)\.blocks\.(\d+)\."


def has_our_names(shapes: Mapping[str, Shape]) -> bool:
    """Whether the tensors have our names, not the published ones."""
    return any(key.startswith(_OURS) for key in shapes)


def guess(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """As many fields of a configuration as the tensors show, those of its parts as ``vision.*`` and ``text.*``.

    Args:
        shapes: Shapes by published names, or by ours.
    """
    found = {"family": _family(shapes), **_vision(shapes), **_tag_decoder(shapes)}
    known = {field: value for field, value in found.items() if value is not None}
    return {**known, **_vocabulary(shapes, known), **_text(shapes)}


def infer_config(shapes: Mapping[str, Shape], *, name: str = "state dict") -> RamConfig:
    """The configuration of a model from its tensors.

    Three numbers leave no trace in them and are taken from the published models: 51 descriptions per tag,
    4 heads of the tag decoder, and heads of 64 channels in the captioner.

    Raises:
        CheckpointError: If the tensors are not those of a RAM, RAM++ or Tag2Text, or do not show the sizes.
    """
    found = guess(shapes)
    vision = {key.removeprefix("vision."): found.pop(key) for key in [*found] if key.startswith("vision.")}
    text = {key.removeprefix("text."): found.pop(key) for key in [*found] if key.startswith("text.")}
    if "family" not in found:
        raise CheckpointError(f"{name} {describe_unknown(shapes)}; expected RAM, RAM++ or Tag2Text")
    try:
        return RamConfig(
            vision=SwinConfig(**vision), text=TextConfig(**text, heads=_text_heads(text)) if text else None, **found
        )
    except TypeError as error:
        raise CheckpointError(
            f"{name} does not show the sizes of its model: {_lacking(error)} cannot be told; pass the configuration"
        ) from error


def describe(config: RamConfig) -> str:
    """A configuration in a few words.

    >>> from rasa_ram.config import RamConfig, SwinConfig
    >>> vision = SwinConfig(image_size=384, embed_dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12)
    >>> describe(RamConfig(family="ram-plus", vision=vision))
    'RAM++ with Swin-L at 384 pixels'
    """
    return (
        f"{FAMILY_NAMES[config.family]} with {_swin_name(config.vision.embed_dim)} at {config.vision.image_size} pixels"
    )


def describe_guess(shapes: Mapping[str, Shape]) -> str:
    """What the tensors look like, in a few words that follow the name of the file."""
    found = guess(shapes)
    if "family" not in found:
        return describe_unknown(shapes)
    image = _swin_name(found["vision.embed_dim"]) if "vision.embed_dim" in found else "no Swin encoder"
    size = f" at {found['vision.image_size']} pixels" if "vision.image_size" in found else ""
    return f"looks like {FAMILY_NAMES[found['family']]} with {image}{size}"


def describe_unknown(shapes: Mapping[str, Shape]) -> str:
    """The same for tensors of no known model."""
    first = ", ".join(f'"{key}"' for key in list(shapes)[:3])
    return f"is no RAM, RAM++ or Tag2Text: it holds {len(shapes)} tensors{f', such as {first}' if first else ''}"


def _swin_name(embed_dim: int) -> str:
    return _SWIN_NAMES.get(embed_dim, f"a Swin of {embed_dim} channels")


def _lacking(error: TypeError) -> str:
    return ", ".join(re.findall(r"'(\w+)'", str(error))) or str(error)


def _family(shapes: Mapping[str, Shape]) -> Family | None:
    if "reweight_scale" in shapes or "label_embedding.reweight_scale" in shapes:
        return "ram-plus"
    if "fc.W" in shapes or "label_embed.weight" in shapes:
        return "tag2text"
    if "image_proj.weight" in shapes and {"label_embed", "label_embedding.vectors"} & shapes.keys():
        return "ram"
    return "tag2text" if "label_embedding.vectors" in shapes else None


def _vision(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    patches = shapes.get("visual_encoder.patch_embed.proj.weight", ())
    blocks = {(int(m[1]), int(m[2])) for key in shapes if (m := re.match(_BLOCK, key))}
    tables = {
        int(m[1]): shape
        for key, shape in shapes.items()
        if (m := re.match(_BLOCK + "attn.relative_position_bias_table", key)) and len(shape) == 2
    }
    if len(patches) != 4 or not blocks or {stage for stage, _ in blocks} != {*range(len(tables))}:
        return {}
    side = math.isqrt(tables[0][0])
    window, patch = (side + 1) // 2, patches[3]
    return {
        "vision.embed_dim": patches[0],
        "vision.patch_size": patch,
        "vision.depths": tuple(1 + max(block for at, block in blocks if at == stage) for stage in range(len(tables))),
        "vision.heads": tuple(tables[stage][1] for stage in range(len(tables))),
        "vision.window": window,
        **_image_size(shapes, window, patch),
    }


def _image_size(shapes: Mapping[str, Shape], window: int, patch: int) -> dict[str, int]:
    mask = shapes.get("visual_encoder.layers.0.blocks.1.attn_mask", ())
    if mask:  # one per window of the first stage
        return {"vision.image_size": math.isqrt(mask[0]) * window * patch}
    return {"vision.image_size": _IMAGE_SIZES[window]} if window in _IMAGE_SIZES else {}


def _tag_decoder(shapes: Mapping[str, Shape]) -> dict[str, int]:
    layers = {int(m[1]): m[0] for key in shapes if (m := re.match(_LAYER, key))}
    if not layers:
        return {}
    first = layers[min(layers)]
    query = shapes.get(f"{first}crossattention.self.query.weight", shapes.get(f"{first}attention.query.weight"))
    inner = shapes.get(f"{first}intermediate.dense.weight", shapes.get(f"{first}intermediate.weight"))
    if not query or not inner:
        return {"layers": len(layers)}
    return {"layers": len(layers), "heads": PUBLISHED_HEADS, "width": query[0], "intermediate": inner[0]}


def _vocabulary(shapes: Mapping[str, Shape], known: Mapping[str, Any]) -> dict[str, int]:
    names = ("label_embed", "label_embed.weight", "label_embedding.vectors")
    vectors = next((shapes[name] for name in names if len(shapes.get(name, ())) == 2), None)
    if vectors is None or "family" not in known:
        return {}
    if known["family"] == "tag2text":
        return {"num_tags": vectors[0]}
    each = RAM_PLUS_DESCRIPTIONS if known["family"] == "ram-plus" and vectors[0] % RAM_PLUS_DESCRIPTIONS == 0 else 1
    return {"num_tags": vectors[0] // each, "descriptions": each, "label_width": vectors[1]}


def _text(shapes: Mapping[str, Shape]) -> dict[str, int]:
    prefix = "captioner." if has_our_names(shapes) else ""
    decoder = f"{prefix}text_decoder.bert."
    words = shapes.get(f"{decoder}embeddings.word_embeddings.weight", ())
    positions = shapes.get(f"{decoder}embeddings.position_embeddings.weight", ())
    inner = shapes.get(f"{decoder}encoder.layer.0.intermediate.dense.weight", ())
    if not (len(words) == len(positions) == len(inner) == 2):
        return {}
    layers = {m[1] for key in shapes if (m := re.match(re.escape(decoder) + r"encoder\.layer\.(\d+)\.", key))}
    return {
        "text.vocab_size": words[0],
        "text.width": words[1],
        "text.layers": len(layers),
        "text.intermediate": inner[0],
        "text.max_positions": positions[0],
    }


def _text_heads(text: Mapping[str, int]) -> int:
    return max(1, text["width"] // TEXT_HEAD_WIDTH)

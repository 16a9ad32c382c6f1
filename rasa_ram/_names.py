"""The conversion table: every tensor of a published checkpoint, and what becomes of it.

The published state dict has four kinds of keys. Each is in this module, by name:

- weights, which are renamed (:func:`weight_table`);
- tied aliases, a second name of a weight (:func:`tied_aliases`);
- computed buffers, which hold nothing learned (:data:`BUFFERS`);
- parts that a configuration leaves out: the captioner (:func:`is_captioner_key`).

Older files have other names for some of them (:data:`OLD_NAMES`).

Source:
    State dicts of the published models, commit 7cb804a8 of the Recognize Anything code.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rasa_ram.config import RamConfig, SwinConfig, TextConfig

Shape = tuple[int, ...]

OLD_NAMES = {"vision_multi": "tagging_head"}
"""What a part was called in older files, and its name since."""

BUFFERS = {
    r"visual_encoder\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index": "follows from the window",
    r"visual_encoder\.layers\.\d+\.blocks\.\d+\.attn_mask": "follows from the window and the image size",
    r"(tag_encoder|text_decoder\.bert)\.embeddings\.position_ids": "counts from 0",
}
"""Patterns of published keys that are computed, not learned, and why they can be dropped."""

_BERTS = ("tag_encoder", "text_decoder.bert")
_DECODER = "text_decoder.cls.predictions.decoder"
_TIED_PARTS = {
    "crossattention.self.query": "attention.query",
    "crossattention.self.key": "attention.key",
    "crossattention.self.value": "attention.value",
    "crossattention.output.dense": "attention.out",
    "crossattention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One learned tensor.

    Attributes:
        source: Its name in the published state dict.
        name: Its name in ours.
        source_shape: Its published shape.
        shape: Its shape in ours: the same numbers in the same order.
    """

    source: str
    name: str
    source_shape: Shape
    shape: Shape

    @property
    def is_position_table(self) -> bool:
        """Whether it depends on the window and is resized to another one."""
        return self.source.endswith(".relative_position_bias_table")


def weight_table(config: RamConfig) -> dict[str, Weight]:
    """All learned tensors of a model by their published names, each once, in a fixed order."""
    weights = [*_image_encoder(config.vision), *_tagging(config)]
    if config.text is not None:
        weights += _captioner(config, config.text)
    return {weight.source: weight for weight in weights}


def tied_aliases(config: RamConfig) -> dict[str, str]:
    """Published names that stand for a tensor with another, canonical name: alias to canonical."""
    if config.text is None:
        return {}
    tied = {
        f"tag_encoder.encoder.layer.{i}.{part}.{kind}": f"tagging_head.encoder.layer.{i}.{part}.{kind}"
        for i in range(min(config.layers, config.text.layers))
        for part in _TIED_PARTS
        for kind in ("weight", "bias")
    }
    words = "text_decoder.bert.embeddings.word_embeddings.weight"
    return {**tied, f"{_DECODER}.weight": words, f"{_DECODER}.bias": "text_decoder.cls.predictions.bias"}


def our_aliases(config: RamConfig) -> dict[str, str]:
    """The same ties by our names."""
    table = weight_table(config)
    return {f"captioner.{alias}": table[canonical].name for alias, canonical in tied_aliases(config).items()}


def alias_wins(alias: str) -> bool:
    """Whether the alias, not the canonical name, counts where a file has different values under both.

    The copy that the published code reads last does: that of the output layer, and of ``tagging_head``.
    """
    return alias.startswith(_DECODER)


def current_name(key: str) -> str:
    """A published key with old names of parts replaced."""
    head, dot, rest = key.partition(".")
    return OLD_NAMES.get(head, head) + dot + rest


def is_buffer(key: str) -> bool:
    """Whether a published key is a computed buffer."""
    return any(re.fullmatch(pattern, key) for pattern in BUFFERS)


def is_captioner_key(key: str) -> bool:
    """Whether a published key belongs to the captioner, of any number of layers."""
    return _without_layer(key) in _captioner_names()


def _without_layer(key: str) -> str:
    return re.sub(r"\.layer\.\d+\.", ".layer.0.", key)


@functools.cache
def _captioner_names() -> frozenset[str]:
    text = TextConfig(layers=1)
    head = (weight.source for weight in _caption_head(text))
    berts = (weight.source for prefix in _BERTS for weight in _bert(prefix, text, text.width, tied_layers=0))
    return frozenset({*head, *berts, f"{_DECODER}.weight", f"{_DECODER}.bias"})


def _image_encoder(vision: SwinConfig) -> Iterator[Weight]:
    prefix, patch, last = "visual_encoder", vision.patch_size, len(vision.depths) - 1
    yield _same(f"{prefix}.patch_embed.proj.weight", vision.embed_dim, 3, patch, patch)
    yield _same(f"{prefix}.patch_embed.proj.bias", vision.embed_dim)
    yield from _norm(f"{prefix}.patch_embed.norm", vision.embed_dim)
    for stage, depth in enumerate(vision.depths):
        width = vision.embed_dim * 2**stage
        for block in range(depth):
            yield from _block(f"{prefix}.layers.{stage}.blocks.{block}", vision, stage)
        if stage < last:  # published at the end of a stage, timm's at the start of the next
            source, name = (f"{prefix}.layers.{i}.downsample" for i in (stage, stage + 1))
            yield Weight(f"{source}.reduction.weight", f"{name}.reduction.weight", *_twice(2 * width, 4 * width))
            yield from _norm(f"{source}.norm", 4 * width, f"{name}.norm")
    yield from _norm(f"{prefix}.norm", vision.width)


def _block(prefix: str, vision: SwinConfig, stage: int) -> Iterator[Weight]:
    width, heads = vision.embed_dim * 2**stage, vision.heads[stage]
    yield from _norm(f"{prefix}.norm1", width)
    yield _same(f"{prefix}.attn.relative_position_bias_table", table_side(vision, stage) ** 2, heads)
    yield from _dense(f"{prefix}.attn.qkv", 3 * width, width)
    yield from _dense(f"{prefix}.attn.proj", width, width)
    yield from _norm(f"{prefix}.norm2", width)
    yield from _dense(f"{prefix}.mlp.fc1", 4 * width, width)
    yield from _dense(f"{prefix}.mlp.fc2", width, 4 * width)


def table_side(vision: SwinConfig, stage: int) -> int:
    """Side of the relative-position tables of a stage: all offsets inside a window, 2w - 1."""
    # A window is at most the map itself.
    map_side = vision.image_size // (vision.patch_size << stage)
    return 2 * min(vision.window, map_side) - 1


def _tagging(config: RamConfig) -> Iterator[Weight]:
    for i in range(config.layers):
        yield from _tag_decoder_layer(config, i)
    if config.family == "tag2text":
        yield Weight("label_embed.weight", "label_embedding.vectors", *_twice(config.num_tags, config.width))
        yield Weight("fc.W", "fc.weight", (1, config.num_tags, config.width), (config.num_tags, config.width))
        yield Weight("fc.b", "fc.bias", (1, config.num_tags), (config.num_tags,))
        return
    rows = config.num_tags * config.descriptions
    yield Weight("label_embed", "label_embedding.vectors", *_twice(rows, config.label_width))
    yield from _dense("wordvec_proj", config.width, config.label_width, "label_embedding.proj")
    if config.family == "ram-plus":
        yield Weight("reweight_scale", "label_embedding.reweight_scale", (), ())
    yield from _dense("image_proj", config.label_width, config.vision.width)
    yield from _dense("fc", 1, config.width)


def _tag_decoder_layer(config: RamConfig, i: int) -> Iterator[Weight]:
    source = f"tagging_head.encoder.layer.{i}"
    for part, shape in _attention_shapes(config.width, config.memory_width, config.intermediate).items():
        name = f"tag_decoder.layers.{i}.{_TIED_PARTS[part]}"
        yield from _dense_or_norm(f"{source}.{part}", shape, name)


def _attention_shapes(width: int, memory_width: int, intermediate: int) -> dict[str, Shape]:
    """Cross-attention and feed-forward network of a layer: (out, in) of a dense layer, (width,) of a norm."""
    return {
        "crossattention.self.query": (width, width),
        "crossattention.self.key": (width, memory_width),
        "crossattention.self.value": (width, memory_width),
        "crossattention.output.dense": (width, width),
        "crossattention.output.LayerNorm": (width,),
        "intermediate.dense": (intermediate, width),
        "output.dense": (width, intermediate),
        "output.LayerNorm": (width,),
    }


def _captioner(config: RamConfig, text: TextConfig) -> Iterator[Weight]:
    encoder, decoder = _BERTS
    yield from _bert(encoder, text, config.memory_width, tied_layers=config.layers)
    yield from _bert(decoder, text, text.width, tied_layers=0)
    yield from _caption_head(text)


def _caption_head(text: TextConfig) -> Iterator[Weight]:
    head = "text_decoder.cls.predictions"
    yield _caption_weight(f"{head}.bias", text.vocab_size)
    yield from _dense(f"{head}.transform.dense", text.width, text.width, f"captioner.{head}.transform.dense")
    yield from _norm(f"{head}.transform.LayerNorm", text.width, f"captioner.{head}.transform.LayerNorm")


def _bert(prefix: str, text: TextConfig, memory_width: int, *, tied_layers: int) -> Iterator[Weight]:
    embeddings = f"{prefix}.embeddings"
    yield _caption_weight(f"{embeddings}.word_embeddings.weight", text.vocab_size, text.width)
    yield _caption_weight(f"{embeddings}.position_embeddings.weight", text.max_positions, text.width)
    yield from _norm(f"{embeddings}.LayerNorm", text.width, f"captioner.{embeddings}.LayerNorm")
    for i in range(text.layers):
        parts: dict[str, Shape] = {f"attention.self.{part}": (text.width,) * 2 for part in ("query", "key", "value")}
        parts |= {"attention.output.dense": (text.width,) * 2, "attention.output.LayerNorm": (text.width,)}
        if i >= tied_layers:
            parts |= _attention_shapes(text.width, memory_width, text.intermediate)
        for part, shape in parts.items():
            source = f"{prefix}.encoder.layer.{i}.{part}"
            yield from _dense_or_norm(source, shape, f"captioner.{source}")


def _twice(*shape: int) -> tuple[Shape, Shape]:
    return shape, shape


def _same(name: str, *shape: int) -> Weight:
    return Weight(name, name, shape, shape)


def _caption_weight(source: str, *shape: int) -> Weight:
    return Weight(source, f"captioner.{source}", shape, shape)


def _dense_or_norm(source: str, shape: Shape, name: str) -> Iterator[Weight]:
    return _norm(source, shape[0], name) if len(shape) == 1 else _dense(source, shape[0], shape[1], name)


def _dense(source: str, out: int, width: int, name: str = "") -> Iterator[Weight]:
    yield Weight(f"{source}.weight", f"{name or source}.weight", *_twice(out, width))
    yield Weight(f"{source}.bias", f"{name or source}.bias", *_twice(out))


def _norm(source: str, width: int, name: str = "") -> Iterator[Weight]:
    yield Weight(f"{source}.weight", f"{name or source}.weight", *_twice(width))
    yield Weight(f"{source}.bias", f"{name or source}.bias", *_twice(width))

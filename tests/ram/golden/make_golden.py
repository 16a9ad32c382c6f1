"""Makes the golden files of this folder: the three models in plain NumPy, written from the papers' facts alone.

    PYTHONPATH=. python tests/ram/golden/make_golden.py

Nothing of ``rasa_ram.modeling`` is used, so agreement is between two implementations. README.md says more.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.ram import reference

FOLDER = Path(__file__).parent
SEED = 31
CONSTANTS = {"ram": (3.0, 0.5), "ram_plus": (4.0, 0.7), "tag2text": (2.2, 0.0)}  # fc_gain and fc_bias
OPENSET_NAMES = ("otter", "blue door", "to climb")
OPENSET_DESCRIPTIONS = 2
BATCH = 2
SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "visual_encoder": {"embed_dim": 8, "depths": [2, 3, 2], "num_heads": [1, 2, 4], "window_size": 4},
    "proj_dim": 12,
    "q2l_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "num_tags": 7,
    "ram_plus": {"des_per_class": 3},
}
VISION, HEAD = SIZES["visual_encoder"], SIZES["q2l_config"]


class Weights:
    """Weights of one model by official key, in float64; remembers the shapes that were asked for."""

    def __init__(self, rule: reference.Constants) -> None:
        self.rule = rule
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __call__(self, key: str, *shape: int) -> np.ndarray:
        self.shapes[key] = shape
        return reference.rule_weight(key, shape, self.rule).astype(np.float64)

    def dense(self, x: np.ndarray, key: str, width: int, *, bias: bool = True) -> np.ndarray:
        product = x @ self(f"{key}.weight", width, x.shape[-1]).T
        return product + self(f"{key}.bias", width) if bias else product

    def norm(self, x: np.ndarray, key: str, *, eps: float) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return scaled * self(f"{key}.weight", x.shape[-1]) + self(f"{key}.bias", x.shape[-1])


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, *, heads: int, bias: Any = None) -> np.ndarray:
    """Attention over the last axes ``(tokens, channels)``; ``bias`` is ``(heads, queries, keys)``."""
    parts = []
    width = query.shape[-1] // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ np.swapaxes(key[..., part], -1, -2) / math.sqrt(width)
        parts.append(softmax(scores if bias is None else scores + bias[head]) @ value[..., part])
    return np.concatenate(parts, axis=-1)


def window_attention(w: Weights, tokens: np.ndarray, key: str, *, heads: int, mask: np.ndarray) -> np.ndarray:
    """Attend inside one window, ``(B, n * n, C)``; ``mask`` is ``(n * n, n * n)``."""
    channels = tokens.shape[-1]
    side = math.isqrt(tokens.shape[-2])
    table = w(f"{key}.relative_position_bias_table", (2 * side - 1) ** 2, heads)
    bias = np.empty((heads, side * side, side * side))
    for q in range(side * side):
        for k in range(side * side):
            dy, dx = q // side - k // side, q % side - k % side
            bias[:, q, k] = table[(dy + side - 1) * (2 * side - 1) + dx + side - 1]
    q, k, v = np.split(w.dense(tokens, f"{key}.qkv", 3 * channels), 3, axis=-1)
    return w.dense(attend(q, k, v, heads=heads, bias=bias + mask), f"{key}.proj", channels)


def shifted_attention(w: Weights, grid: np.ndarray, key: str, *, heads: int, shift: int) -> np.ndarray:
    """Window by window over a map ``(B, H, H, C)``, rolled by ``shift``."""
    side = grid.shape[1]
    window = min(VISION["window_size"], side)
    rolled = np.roll(grid, (-shift, -shift), axis=(1, 2))
    # Which third of the rolled map a row is from; a pair of thirds is a region.
    third = np.array([0 if shift == 0 else (i >= side - window) + (i >= side - shift) for i in range(side)])
    region = third[:, None] * 3 + third[None, :]
    out = np.empty_like(rolled)
    for y in range(0, side, window):
        for x in range(0, side, window):
            part = (slice(None), slice(y, y + window), slice(x, x + window))
            tokens = rolled[part].reshape(len(grid), window * window, -1)
            ids = region[part[1:]].ravel()
            mask = np.where(ids[:, None] == ids[None, :], 0.0, -100.0)
            out[part] = window_attention(w, tokens, key, heads=heads, mask=mask).reshape(rolled[part].shape)
    return np.roll(out, (shift, shift), axis=(1, 2))


def swin_block(w: Weights, grid: np.ndarray, key: str, *, heads: int, odd: bool) -> np.ndarray:
    channels = grid.shape[-1]
    shift = VISION["window_size"] // 2 if odd and grid.shape[1] > VISION["window_size"] else 0
    normed = w.norm(grid, f"{key}.norm1", eps=1e-5)
    grid = grid + shifted_attention(w, normed, f"{key}.attn", heads=heads, shift=shift)
    inner = gelu(w.dense(w.norm(grid, f"{key}.norm2", eps=1e-5), f"{key}.mlp.fc1", 4 * channels))
    return grid + w.dense(inner, f"{key}.mlp.fc2", channels)


def merge(w: Weights, grid: np.ndarray, key: str) -> np.ndarray:
    corners = [grid[:, y::2, x::2] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))]
    normed = w.norm(np.concatenate(corners, axis=-1), f"{key}.norm", eps=1e-5)
    return w.dense(normed, f"{key}.reduction", 2 * grid.shape[-1], bias=False)


def encode(w: Weights, image: np.ndarray, seen: dict[str, np.ndarray]) -> np.ndarray:
    """Pixels ``(B, 3, S, S)`` to ``(B, 1 + N, C)``."""
    batch, channels, size, _ = image.shape
    patch, side = SIZES["patch_size"], size // SIZES["patch_size"]
    cut = image.reshape(batch, channels, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
    kernel = w("visual_encoder.patch_embed.proj.weight", VISION["embed_dim"], channels, patch, patch)
    grid = cut.reshape(batch, side, side, -1) @ kernel.reshape(len(kernel), -1).T
    grid = w.norm(
        grid + w("visual_encoder.patch_embed.proj.bias", len(kernel)), "visual_encoder.patch_embed.norm", eps=1e-5
    )
    seen["swin_patch_embed"] = grid.reshape(batch, -1, grid.shape[-1])[:, :4, :8]
    for stage, (depth, heads) in enumerate(zip(VISION["depths"], VISION["num_heads"], strict=True)):
        key = f"visual_encoder.layers.{stage}"
        for block in range(depth):
            grid = swin_block(w, grid, f"{key}.blocks.{block}", heads=heads, odd=block % 2 == 1)
        if stage < len(VISION["depths"]) - 1:
            grid = merge(w, grid, f"{key}.downsample")
        seen[f"swin_stage{stage}"] = grid.reshape(batch, -1, grid.shape[-1])[:, :4, :8]
    tokens = w.norm(grid, "visual_encoder.norm", eps=1e-5).reshape(batch, -1, grid.shape[-1])
    seen["visual_features"] = np.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
    return seen["visual_features"]


def decode(w: Weights, hidden: np.ndarray, memory: np.ndarray, seen: dict[str, np.ndarray]) -> np.ndarray:
    """Label queries ``(T, D)`` or ``(B, T, D)`` to ``(B, T, D)``."""
    width, heads = HEAD["hidden_size"], HEAD["num_attention_heads"]
    hidden = np.broadcast_to(hidden, (len(memory), *hidden.shape[-2:]))
    for layer in range(HEAD["num_hidden_layers"]):
        key = f"tagging_head.encoder.layer.{layer}"
        query = w.dense(hidden, f"{key}.crossattention.self.query", width)
        keys, values = (w.dense(memory, f"{key}.crossattention.self.{name}", width) for name in ("key", "value"))
        attended = w.dense(attend(query, keys, values, heads=heads), f"{key}.crossattention.output.dense", width)
        hidden = w.norm(attended + hidden, f"{key}.crossattention.output.LayerNorm", eps=1e-12)
        inner = gelu(w.dense(hidden, f"{key}.intermediate.dense", HEAD["intermediate_size"]))
        hidden = w.norm(w.dense(inner, f"{key}.output.dense", width) + hidden, f"{key}.output.LayerNorm", eps=1e-12)
        seen[f"tagging_layer{layer}"] = hidden
    return hidden


def reweight(w: Weights, vectors: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Descriptions ``(T, K, C)`` and pooled image tokens ``(B, C)`` to ``(B, T, C)``, one by one."""
    scale = math.exp(float(w("reweight_scale")))
    mixed = [[softmax(scale * (rows @ pooled) / np.linalg.norm(pooled)) @ rows for rows in vectors] for pooled in image]
    return np.array(mixed)


def score(w: Weights, model: str, vectors: np.ndarray, features: np.ndarray, seen: dict[str, Any]) -> np.ndarray:
    """Label vectors ``(T, K, C)`` and visual features to logits ``(B, T)``."""
    width = HEAD["hidden_size"]
    if model == "tag2text":
        hidden = decode(w, vectors[:, 0], features, seen)
        return (hidden * w("fc.W", 1, len(vectors), width)).sum(axis=-1) + w("fc.b", 1, len(vectors))
    memory = seen["image_embeds"] = w.dense(features, "image_proj", SIZES["proj_dim"])
    labels = vectors[:, 0]
    if model == "ram_plus":
        labels = seen["label_embed_reweight"] = reweight(w, vectors, memory[:, 0])
    hidden = np.maximum(w.dense(labels, "wordvec_proj", width), 0)
    if model == "ram":
        seen["label_hidden"] = hidden
    return w.dense(decode(w, hidden, memory, seen), "fc", 1)[..., 0]


def label_vectors(w: Weights, model: str) -> np.ndarray:
    tags = SIZES["num_tags"]
    if model == "tag2text":
        return w("label_embed.weight", tags, HEAD["hidden_size"])[:, None]
    count = SIZES["ram_plus"]["des_per_class"] if model == "ram_plus" else 1
    return w("label_embed", tags * count, SIZES["proj_dim"]).reshape(tags, count, -1)


def add_openset(w: Weights, model: str, features: np.ndarray, out: dict[str, Any]) -> None:
    count = OPENSET_DESCRIPTIONS if model == "ram_plus" else 1
    key = "openset_label_embed_plus" if model == "ram_plus" else "openset_label_embed"
    rows = reference.rule_weight(key, (len(OPENSET_NAMES) * count, SIZES["proj_dim"]), w.rule).astype(np.float64)
    logits = score(w, model, rows.reshape(len(OPENSET_NAMES), count, -1), features, {})
    out["openset_names"] = np.array(OPENSET_NAMES)
    out["openset_des_per_class"] = np.array(count)
    out["openset_logits"] = logits
    out["openset_tags"] = np.array(
        [" | ".join(name for name, x in zip(OPENSET_NAMES, row, strict=True) if x > 0) for row in logits]
    )


def make(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a model's golden arrays and its manifest."""
    gain, bias = CONSTANTS[model]
    w = Weights(reference.Constants(seed=SEED, fc_gain=gain, fc_bias=bias))
    image = np.random.default_rng(SEED).standard_normal((BATCH, 3, SIZES["image_size"], SIZES["image_size"]))
    out: dict[str, Any] = {}
    features = encode(w, image.astype(np.float32).astype(np.float64), out)
    logits = score(w, model, label_vectors(w, model), features, out)
    out |= {"logits": logits, "sigmoid": 1 / (1 + np.exp(-logits)), "image": image}
    if model != "tag2text":
        add_openset(w, model, features, out)
    arrays = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in out.items()}
    weights = reference.fill(w.shapes, w.rule)
    sha256 = reference.weights_sha256(weights, {})
    meta = {"model": model, "seed": SEED, "fc_gain": gain, "fc_bias": bias, "weights_sha256": sha256}
    arrays |= {"logits_float64": logits, "meta": np.array(json.dumps(meta))}
    return arrays, {"tied_aliases": {}, "keys": {k: [list(shape), "float32"] for k, shape in w.shapes.items()}}


def main() -> None:
    manifests = {}
    for model in CONSTANTS:
        arrays, manifests[model] = make(model)
        np.savez_compressed(FOLDER / f"golden_{model}_tiny.npz", **arrays)
    for name, content in (("tiny_config.json", SIZES), ("tiny_weights_check.json", manifests)):
        (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The reference folders of the detector and segmenter tests: where they are, their images, and their weight rules.

``RASA_REFERENCE`` (default ``../shared/reference`` beside the checkout) holds a folder per family, such as
``grounding_dino`` and ``sam``, each with ``golden_*.npz``, ``keys_*.json`` and a README that states the rules written
here. All seeds, sizes and names are read from the files.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
Rule = Callable[[str, Sequence[int], int], np.ndarray]

_GDINO_EMBEDDINGS = (
    "relative_position_bias_table", "word_embeddings.weight", "position_embeddings.weight",
    "token_type_embeddings.weight",
)  # fmt: skip
_GDINO_DAMPED = (
    "output.dense.weight", "out_proj.weight", "output_proj.weight", "linear2.weight", "attn.proj.weight",
    "mlp.fc2.weight", "out_v_proj.weight", "out_l_proj.weight",
)  # fmt: skip
_SAM_EMBEDDINGS = (
    "iou_token.weight", "mask_tokens.weight", "no_mask_embed.weight", "not_a_point_embed.weight",
    "positional_encoding_gaussian_matrix",
)  # fmt: skip


def reference_folder(family: str) -> Path:
    """Return the folder of the original code's numbers (``grounding_dino`` or ``sam``), or skip the test."""
    folder = Path(os.environ.get("RASA_REFERENCE", ROOT.parent / "shared" / "reference")) / family
    if not folder.is_dir():
        pytest.skip(f"no reference numbers in {folder}; point RASA_REFERENCE at the folder that holds {family}/")
    return folder


def load_npz(path: Path) -> dict[str, Any]:
    """Read all arrays of a golden file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def load_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read a ``keys_*.json``: original key to shape."""
    return {key: tuple(entry["shape"]) for key, entry in load_json(path).items()}


def read_dtypes(path: Path) -> dict[str, torch.dtype]:
    """Read a ``keys_*.json``: original key to dtype."""
    return {key: getattr(torch, entry["dtype"]) for key, entry in load_json(path).items()}


def sine_image(recipe: Sequence[int]) -> np.ndarray:
    """Make the uint8 ``(h, w, 3)`` RGB test image of five integers ``(h, w, a, b, c)``."""
    h, w, a, b, c = (int(number) for number in recipe)
    y, x, k = np.meshgrid(np.arange(h), np.arange(w), np.arange(3), indexing="ij")
    turn = 2 * np.pi
    value = (
        127.5
        + 60 * np.sin(turn * (a * x / w + k / 3))
        + 40 * np.cos(turn * (b * y / h - k / 5))
        + 25 * np.sin(turn * c * (x / w) * (y / h) + k)
    )
    return np.clip(np.floor(value), 0, 255).astype(np.uint8)


def noise(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Draw the float32 standard normal numbers of an original key."""
    generator = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode()) & 0xFFFFFFFF)
    return np.asarray(generator.standard_normal(tuple(shape)), dtype=np.float32)


def grounding_dino_weight(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Make the float32 tensor of an original Grounding DINO key, without ``module.``."""
    key = _shared_box_head(key)
    if key.endswith("sampling_offsets.bias"):
        return _start_offsets(shape[0])
    n, last = noise(key, shape, seed), key.rpartition(".")[2]
    if key.endswith(_GDINO_EMBEDDINGS):
        return np.float32(0.02) * n
    if key in ("transformer.level_embed", "transformer.tgt_embed.weight"):
        return n
    if last in ("gamma_v", "gamma_l"):
        return np.float32(0.5) + np.float32(0.02) * n
    if key == "transformer.decoder.norm.weight":
        return np.float32(0.125) * (np.float32(1) + np.float32(0.02) * n)
    return _common(n, last, damped=key.endswith(_GDINO_DAMPED))


def sam_weight(key: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Make the float32 tensor of an original SAM key."""
    n = noise(key, shape, seed)
    if key.endswith(("image_encoder.pos_embed", "rel_pos_h", "rel_pos_w")):
        return np.float32(0.02) * n
    if key.endswith(_SAM_EMBEDDINGS) or ".point_embeddings." in key:
        return n
    damped = key.endswith(("attn.proj.weight", "mlp.lin2.weight", "out_proj.weight"))
    return _common(n, key.rpartition(".")[2], damped=damped)


def fill(shapes: Mapping[str, Sequence[int]], rule: Rule, seed: int) -> dict[str, torch.Tensor]:
    """Make the tensors of all keys by one of the rules above; drop integer buffers from ``shapes`` first."""
    return {key: torch.from_numpy(np.ascontiguousarray(rule(key, shape, seed))) for key, shape in shapes.items()}


def _common(n: np.ndarray, last: str, *, damped: bool) -> np.ndarray:
    if n.ndim == 1:
        return (np.float32(1) if last == "weight" else np.float32(0)) + np.float32(0.02) * n
    gain = np.float32(0.3 if damped else 1)
    return np.asarray(gain * n / np.float32(math.sqrt(math.prod(n.shape[1:]))), np.float32)


def _shared_box_head(key: str) -> str:
    """Name every copy of the shared box head by the first."""
    parts = key.removeprefix("transformer.decoder.").split(".")
    return ".".join(["bbox_embed", "0", *parts[2:]]) if parts[0] == "bbox_embed" else key


def _start_offsets(length: int, *, heads: int = 8, levels: int = 4) -> np.ndarray:
    """Head i looks in direction 2 pi i / heads; point p is (p + 1) steps away, the same on every level."""
    points = length // (heads * levels * 2)
    turn = np.arange(heads, dtype=np.float32) * np.float32(2 * math.pi / heads)
    grid = np.stack([np.cos(turn), np.sin(turn)], -1)
    grid = grid / np.abs(grid).max(-1, keepdims=True)
    steps = np.arange(1, points + 1, dtype=np.float32)
    return np.ascontiguousarray(
        np.broadcast_to(grid[:, None, None, :] * steps[:, None], (heads, levels, points, 2)), np.float32
    ).reshape(-1)

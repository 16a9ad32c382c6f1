"""The reference folders of the RAM tests: where they are, and the weights that their README's rule makes.

A folder holds ``golden_*.npz``, ``tiny_config.json``, ``tiny_weights_check.json`` and ``keys_*.json``. The project's
own lies in ``tests/ram/golden``; another is named by ``RASA_REFERENCE`` (default ``../shared/reference`` beside the
checkout), under ``ram``. All seeds, sizes and names are read from the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rasa_ram import builders
from rasa_ram.checkpoint import convert_state_dict
from rasa_ram.config import Family, RamConfig, SwinConfig, TextConfig
from rasa_ram.modeling.ram import Ram

ROOT = Path(__file__).parents[2]
OWN = Path(__file__).parent / "golden"
FAMILIES: dict[str, Family] = {"ram": "ram", "ram_plus": "ram-plus", "tag2text": "tag2text"}
BUFFERS = ("relative_position_index", "attn_mask", "position_ids")
LABEL_MATRICES = ("label_embed", "openset_label_embed", "openset_label_embed_plus")


@dataclass(frozen=True)
class Constants:
    """What the weight rule needs besides a key and its shape."""

    seed: int
    fc_gain: float
    fc_bias: float


def reference_folder() -> Path:
    """Return the folder of the published code's numbers, or skip the test."""
    folder = Path(os.environ.get("RASA_REFERENCE", ROOT.parent / "shared" / "reference")) / "ram"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers in {folder}; point RASA_REFERENCE at the folder that holds ram/")
    return folder


def load_npz(path: Path) -> dict[str, Any]:
    """Read a golden file; ``meta`` becomes a dict."""
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    if "meta" in arrays:
        arrays["meta"] = json.loads(str(arrays["meta"]))
    return arrays


def constants(meta: Mapping[str, Any]) -> Constants:
    """Pick the rule's constants from a golden file's ``meta``."""
    return Constants(seed=int(meta["seed"]), fc_gain=float(meta["fc_gain"]), fc_bias=float(meta["fc_bias"]))


def rule_weight(key: str, shape: Sequence[int], rule: Constants) -> np.ndarray:
    """Make the float32 tensor of an official key (section 2 of the reference README)."""
    offset, scale = _offset_and_scale(key, shape, rule)
    noise = np.random.RandomState(zlib.crc32(f"{rule.seed}:{key}".encode())).standard_normal(tuple(shape))
    drawn = np.asarray(noise, dtype=np.float32)
    if key in LABEL_MATRICES:
        wide = drawn.astype(np.float64)
        return (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)
    return np.asarray(np.float32(offset) + np.float32(scale) * drawn, dtype=np.float32)


def _offset_and_scale(key: str, shape: Sequence[int], rule: Constants) -> tuple[float, float]:
    """Return the first matching line of the rule's table; line 3 (unit rows) is applied by the caller."""
    parts = ["", *key.split(".")]
    last, mod = parts[-1], parts[-2]
    width = shape[-1] if shape else 1
    lines = (
        (key in LABEL_MATRICES, (0.0, 1.0)),
        (key == "reweight_scale", (math.log(1 / 0.07), 0.0)),
        (key == "fc.bias", (rule.fc_bias, 0.0)),
        (key in {"fc.weight", "fc.W"}, (0.0, rule.fc_gain / math.sqrt(width))),
        (key == "wordvec_proj.weight", (0.0, 3.0)),
        (key == "label_embed.weight", (0.0, 1.0)),
        (last == "relative_position_bias_table", (0.0, 0.5)),
        (last == "weight" and (mod == "LayerNorm" or mod.startswith("norm")), (1.0, 0.1)),
        (key.endswith("predictions.bias"), (0.0, 0.5)),
        (last in {"bias", "b"}, (0.0, 0.1)),
        (
            key.startswith("visual_encoder.") and key.endswith((".attn.proj.weight", ".mlp.fc2.weight")),
            (0.0, 0.3 / math.sqrt(width)),
        ),
        (mod in {"query", "key"}, (0.0, 1.5 / math.sqrt(width))),
        (mod == "word_embeddings", (0.0, 2 / math.sqrt(width))),
        (mod == "position_embeddings", (0.0, 4 / math.sqrt(width))),
    )
    return next((values for matches, values in lines if matches), (0.0, 1 / math.sqrt(math.prod(shape[1:]))))


def fill(
    shapes: Mapping[str, Sequence[int]], rule: Constants, *, aliases: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Make the whole official state dict of learned tensors; an alias is the same array as its canonical key.

    Args:
        shapes: Official key to shape, with or without aliases and buffers.
        rule: Seed and constants.
        aliases: Alias to canonical key.
    """
    aliases = aliases or {}
    own = {k: rule_weight(k, s, rule) for k, s in shapes.items() if k not in aliases and not is_buffer(k)}
    return {k: own[aliases.get(k, k)] for k in shapes if not is_buffer(k)}


def is_buffer(key: str) -> bool:
    """Tell whether an official key is computed, not learned."""
    return key.rpartition(".")[2] in BUFFERS


def weights_sha256(weights: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> str:
    """Hash filled weights as the reference does: sorted canonical keys, each followed by its bytes."""
    digest = hashlib.sha256()
    for key in sorted(set(weights) - set(aliases)):
        digest.update(key.encode())
        digest.update(weights[key].astype("<f4").tobytes())
    return digest.hexdigest()


def tiny_config(folder: Path, model: str, *, text: bool = False, **overrides: Any) -> RamConfig:
    """Read the sizes of a tiny model (``ram``, ``ram_plus`` or ``tag2text``) from ``tiny_config.json``."""
    sizes = json.loads((folder / "tiny_config.json").read_text(encoding="utf-8"))
    vision, head = sizes["visual_encoder"], sizes["q2l_config"]
    settings = {
        "vision": SwinConfig(
            image_size=sizes["image_size"],
            embed_dim=vision["embed_dim"],
            depths=tuple(vision["depths"]),
            heads=tuple(vision["num_heads"]),
            window=vision["window_size"],
            patch_size=sizes["patch_size"],
        ),
        "num_tags": sizes["num_tags"],
        "descriptions": sizes["ram_plus"]["des_per_class"] if model == "ram_plus" else 1,
        "label_width": sizes["proj_dim"],
        "width": head["hidden_size"],
        "layers": head["num_hidden_layers"],
        "heads": head["num_attention_heads"],
        "intermediate": head["intermediate_size"],
        "text": _text_config(sizes["med_config"]) if text and model != "ram_plus" else None,
    }
    return RamConfig(family=FAMILIES[model], **(settings | overrides))


def _text_config(bert: Mapping[str, Any]) -> TextConfig:
    return TextConfig(
        vocab_size=bert["vocab_size"],
        width=bert["hidden_size"],
        layers=bert["num_hidden_layers"],
        heads=bert["num_attention_heads"],
        intermediate=bert["intermediate_size"],
        max_positions=bert["max_position_embeddings"],
    )


def tiny_weights(folder: Path, model: str, rule: Constants) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Fill a tiny model's official state dict; returns it with its aliases."""
    manifest = json.loads((folder / "tiny_weights_check.json").read_text(encoding="utf-8"))[model]
    shapes = {key: shape for key, (shape, _dtype) in manifest["keys"].items()}
    return fill(shapes, rule, aliases=manifest["tied_aliases"]), manifest["tied_aliases"]


def without_text(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out the captioner's keys."""
    return {key: value for key, value in weights.items() if not key.startswith(("tag_encoder.", "text_decoder."))}


def tiny_model(folder: Path, model: str, *, text: bool = False, dtype: torch.dtype = torch.float32) -> Ram:
    """Build a tiny model with the weights of its golden file, for evaluation."""
    rule = constants(load_npz(folder / f"golden_{model}_tiny.npz")["meta"])
    weights, _aliases = tiny_weights(folder, model, rule)
    config = tiny_config(folder, model, text=text)
    return model_from_official(config, weights if text else without_text(weights)).to(dtype)


def model_from_official(config: RamConfig, weights: Mapping[str, np.ndarray]) -> Ram:
    """Build a model and load official weights strictly through the conversion table."""
    built = builders.build(config)
    official = {key: torch.from_numpy(value) for key, value in weights.items()}
    built.load_state_dict(convert_state_dict(official, config), strict=True)
    return built


def full_size(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of every golden file of a full-size model, and skip the test where there is none."""
    paths = sorted(folder.glob("golden_*_swin_*.npz"))
    if not paths:
        pytest.skip(f"no golden file of a full-size model in {folder}")
    for path in paths:
        yield path.stem.removeprefix("golden_"), load_npz(path)


def full_size_model(folder: Path, name: str, rule: Constants) -> Ram:
    """Build a full-size model for tagging, filling one tensor at a time."""
    config: RamConfig = getattr(builders, name)()
    manifest = json.loads((folder / f"keys_{name}.json").read_text(encoding="utf-8"))
    shapes = {key: shape for key, (shape, _dtype) in manifest["keys"].items()}
    return model_from_official(config, fill(without_text(shapes), rule))

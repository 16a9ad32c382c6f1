"""From a name, a file or a folder to a Sam2Segmenter."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Sam2Config, Sam2Model
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig

from rasa._suggest import did_you_mean
from rasa._torch.dense import use_dense
from rasa._torch.files import open_tensors, read_settings, source_hash
from rasa._torch.fill import fill_module
from rasa.adapters.sam2.keys import convert_keys
from rasa.adapters.sam2.segmenter import Sam2Segmenter
from rasa.errors import CheckpointError, UnknownModelError
from rasa.weights import checkpoints, fetch

# Channels of the first stage, blocks per stage, blocks with global attention, windows per stage, side of the window
# background: sam2.1_hiera_*.yaml and the defaults of Hiera in sam2 1.1.0. Heads double with the channels from heads.
_SIZES: dict[str, dict[str, Any]] = {
    "t": {"channels": 96, "heads": 1, "blocks": [1, 2, 7, 2], "everywhere": [5, 7, 9]},
    "s": {"channels": 96, "heads": 1, "blocks": [1, 2, 11, 2], "everywhere": [7, 10, 13]},
    "b-plus": {"channels": 112, "heads": 2, "blocks": [2, 3, 16, 3], "everywhere": [12, 16, 20], "background": 14},
    "l": {
        "channels": 144,
        "heads": 2,
        "blocks": [2, 6, 36, 4],
        "everywhere": [23, 33, 43],
        "windows": [8, 4, 16, 8],
    },
}
_NAMES = {f"sam2.1-hiera-{size}.sav": size for size in _SIZES}


def sam2_config(size: str) -> Sam2Config:
    """The configuration of a published size: ``"t"``, ``"s"``, ``"b-plus"`` or ``"l"``.

    Raises:
        UnknownModelError: If there is no such size.
    """
    if size not in _SIZES:
        raise UnknownModelError(f'unknown size "{size}" of SAM 2{did_you_mean(size, _SIZES)}; {", ".join(_SIZES)}')
    facts = _SIZES[size]
    channels = [facts["channels"] * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=channels[0],
        num_attention_heads=facts["heads"],
        blocks_per_stage=facts["blocks"],
        embed_dim_per_stage=channels,
        num_attention_heads_per_stage=[facts["heads"] * 2**stage for stage in range(4)],
        window_size_per_stage=facts.get("windows", [8, 4, 14, 7]),
        global_attention_blocks=facts["everywhere"],
        window_positional_embedding_background_size=[facts.get("background", 7)] * 2,
    )
    return Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=channels[::-1]))


def load_sam2(
    source: str | os.PathLike[str],
    *,
    config: Sam2Config | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    **options: Any,
) -> Sam2Segmenter:
    """A segmenter from a published model's name, from a file, or from a folder of the model hub.

    Args:
        source: ``"sam2.1-hiera-t.sav"``, ``-s``, ``-b-plus`` or ``-l``, fetched on first use; or one of the published
            ``.pt`` files, SAM 2.0's included; or a folder with ``config.json`` and ``model.safetensors``.
        config: The model's sizes, for a file whose tensors are of none of the published ones.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        options: Keywords of :class:`Sam2Segmenter`.

    Raises:
        CheckpointError: If the weights are damaged, incomplete, or of another model.
        InputError: If an option is wrong.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If a model's file cannot be fetched.
    """
    path, provenance = _located(os.fspath(source))
    if path.is_dir():
        config = config or read_hub_config(path)
        path = path / "model.safetensors"
    tensors = convert_keys(open_tensors(path).tensors, name=str(path))
    sizes = config or _config_of(tensors, str(path))
    model = fill_module(lambda: Sam2Model(sizes), tensors, name=str(path), device=device, dtype=dtype)
    use_dense(model)
    return Sam2Segmenter(model, **{"provenance": provenance, **options})


def build_segmenter(name: str, *, device: str = "cpu", dtype: str = "float32") -> Sam2Segmenter:
    """The segmenter of a published model, such as ``"sam2.1-hiera-t.sav"``; see :func:`load_sam2`."""
    return load_sam2(name, device=device, dtype=dtype)


# What :mod:`rasa.registry` names: `build_segmenter` of one model each, with its keywords.
build_sam2_t, build_sam2_s, build_sam2_b_plus, build_sam2_l = (partial(build_segmenter, name) for name in _NAMES)


def read_hub_config(folder: Path) -> Sam2Config:
    """The image part of a hub folder's ``config.json``, which may describe the video model.

    Raises:
        CheckpointError: If the file is missing, malformed or of another family.
    """
    path = folder / "config.json"
    values = read_settings(path, cure="a model's folder holds config.json and model.safetensors")
    kind = values.get("model_type")
    if kind not in ("sam2", "sam2_video"):
        raise CheckpointError(f'{path} is of the model type "{kind}", not of SAM 2 (sam2, sam2_video)')
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    try:
        return Sam2Config(**{part: values[part] for part in parts})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no whole configuration of SAM 2: {error!r}") from error


def _located(source: str) -> tuple[Path, dict[str, Any]]:
    if source in _NAMES:
        return fetch(source), {"weights": source, "sha256": checkpoints()[source].sha256}
    path = Path(source).expanduser()
    if not path.exists():
        hint = did_you_mean(source, _NAMES)
        known = ", ".join(_NAMES)
        raise UnknownModelError(f'"{source}" is neither a file, a folder nor a model{hint}; known are {known}')
    return path, {"weights": path.name, "sha256": source_hash(path)}


def _config_of(tensors: dict[str, Tensor], name: str) -> Sam2Config:
    """The published size whose channels and number of blocks the tensors have."""
    stem = tensors.get("vision_encoder.backbone.pos_embed")
    blocks = {key.split(".")[3] for key in tensors if key.startswith("vision_encoder.backbone.blocks.")}
    for size, facts in _SIZES.items():
        if stem is not None and (stem.shape[1], len(blocks)) == (facts["channels"], sum(facts["blocks"])):
            return sam2_config(size)
    if stem is None:
        raise CheckpointError(f"{name} is no checkpoint of SAM 2: it has no image encoder of that kind")
    raise CheckpointError(
        f"{name} has {stem.shape[1]} channels and {len(blocks)} blocks, which is none of the published sizes of "
        "SAM 2; pass config=, or a folder with config.json"
    )

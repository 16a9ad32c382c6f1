"""Weights that others trained for a part of the model: Swin on ImageNet-22k, BERT on text; by our names."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rasa._torch.files import open_tensors
from rasa.errors import CheckpointError
from rasa_ram._conversion import check_finite
from rasa_ram._names import BUFFERS, weight_table
from rasa_ram._relpos import resize_position_table
from rasa_ram.config import RamConfig, SwinConfig

_PREFIX = "visual_encoder."
# A Swin's own buffers, and its classifier of ImageNet's classes, which tags have no use for.
_SWIN_LEFT_OUT = re.compile("|".join([
    *(pattern.removeprefix(r"visual_encoder\.") for pattern in BUFFERS if "visual_encoder" in pattern),
    r"head\.(fc\.)?(weight|bias)", r"classifier\.(weight|bias)", r".*relative_position_index",
]))  # fmt: skip
# The transformers library's names of a Swin -> those of the original code.
_TRANSFORMERS = (
    (r"^swin\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.", "layers."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.relative_position", ".attn.relative_position"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
# What BERT has and the captioner's two BERTs have not: sentence types, the pooler and the next-sentence head.
_BERT_LEFT_OUT = re.compile(
    r"embeddings\.(token_type_embeddings\.weight|position_ids)|pooler\..*|cls\.seq_relationship\..*"
    r"|cls\.predictions\.decoder\..*"
)


def read_swin(path: str | os.PathLike[str], config: SwinConfig) -> dict[str, Tensor]:
    """Read an image encoder trained for classification: Microsoft's ``.pth``, or a file of timm or transformers.

    Position tables of another window are resized, as published. The classifier is left out.

    Args:
        path: Such as ``swin_large_patch4_window7_224_22k.pth``, or ``model.safetensors`` of a model hub's folder.
        config: The encoder to be filled.

    Returns:
        Tensors by names of :class:`rasa_ram.modeling.ram.Ram`, beginning with ``visual_encoder.``.

    Raises:
        CheckpointError: If the file is absent, damaged or would run code, a weight is missing, unknown or of a wrong
            shape, or not of finite floating-point numbers.
    """
    found = _original_names(open_tensors(Path(path)).tensors, str(path))
    tensors = {}
    for weight in weight_table(RamConfig(family="ram", vision=config)).values():
        if not weight.source.startswith(_PREFIX):
            continue
        key = weight.source.removeprefix(_PREFIX)
        if key not in found:
            raise CheckpointError(f'{path} lacks "{key}"; it is no Swin of depths {config.depths}, or incomplete')
        where, tensor = f'{path}: "{key}"', found.pop(key)
        if weight.is_position_table and tensor.ndim == 2:
            tensor = resize_position_table(tensor, math.isqrt(weight.shape[0]), name=where)
        tensors[weight.name] = _fitting(tensor, weight.shape, where)
    if found:
        raise CheckpointError(f'{path} holds "{min(found)}", which a Swin of depths {config.depths} does not have')
    return tensors


def read_bert(path: str | os.PathLike[str], config: RamConfig) -> dict[str, Tensor]:
    """Read BERT's weights for both BERTs of the captioner, as BLIP begins; the published RAM begins without.

    The words ``[DEC]`` and ``[ENC]``, all cross-attention, and the layers that the tag encoder shares with the tag
    decoder are not in what is returned: they keep their fresh weights.

    Args:
        path: ``model.safetensors`` or ``pytorch_model.bin`` of bert-base-uncased, or of a BERT of the config's sizes.
        config: A model with a captioner.

    Returns:
        Tensors by names of :class:`rasa_ram.modeling.ram.Ram`. The word embedding has the file's rows alone.

    Raises:
        CheckpointError: If the file is absent, damaged or would run code, or its tensors are not those of such a BERT.
    """
    assert config.text is not None  # noqa: S101  (of the caller's making, not of the user's)
    found = {_bert_name(key): tensor for key, tensor in open_tensors(Path(path)).tensors.items()}
    tensors = {}
    used: set[str] = set()
    for weight in weight_table(config).values():
        match = re.fullmatch(r"(?:tag_encoder\.|text_decoder\.bert\.|text_decoder\.(?=cls\.))(.+)", weight.source)
        if match is None or ".crossattention." in weight.source:
            continue
        key, where, shape = match[1], f'{path}: "{match[1]}"', weight.shape
        if key not in found:
            raise CheckpointError(f'{path} lacks "{key}"; it is no BERT of {config.text.layers} layers, or incomplete')
        if key in {"embeddings.word_embeddings.weight", "cls.predictions.bias"} and found[key].ndim == len(shape):
            shape = (min(shape[0], len(found[key])), *shape[1:])  # [DEC] and [ENC] are new
        tensors[weight.name] = _fitting(found[key], shape, where)
        used.add(key)
    if unknown := [key for key in found.keys() - used if not _BERT_LEFT_OUT.fullmatch(key)]:
        raise CheckpointError(f'{path} holds "{min(unknown)}", which a BERT of {config.text.layers} layers has not')
    return tensors


def _original_names(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The tensors by the names of Microsoft's code, whatever of the three namings the file has."""
    found = {_replaced(key, _TRANSFORMERS): tensor for key, tensor in state.items()}
    found = {key: tensor for key, tensor in found.items() if not _SWIN_LEFT_OUT.fullmatch(key)}
    if "layers.0.downsample.reduction.weight" not in found:  # timm's merge the patches at the start of a stage
        found = {re.sub(r"^layers\.(\d+)\.downsample", _one_lower, key): tensor for key, tensor in found.items()}
    for key in [key for key in found if ".attn.query." in key]:
        parts = [found.pop(key.replace(".query.", f".{part}."), None) for part in ("query", "key", "value")]
        if any(part is None for part in parts):
            raise CheckpointError(f'{path} lacks key or value beside "{key}"; it is incomplete: fetch it again')
        found[key.replace(".query.", ".qkv.")] = torch.cat([part for part in parts if part is not None])
    return found


def _one_lower(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample"


def _replaced(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _bert_name(key: str) -> str:
    # Files from before 2019 call a norm's weight and bias gamma and beta.
    return _replaced(key, ((r"^bert\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias")))


def _fitting(tensor: Tensor, shape: tuple[int, ...], where: str) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{where} must have shape {shape}, got {tuple(tensor.shape)}; give a file of this size")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{where} must hold floating-point numbers, got {tensor.dtype}")
    check_finite(tensor, where)
    return tensor

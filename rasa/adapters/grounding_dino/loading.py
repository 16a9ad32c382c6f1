"""From a name, a file or a folder to a network or a detector with weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
)

from rasa._suggest import did_you_mean
from rasa._torch.files import open_tensors, read_settings, source_hash
from rasa._torch.loading import torch_device, torch_dtype, without_init
from rasa.adapters.grounding_dino.detector import BOX_THRESHOLD, GroundingDino
from rasa.adapters.grounding_dino.keys import SWIN, Weight, in_memory, original_key, published_name, read_names
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.preprocess import PUBLISHED_LIMITS, Limits
from rasa.adapters.grounding_dino.sizes import infer_config
from rasa.adapters.grounding_dino.text import BertTokenizer
from rasa.errors import CheckpointError, UnknownModelError
from rasa.weights import checkpoints, fetch

# Checkpoints that this adapter reads, see rasa/checkpoints.toml.
MODELS = (
    "grounding-dino-swin-t.ogc",
    "grounding-dino-swin-b.cogcoor",
    "grounding-dino-tiny.ogc",
    "grounding-dino-base.cogcoor",
)
_CLASSES = {
    "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
    "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
}
# Of a last norm that Swin has and Grounding DINO does not use; no file holds it.
_UNUSED = (f"{SWIN}.swin.layernorm.", f"{SWIN}.layernorm.")


def load_grounding_dino(
    source: str | os.PathLike[str],
    *,
    tokenizer: BertTokenizer | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    **options: Any,
) -> GroundingDino:
    """A detector from a published model's name, or from a file or folder of weights.

    Args:
        source: One of :data:`MODELS`, fetched on first use; an original ``.pth``; a ``model.safetensors`` as the hub
            has it; or a hub folder with ``config.json`` and ``model.safetensors``, of Grounding DINO or MM Grounding
            DINO.
        tokenizer: None reads the folder's ``tokenizer.json`` or ``vocab.txt``, and takes bert-base-uncased's, which
            is fetched, where there is none.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``; in half types the text encoder and the
            sampling stay in float32.
        options: Keywords of :class:`GroundingDino`.

    Raises:
        InputError: If an option, the device or the dtype is wrong.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If weights cannot be had or are refused.
        FormatError: If the tokenizer's file is malformed.
    """
    path, provenance = _find(source)
    network = load_network(path, device=device, dtype=dtype)
    folder = path if path.is_dir() else None
    tokenizer = tokenizer or _tokenizer_of(folder)
    options = {"limits": _limits_of(folder), "provenance": provenance, **options}
    return GroundingDino(network, tokenizer, **options)


def load_network(
    path: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32", config: Any = None
) -> GroundingDinoNetwork:
    """A network from a file or folder of weights.

    Args:
        path: See :func:`load_grounding_dino`.
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        config: transformers' configuration, where neither a ``config.json`` nor the weights tell it: the weights do
            not show the number of attention heads, and those of the published models are taken.

    Raises:
        CheckpointError: If the file is no Grounding DINO's or damaged, or a weight is missing, unknown, of a wrong
            shape, or not of finite floating-point numbers.
        InputError: If the device or the dtype is unknown.
    """
    where, kind = torch_device(device), torch_dtype(dtype)
    path = Path(path).expanduser()
    if path.is_dir():
        config = config or _read_config(path)
        path = path / "model.safetensors"
    tensors = open_tensors(path).tensors
    return network_from(tensors, config, name=str(path)).to_dtype(kind).to(where)


def network_from(
    tensors: Mapping[str, Tensor], config: Any = None, *, name: str = "state dict"
) -> GroundingDinoNetwork:
    """A network from tensors by original or published names, on the CPU; every one of them must fit.

    Args:
        tensors: Copied.
        config: See :func:`load_network`.
        name: What errors call the tensors.

    Raises:
        CheckpointError: See :func:`load_network`.
    """
    weights = read_names(tensors, name=name)
    config = config or infer_config(weights, name=name)
    with without_init():
        model = _CLASSES[config.model_type][1](config)
    plan = match_weights(weights, model, name=name)
    with torch.no_grad():
        for parameter, weight in plan:
            _check_numbers(weight, name)
            parameter.copy_(weight.tensor)
        for key, parameter in model.named_parameters():
            if key.startswith(_UNUSED):
                parameter.fill_(1.0 if key.endswith("weight") else 0.0)
    return GroundingDinoNetwork(model)


def match_weights(weights: Mapping[str, Weight], model: Any, *, name: str) -> list[tuple[Tensor, Weight]]:
    """Each parameter of ``model`` with its weight; heads that several layers share come once.

    Args:
        weights: By published names.
        model: transformers' model; meta tensors will do.
        name: What errors call the file.

    Raises:
        CheckpointError: If a weight is missing, left over or of another shape, or shared weights differ.
    """
    given = dict(weights)
    # Until 5.23 transformers' names in memory were the published ones.
    rename = in_memory if hasattr(model.model.backbone.conv_encoder.model, "swin") else published_name
    given = {rename(key): weight for key, weight in given.items()}
    plan: list[tuple[Tensor, Weight]] = []
    for parameter, names in _shared_names(model):
        found = [given.pop(key) for key in names if key in given]
        if not found and names[0].startswith(_UNUSED):
            continue
        plan.append((parameter, _one_of(found, names, name)))
        _check_shape(parameter, plan[-1][1], name)
    if given:
        raise CheckpointError(
            f'{name} holds "{next(iter(given.values())).key}"{_and_more(given)}, which its configuration has no place '
            "for; pass the configuration that it was trained with"
        )
    return plan


def _shared_names(model: Any) -> Iterator[tuple[Tensor, list[str]]]:
    names: dict[int, list[str]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, parameter in parameters.items():
        names.setdefault(id(parameter), []).append(key)
    yield from ((parameters[group[0]], group) for group in names.values())


def _one_of(found: list[Weight], names: list[str], name: str) -> Weight:
    if not found:
        published = published_name(names[0])
        original = original_key(published)
        also = f' ("{original}" in an original file)' if original != published else ""
        raise CheckpointError(f'{name} lacks "{published}"{also}; fetch the file again')
    for other in found[1:]:
        same_shape = other.tensor.shape == found[0].tensor.shape
        if not same_shape or not (other.tensor.is_meta or torch.equal(other.tensor, found[0].tensor)):
            raise CheckpointError(
                f'{name}: "{other.key}" must be equal to "{found[0].key}", as the layers share it; fetch the file again'
            )
    return found[0]


def _check_shape(parameter: Tensor, weight: Weight, name: str) -> None:
    if weight.tensor.shape != parameter.shape:
        raise CheckpointError(
            f'{name}: "{weight.key}" must have shape {tuple(parameter.shape)}, got {tuple(weight.tensor.shape)}; it '
            "is of another size of model, or damaged"
        )


def _check_numbers(weight: Weight, name: str) -> None:
    if not weight.tensor.is_floating_point() or not torch.isfinite(weight.tensor).all():
        raise CheckpointError(
            f'{name}: "{weight.key}" must hold finite floating-point numbers, got {weight.tensor.dtype} with NaN, '
            "infinity or integers; fetch the file again"
        )


def _and_more(left: Mapping[str, Weight]) -> str:
    return f" and {len(left) - 1} more" if len(left) > 1 else ""


def _find(source: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    name = os.fspath(source)
    if name in MODELS:
        return fetch(name), {"checkpoint": name, "sha256": checkpoints()[name].sha256}
    path = Path(name).expanduser()
    if not path.exists():
        raise UnknownModelError(
            f'"{name}" is neither a file, a folder nor a model{did_you_mean(name, MODELS)}; known are '
            f"{', '.join(MODELS)}"
        )
    return path, {"checkpoint": path.name, "sha256": source_hash(path)}


def _read_config(folder: Path) -> Any:
    for part in ("config.json", "model.safetensors"):
        if not (folder / part).is_file():
            raise CheckpointError(f"{folder} lacks {part}; a hub folder has config.json and model.safetensors")
    settings = read_settings(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in _CLASSES:
        raise CheckpointError(f"{folder} holds a model of the type {kind!r}; expected one of {', '.join(_CLASSES)}")
    return _CLASSES[kind][0].from_dict(settings)


def _tokenizer_of(folder: Path | None) -> BertTokenizer:
    if folder and any((folder / part).is_file() for part in ("tokenizer.json", "vocab.txt")):
        return BertTokenizer.read(folder)
    return BertTokenizer.published()


def _limits_of(folder: Path | None) -> Limits:
    file = folder / "preprocessor_config.json" if folder else None
    if file is None or not file.is_file():
        return PUBLISHED_LIMITS
    size = read_settings(file).get("size") or {}
    try:
        return Limits(int(size["shortest_edge"]), int(size["longest_edge"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{file}: "size" must have shortest_edge and longest_edge in pixels, got {size}'
        ) from error


def build_detector(
    name: str, *, device: str = "cpu", dtype: str = "float32", box_threshold: float = BOX_THRESHOLD
) -> GroundingDino:
    """The detector of a published model, one of :data:`MODELS`; see :func:`load_grounding_dino`."""
    return load_grounding_dino(name, device=device, dtype=dtype, box_threshold=box_threshold)


# What :mod:`rasa.registry` names: `build_detector` of one model each, with its keywords.
build_swin_t, build_swin_b, build_tiny, build_base = (partial(build_detector, name) for name in MODELS)

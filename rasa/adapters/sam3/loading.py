"""From a folder of the model hub to Sam3 and Sam3Segmenter."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn
from transformers import AutoTokenizer, Sam3Config, Sam3Model, Sam3TrackerConfig, Sam3TrackerModel

from rasa._torch.dense import use_dense
from rasa._torch.fill import fill_module
from rasa.adapters.sam3.detector import BOX_THRESHOLD, Sam3
from rasa.adapters.sam3.folder import NAME, HubFolder, open_folder
from rasa.adapters.sam3.segmenter import Sam3Segmenter
from rasa.errors import CheckpointError

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")

_DETECTOR_PARTS = (
    "vision_config", "text_config", "geometry_encoder_config", "detr_encoder_config", "detr_decoder_config",
    "mask_decoder_config",
)  # fmt: skip
_TRACKER_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def load_sam3(
    source: str | os.PathLike[str] = NAME, *, device: str = "cpu", dtype: str = "float32", **options: Any
) -> Sam3:
    """SAM 3 as detector and segmenter from tags.

    The weights are gated, and under a licence of their own: accept it on the model hub's page of facebook/sam3, then
    fetch the folder with your token (``hf auth login``); the error of an absent folder has the commands.

    Args:
        source: The folder, with ``config.json``, ``model.safetensors`` and the tokenizer's files; or
            ``"sam3.sa-co"``, the folder of that name in ``RASA_WEIGHTS`` or in ``weights`` of rasa's cache.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        options: Keywords of :class:`Sam3`.

    Raises:
        CheckpointError: If a file is missing, damaged or of another model.
        InputError: If an option is wrong.
        WeightsError: If there is no such folder; it says how to get the weights.
    """
    folder = open_folder(source)
    values, tensors = folder.detector()
    config = _config(Sam3Config, values, _DETECTOR_PARTS, folder)
    model = _filled(lambda: Sam3Model(config), tensors, folder, device=device, dtype=dtype)
    return Sam3(model, _tokenizer(folder), **{"provenance": folder.provenance, **options})


def load_sam3_segmenter(
    source: str | os.PathLike[str] = NAME, *, device: str = "cpu", dtype: str = "float32", **options: Any
) -> Sam3Segmenter:
    """SAM 3 as segmenter from boxes; see :func:`load_sam3` for the weights, their licence and the errors.

    Args:
        source: See :func:`load_sam3`.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        options: Keywords of :class:`Sam3Segmenter`.

    Raises:
        CheckpointError, InputError, WeightsError: As :func:`load_sam3`.
    """
    folder = open_folder(source)
    values, tensors = folder.tracker()
    config = _config(Sam3TrackerConfig, values, _TRACKER_PARTS, folder)
    model = _filled(lambda: Sam3TrackerModel(config), tensors, folder, device=device, dtype=dtype)
    return Sam3Segmenter(model, **{"provenance": folder.provenance, **options})


def build_sam3(*, device: str = "cpu", dtype: str = "float32", box_threshold: float = BOX_THRESHOLD) -> Sam3:
    """:func:`load_sam3` of the folder ``sam3.sa-co``, for :mod:`rasa.registry`."""
    return load_sam3(device=device, dtype=dtype, box_threshold=box_threshold)


def build_sam3_segmenter(*, device: str = "cpu", dtype: str = "float32") -> Sam3Segmenter:
    """:func:`load_sam3_segmenter` of the folder ``sam3.sa-co``, for :mod:`rasa.registry`."""
    return load_sam3_segmenter(device=device, dtype=dtype)


def _config(
    kind: Callable[..., Config], values: Mapping[str, Any], parts: tuple[str, ...], folder: HubFolder
) -> Config:
    try:
        return kind(**{part: values[part] for part in parts})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.path / 'config.json'} is no whole configuration of SAM 3: {error!r}") from error


def _filled(make: Callable[[], Module], tensors: Any, folder: HubFolder, *, device: str, dtype: str) -> Module:
    model = fill_module(make, tensors, name=str(folder.path / "model.safetensors"), device=device, dtype=dtype)
    use_dense(model)
    return model


def _tokenizer(folder: HubFolder) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        cure = "it needs tokenizer.json, or vocab.json and merges.txt; fetch the folder again"
        raise CheckpointError(f"{folder.path} has no tokenizer that can be read: {cure}") from error

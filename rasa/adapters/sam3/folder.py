"""The folder of SAM 3's weights: where it is, what is in it, and how its names map to the two models.

    detector_model.*   finds objects by text; its backbone serves the tracker too
    tracker_neck.*     the tracker's own way to read the backbone
    tracker_model.*    masks from boxes, and the memory that follows objects through a video

Source:
    ``Sam3Model``, ``Sam3TrackerModel`` and ``Sam3VideoModel`` of transformers 5.23; the hub's file has the last one's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rasa._torch.files import open_tensors, read_settings, source_hash
from rasa._weight_folders import SAM3
from rasa.errors import CheckpointError, WeightsError

NAME = SAM3.name
ACCESS = f"{SAM3.terms}: {SAM3.access}"

_MEMORY = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|object_pointer_proj"
    r"|temporal_positional_encoding_projection_layer)\..+"
    r"|memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer"
    r"|occlusion_spatial_embedding_parameter"
)
_DETECTOR, _TRACKER, _NECK = "detector_model.", "tracker_model.", "tracker_neck."
_BACKBONE = "vision_encoder.backbone."
# transformers keeps the same matrix twice, and files may hold it once.
_WAVES = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of SAM 3.

    Attributes:
        path: Where it lies.
        config: What its ``config.json`` says.
        tensors: By the names in its ``model.safetensors``.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def provenance(self) -> dict[str, str]:
        """Its name, and the sha256 of all that is in it."""
        return {"weights": self.path.name, "sha256": source_hash(self.path)}

    def detector(self) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """Configuration and tensors of the model that finds objects by text.

        Raises:
            CheckpointError: If the folder has none.
        """
        if self.config["model_type"] == "sam3":
            return self.config, dict(self.tensors)
        if self.config["model_type"] != "sam3_video":
            raise CheckpointError(f"{self.path} holds the tracker of SAM 3 alone, which finds nothing by text")
        tensors = _refused(self.tensors, (_DETECTOR, _TRACKER, _NECK), str(self.path))
        return self.config["detector_config"], _without(tensors, _DETECTOR)

    def tracker(self) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """Configuration and tensors of the model that makes masks from boxes, without its video memory.

        Raises:
            CheckpointError: If the folder has none.
        """
        if self.config["model_type"] == "sam3":
            raise CheckpointError(f"{self.path} holds the detector of SAM 3 alone, which takes no boxes")
        config, tensors = self.config, dict(self.tensors)
        if config["model_type"] == "sam3_video":
            whole = _refused(self.tensors, (_DETECTOR, _TRACKER, _NECK), str(self.path))
            backbone = _without(whole, _DETECTOR + _BACKBONE)
            neck = _without(whole, _NECK)
            tensors = {_BACKBONE + key: tensor for key, tensor in backbone.items()}
            tensors |= {f"vision_encoder.neck.{key}": tensor for key, tensor in neck.items()}
            tensors |= _without(whole, _TRACKER)
            config = config["tracker_config"]
        tensors = {key: tensor for key, tensor in tensors.items() if not _MEMORY.fullmatch(key)}
        for one, other in (_WAVES, _WAVES[::-1]):
            if one in tensors:
                tensors.setdefault(other, tensors[one])
        return config, tensors


def open_folder(source: str | os.PathLike[str]) -> HubFolder:
    """Open a folder of SAM 3, or the one that stands for the name ``sam3.sa-co``.

    Args:
        source: The folder; or ``"sam3.sa-co"``, which is looked for in the folders ``RASA_WEIGHTS`` and then
            ``weights`` of the cache.

    Raises:
        CheckpointError: If a file is missing, damaged, or of another family.
        WeightsError: If there is no such folder; it says how to get the weights.
    """
    path = SAM3.require() if os.fspath(source) == NAME else Path(source).expanduser()
    if not path.is_dir():
        raise WeightsError(f"there is no folder {path} with SAM 3's weights. {ACCESS}")
    for file in ("config.json", "model.safetensors"):
        if not (path / file).is_file():
            raise CheckpointError(f"{path} lacks {file}. {ACCESS}")
    return HubFolder(path, _read_config(path / "config.json"), open_tensors(path / "model.safetensors").tensors)


def _read_config(path: Path) -> Mapping[str, Any]:
    values = read_settings(path)
    kind = values.get("model_type")
    if kind not in ("sam3", "sam3_video", "sam3_tracker"):
        raise CheckpointError(f'{path} is of the model type "{kind}", not of SAM 3 (sam3_video, sam3, sam3_tracker)')
    needed = ("detector_config", "tracker_config") if kind == "sam3_video" else ("vision_config",)
    for part in needed:
        if not isinstance(values.get(part), dict):
            raise CheckpointError(f"{path} lacks {part}; fetch it again")
    return values


def _refused(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...], name: str) -> Mapping[str, Tensor]:
    """Return ``tensors`` if each key has one of the prefixes: what one model leaves is another's, never unknown."""
    for key in tensors:
        if not key.startswith(prefixes):
            raise CheckpointError(f'{name} has the unknown key "{key}"; it is no checkpoint of SAM 3, or a newer one')
    return tensors


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

"""ML-Decoder: queries for groups of classes attend to the features of a timm network.

Written after the paper (Ridnik et al., arXiv:2111.12933) and checked against a computation by hand; the published
weights for OpenImages could not be had here, so their conversion is checked for names and shapes alone.
"""

from __future__ import annotations

import pickle  # for its error class; nothing is unpickled here
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import timm
import torch
import torch.nn.functional as F
from timm.models.tresnet import checkpoint_filter_fn
from torch import Tensor, nn

from rasa.arrays import FloatArray
from rasa.errors import CheckpointError, InputError
from rasa.types import Image
from rasa_ram._fingerprint import json_hash, weights_hash
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.class_words import prefer

# Of the checkpoint for OpenImages: classes, groups, pixels a side and the threshold that the RAM paper's authors used.
OPEN_IMAGES = {"classes": 9605, "groups": 200, "image_size": 224, "threshold": 0.97}
# The published head's names to ours.
_HEAD = {
    "decoder.embed_standart": "embed",
    "decoder.query_embed.weight": "queries",
    "decoder.duplicate_pooling_bias": "bias",
    "decoder.duplicate_pooling": "weight",
    "decoder.layers.0.multihead_attn": "attention",
    "decoder.layers.0.": "",
}


class MlDecoderHead(nn.Module):
    """Logits of many classes from a map of features.

    Args:
        features: Channels of the map.
        classes: How many.
        groups: Queries; each answers for ``ceil(classes / groups)`` classes.
        width: Channels of the decoder.
        heads: Of its attention.
        intermediate: Channels of its feed-forward part.

    Raises:
        InputError: If a number is not positive.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        groups: int = 200,
        width: int = 768,
        heads: int = 8,
        intermediate: int = 2048,
    ) -> None:
        super().__init__()
        if min(features, classes, groups, width, heads, intermediate) < 1:
            raise InputError("sizes of the ML-Decoder head must be at least 1")
        groups = min(groups, classes)
        self.embed = nn.Linear(features, width)
        self.register_buffer("queries", torch.randn(groups, width))  # fixed, as published
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, intermediate), nn.Linear(intermediate, width)
        self.weight = nn.Parameter(torch.empty(groups, width, -(-classes // groups)))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.xavier_normal_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, L, C)`` to logits ``(B, classes)``."""
        tokens = features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
        memory = F.relu(self.embed(tokens))
        # The published code adds the queries to themselves.
        asked = self.norm1(2 * self.queries).expand(len(memory), -1, -1)
        asked = self.norm2(asked + self.attention(asked, memory, memory, need_weights=False)[0])
        asked = self.norm3(asked + self.linear2(F.relu(self.linear1(asked))))
        logits = torch.einsum("bgw,gwf->bgf", asked, self.weight).flatten(1)  # (B, groups * classes of a group)
        return logits[:, : len(self.bias)] + self.bias


class MlDecoder(nn.Module):
    """A timm network without its head, and :class:`MlDecoderHead`."""

    def __init__(self, backbone: nn.Module, head: MlDecoderHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] to logits."""
        logits: Tensor = self.head(self.backbone.forward_features(pixels))
        return logits


class MlDecoderPredictor:
    """ML-Decoder's probabilities for those of its classes that are the benchmark's; 0 for the others.

    Args:
        model: Gives logits of its classes.
        classes: Their names, in order.
        benchmark: A class takes the first of its words that is one of them.
        image_size: Pixels a side; images are squashed to it, bilinear.
        threshold: For precision and recall.
        name: Of the model.

    Raises:
        InputError: If none of the classes is the model's, or the names are not as many as the model's classes.
    """

    def __init__(
        self,
        model: MlDecoder,
        classes: Sequence[str],
        benchmark: Benchmark,
        *,
        image_size: int = 224,
        threshold: float = 0.97,
        name: str = "ml-decoder",
    ) -> None:
        if len(classes) != len(model.head.bias):
            raise InputError(f"the model has {len(model.head.bias)} classes, the list {len(classes)} names")
        self._model, self._size, self._name = model.eval(), image_size, name
        places = {word: place for place, word in reversed(list(enumerate(classes)))}
        found = [places.get(row[0]) for row in prefer(benchmark, classes)]
        self._columns = [(column, place) for column, place in enumerate(found) if place is not None]
        if not self._columns:
            raise InputError(f"none of the classes of {benchmark.name} is among the model's {len(classes)}")
        self._count, self._classes = len(benchmark.classes), tuple(classes)
        self.thresholds: FloatArray | None = np.full(self._count, threshold, np.float32)

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)`` in [0, 1]."""
        size, weight = (self._size, self._size), self._model.head.bias
        squashed = [
            np.asarray(PIL.Image.fromarray(np.array(image.pixels)).resize(size, PIL.Image.Resampling.BILINEAR))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2).to(weight.device, weight.dtype) / 255
        with torch.inference_mode():
            found = self._model(pixels).float().sigmoid().cpu().numpy()
        scores = np.zeros((len(images), self._count), np.float32)
        columns, places = np.array(self._columns).T
        scores[:, columns] = found[:, places]
        return scores

    def describe(self) -> Mapping[str, Any]:
        """Name, size, how many classes are the model's own, and hashes of its weights and of its classes."""
        told = {"model": self._name, "image_size": self._size, "own_classes": len(self._columns)}
        return told | {"weights": self._weights, "classes": json_hash(self._classes)}

    @cached_property
    def _weights(self) -> str:
        return weights_hash(self._model)


def convert_head(state: Mapping[str, Tensor], prefix: str = "head.") -> dict[str, Tensor]:
    """The published names of a head's tensors, from ``prefix`` on, to those of :class:`MlDecoderHead`.

    Raises:
        CheckpointError: If a tensor of the head is none that is known.
    """
    converted = {}
    for key, tensor in state.items():
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix).replace("decoder.decoder.", "decoder.", 1)
        old = next((old for old in _HEAD if name.startswith(old)), None)
        if old is None:
            raise CheckpointError(f"{key} is no tensor of an ML-Decoder head")
        converted[_HEAD[old] + name.removeprefix(old)] = tensor
    return converted


def load_ml_decoder(
    path: Path, *, backbone: str = "tresnet_m", groups: int = 200, device: str = "cpu"
) -> tuple[MlDecoder, tuple[str, ...] | None]:
    """A published checkpoint, such as ``tresnet_m_open_images_200_groups_86_8.pth``, and its class names if there.

    Args:
        path: The file: a state dict, or a dict with one under ``model`` or ``state_dict``.
        backbone: timm's name of the network.
        groups: Of the head.
        device: As torch names it.

    Raises:
        CheckpointError: If the file does not hold such a model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model", content.get("state_dict", content))
        head_state = convert_head(state)
        classes, features = len(head_state["bias"]), head_state["embed.weight"].shape[1]
        network = timm.create_model(backbone, pretrained=False, num_classes=0)
        head = MlDecoderHead(features, classes, groups=groups, width=head_state["embed.weight"].shape[0])
        head.load_state_dict(head_state)
        body = {key: value for key, value in state.items() if not key.startswith("head.")}
        network.load_state_dict(checkpoint_filter_fn(body, network))
    except CheckpointError:
        raise
    except (OSError, RuntimeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(f"{path} holds no ML-Decoder on {backbone}: {reason}") from error
    names = content.get("idx_to_class")
    listed = None if not isinstance(names, dict) else tuple(str(names[i]) for i in sorted(names))
    return MlDecoder(network, head).to(device).eval(), listed

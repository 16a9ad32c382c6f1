"""SAM and SAM-HQ on transformers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel

from rasa._torch.loading import without_init
from rasa.adapters.sam.architecture import SamArchitecture, transformers_config
from rasa.adapters.sam.attention import TransformersAttention
from rasa.adapters.sam.high_quality import decode_high_quality, high_quality_features
from rasa.adapters.sam.keys import TIED, to_transformers
from rasa.adapters.sam.network import Features, fill_model, speed_up


class TransformersSam:
    """A :class:`rasa.adapters.sam.network.SamNetwork` made of transformers' modules.

    Args:
        architecture: Sizes.
        tensors: By published names.
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        file: What errors call the weights.

    Raises:
        CheckpointError: If the tensors do not fit.
        InputError: If the device or dtype is unknown.
    """

    backend: str = "transformers"

    def __init__(
        self, architecture: SamArchitecture, tensors: Mapping[str, Tensor], *, device: str, dtype: str, file: str
    ) -> None:
        self.architecture = architecture
        config, kind = (SamHQConfig, SamHQModel) if architecture.high_quality else (SamConfig, SamModel)
        with without_init():
            model = kind(config(**transformers_config(architecture)))
        renamed = to_transformers(tensors, file=file)
        renamed[TIED] = renamed["shared_image_embedding.positional_embedding"]
        fill_model(model, renamed, device=device, dtype=dtype, file=file)
        speed_up(model, model.vision_encoder.layers, TransformersAttention, heads=architecture.heads)
        self._model = model
        with torch.inference_mode():
            self._positions = model.get_image_wide_positional_embeddings().to(self.dtype)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._model.mask_decoder.iou_token.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder and the decoder."""
        return self._model.mask_decoder.iou_token.weight.dtype

    def to(self, device: torch.device) -> None:
        """See :meth:`rasa.adapters.sam.network.SamNetwork.to`."""
        self._model.to(device)
        self._positions = self._positions.to(device)

    def encode(self, pixels: Tensor) -> Features:
        """See :meth:`rasa.adapters.sam.network.SamNetwork.encode`."""
        found = self._model.vision_encoder(pixels)
        embedding = found.last_hidden_state
        if not self.architecture.high_quality:
            return (embedding,)
        early = found.intermediate_embeddings[0]
        return embedding, high_quality_features(self._model.mask_decoder, embedding, early)

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`rasa.adapters.sam.network.SamNetwork.decode`."""
        prompts, dense = self._model.prompt_encoder(
            input_points=None, input_labels=None, input_boxes=boxes[None], input_masks=None
        )
        prompts, dense = prompts.to(self.dtype), dense.to(self.dtype)
        if self.architecture.high_quality:
            return decode_high_quality(
                self._model.mask_decoder,
                features[0] + dense,
                features[1],
                positions=self._positions,
                prompts=prompts,
                multimask=multimask,
            )
        logits, quality = self._model.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=self._positions,
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits[0], quality[0]

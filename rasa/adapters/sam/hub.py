"""SAM and SAM-HQ on transformers."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel

from rasa._torch.box_segmenter import Features
from rasa.adapters.sam.architecture import transformers_config
from rasa.adapters.sam.attention import TransformersAttention
from rasa.adapters.sam.high_quality import decode_high_quality, high_quality_features
from rasa.adapters.sam.keys import TIED, to_transformers
from rasa.adapters.sam.network import SamNetwork, SamWeights, speed_up


class TransformersSam(SamNetwork):
    """SAM or SAM-HQ made of transformers' modules.

    Args:
        weights: Errors are those of :meth:`rasa.adapters.sam.network.SamWeights.fill`.
    """

    backend = "transformers"

    def __init__(self, weights: SamWeights) -> None:
        sizes = weights.architecture
        config, kind = (SamHQConfig, SamHQModel) if sizes.high_quality else (SamConfig, SamModel)
        renamed = to_transformers(weights.tensors, file=weights.file)
        renamed[TIED] = renamed["shared_image_embedding.positional_embedding"]
        model = weights.fill(lambda: kind(config(**transformers_config(sizes))), renamed)
        speed_up(model, model.vision_encoder.layers, TransformersAttention, heads=sizes.heads)
        with torch.inference_mode():
            super().__init__(sizes, model, model.get_image_wide_positional_embeddings())

    def encode(self, pixels: Tensor) -> Features:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.encode`."""
        found = self._model.vision_encoder(pixels)
        embedding = found.last_hidden_state
        if not self.architecture.high_quality:
            return (embedding,)
        early = found.intermediate_embeddings[0]
        return embedding, high_quality_features(self._model.mask_decoder, embedding, early)

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.decode`."""
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

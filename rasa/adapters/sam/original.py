"""SAM on the ``segment-anything`` package."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from rasa._torch.box_segmenter import Features
from rasa.adapters.sam.architecture import SamArchitecture
from rasa.adapters.sam.attention import RelativeAttention
from rasa.adapters.sam.network import SamNetwork, SamWeights, speed_up


class OriginalSam(SamNetwork):
    """SAM made of the published code's modules.

    Args:
        weights: Not of SAM-HQ; errors as of :meth:`rasa.adapters.sam.network.SamWeights.fill`.
    """

    backend = "segment-anything"

    def __init__(self, weights: SamWeights) -> None:
        sizes = weights.architecture
        model = weights.fill(lambda: _build(sizes), weights.tensors)
        speed_up(model, model.image_encoder.blocks, RelativeAttention, heads=sizes.heads)
        with torch.inference_mode():
            super().__init__(sizes, model, model.prompt_encoder.get_dense_pe())

    def encode(self, pixels: Tensor) -> Features:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.encode`."""
        return (self._model.image_encoder(pixels),)

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`rasa._torch.box_segmenter.BoxNetwork.decode`."""
        sparse, dense = self._model.prompt_encoder(points=None, boxes=boxes, masks=None)
        return self._model.mask_decoder(
            image_embeddings=features[0],
            image_pe=self._positions,
            sparse_prompt_embeddings=sparse.to(self.dtype),
            dense_prompt_embeddings=dense.to(self.dtype),
            multimask_output=multimask,
        )


def _build(sizes: SamArchitecture) -> Sam:
    encoder = ImageEncoderViT(
        img_size=sizes.side,
        patch_size=sizes.patch,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        mlp_ratio=sizes.mlp_width / sizes.width,
        out_chans=sizes.channels,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # build_sam.py
        use_rel_pos=True,
        window_size=sizes.window,
        global_attn_indexes=sizes.global_layers,
    )
    prompts = PromptEncoder(
        embed_dim=sizes.channels,
        image_embedding_size=(sizes.grid, sizes.grid),
        input_image_size=(sizes.side, sizes.side),
        mask_in_chans=sizes.mask_channels,
    )
    transformer = TwoWayTransformer(
        depth=sizes.decoder_depth,
        embedding_dim=sizes.channels,
        num_heads=sizes.decoder_heads,
        mlp_dim=sizes.decoder_mlp_width,
        attention_downsample_rate=sizes.downsample,
    )
    decoder = MaskDecoder(
        transformer_dim=sizes.channels,
        transformer=transformer,
        num_multimask_outputs=sizes.masks,
        iou_head_depth=sizes.quality_depth,
        iou_head_hidden_dim=sizes.quality_width,
    )
    return Sam(encoder, prompts, decoder)

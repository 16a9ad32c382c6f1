"""SAM on the ``segment-anything`` package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from rasa._torch.loading import without_init
from rasa.adapters.sam.architecture import SamArchitecture
from rasa.adapters.sam.attention import RelativeAttention
from rasa.adapters.sam.network import Features, fill_model, speed_up


class OriginalSam:
    """A :class:`rasa.adapters.sam.network.SamNetwork` made of the published code's modules.

    Args:
        architecture: Sizes; not of SAM-HQ.
        tensors: By published names.
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        file: What errors call the weights.

    Raises:
        CheckpointError: If the tensors do not fit.
        InputError: If the device or dtype is unknown.
    """

    backend: str = "segment-anything"

    def __init__(
        self, architecture: SamArchitecture, tensors: Mapping[str, Tensor], *, device: str, dtype: str, file: str
    ) -> None:
        self.architecture = architecture
        with without_init():
            model = _build(architecture)
        fill_model(model, tensors, device=device, dtype=dtype, file=file)
        speed_up(model, model.image_encoder.blocks, RelativeAttention, heads=architecture.heads)
        self._model = model
        with torch.inference_mode():
            self._positions = model.prompt_encoder.get_dense_pe().to(self.dtype)

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
        return (self._model.image_encoder(pixels),)

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """See :meth:`rasa.adapters.sam.network.SamNetwork.decode`."""
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

"""The tag-guided captioner of Tag2Text and RAM: a tag encoder and a text decoder.

Both are BERTs with cross-attention in every layer, in the published arrangement (Huang et al., arXiv:2303.05657):
the tag encoder reads tags and attends to the image, the text decoder writes and attends to the tag encoder.
transformers' BLIP text model is that network, with the same parameter names; the first layers of the tag
encoder share their cross-attention and feed-forward network with the tag decoder, as published.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

from rasa.errors import ConfigError
from rasa_ram.config import TextConfig
from rasa_ram.modeling.tag_decoder import TagDecoder

# BERT-base, as in the published configs/med_config.json.
LAYER_NORM_EPS = 1e-12
PAD_ID = 0

# Modules of a tag decoder layer -> the modules of a tag encoder layer that are the same ones.
TIED_MODULES = {
    "attention.query": "crossattention.self.query",
    "attention.key": "crossattention.self.key",
    "attention.value": "crossattention.self.value",
    "attention.out": "crossattention.output.dense",
    "attention_norm": "crossattention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


class Captioner(nn.Module):
    """Writes captions from image tokens and tags; B images, L tag tokens, S caption tokens, D channels.

    Attributes:
        tag_encoder: BERT over the tags, attending to image tokens.
        text_decoder: Causal BERT over the caption, attending to the tag encoder's output.

    Args:
        config: Sizes of both BERTs.
        memory_width: Channels of the image tokens.
        tag_decoder: The modules in ``TIED_MODULES`` of its layers become those of the tag encoder's
            first layers: the same objects, so that gradients and updates are shared.

    Raises:
        ConfigError: If the tag decoder has other widths or more layers than the tag encoder.
    """

    def __init__(self, config: TextConfig, *, memory_width: int, tag_decoder: TagDecoder) -> None:
        super().__init__()
        self.tag_encoder = BlipTextModel(_blip_config(config, encoder_width=memory_width), add_pooling_layer=False)
        self.text_decoder = BlipTextLMHeadModel(_blip_config(config, encoder_width=config.width))
        _tie(self.tag_encoder.encoder.layer, tag_decoder.layers)

    def encode_tags(self, tag_ids: Tensor, tag_mask: Tensor, memory: Tensor) -> Tensor:
        """Fuse tags with the image.

        Args:
            tag_ids: int64 ``(B, L)`` WordPiece ids, ``[ENC]`` first.
            tag_mask: ``(B, L)``, 1 for tokens and 0 for padding.
            memory: float ``(B, N, C)`` image tokens, all attended to.

        Returns:
            float ``(B, L, D)``, the padding positions included.
        """
        encoded = self.tag_encoder(tag_ids, attention_mask=tag_mask, encoder_hidden_states=memory, is_decoder=False)
        return encoded.last_hidden_state

    def forward(self, caption_ids: Tensor, caption_mask: Tensor, tag_states: Tensor) -> Tensor:
        """Logits of the next token at every position of a given caption.

        Args:
            caption_ids: int64 ``(B, S)`` WordPiece ids, ``[DEC]`` first.
            caption_mask: ``(B, S)``, 1 for tokens and 0 for padding.
            tag_states: float ``(B, L, D)`` from :meth:`encode_tags`; its padding positions are
                attended to as well, as published.

        Returns:
            float ``(B, S, V)`` before the softmax, V the size of the WordPiece vocabulary.
        """
        decoded = self.text_decoder(
            caption_ids, attention_mask=caption_mask, encoder_hidden_states=tag_states, use_cache=False
        )
        return decoded.logits

    def new_cache(self) -> EncoderDecoderCache:
        """An empty cache for :meth:`step`: keys and values of the tokens and of the tag states."""
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(self, token_ids: Tensor, tag_states: Tensor, cache: EncoderDecoderCache) -> Tensor:
        """Logits of the one token that follows those in ``cache`` and ``token_ids``.

        Args:
            token_ids: int64 ``(B, S)``, the tokens that ``cache`` has not seen, without padding.
            tag_states: float ``(B, L, D)`` from :meth:`encode_tags`, the same in every step.
            cache: From :meth:`new_cache`; it is extended.

        Returns:
            float ``(B, V)`` before the softmax.
        """
        decoded = self.text_decoder(
            token_ids, encoder_hidden_states=tag_states, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return decoded.logits[:, -1]


def _blip_config(config: TextConfig, *, encoder_width: int) -> BlipTextConfig:
    return BlipTextConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        encoder_hidden_size=encoder_width,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.max_positions,
        hidden_act="gelu",
        layer_norm_eps=LAYER_NORM_EPS,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=PAD_ID,
        bos_token_id=None,  # the search names its start and end tokens itself
        sep_token_id=None,
        eos_token_id=None,
        is_decoder=True,  # it builds the cross-attention; each call says whether its mask is causal
    )


def _tie(encoder_layers: nn.ModuleList, decoder_layers: nn.ModuleList) -> None:
    """Put the tag decoder's modules into the tag encoder's first layers."""
    if len(decoder_layers) > len(encoder_layers):
        raise ConfigError(
            f"the tag encoder has {len(encoder_layers)} layers and must have at least the {len(decoder_layers)} "
            "of the tag decoder, which it shares"
        )
    # Whole modules, not parameters: a move to another device or a load with assign=True keeps them shared.
    for encoder_layer, decoder_layer in zip(encoder_layers, decoder_layers, strict=False):
        for source, target in TIED_MODULES.items():
            shared, own = decoder_layer.get_submodule(source), encoder_layer.get_submodule(target)
            if shared.weight.shape != own.weight.shape:
                raise ConfigError(
                    f"the tag encoder shares {source} with the tag decoder and must have its shape "
                    f"{tuple(shared.weight.shape)}, got {tuple(own.weight.shape)}; set text.width and text.intermediate"
                )
            parent, _, name = target.rpartition(".")
            setattr(encoder_layer.get_submodule(parent), name, shared)

"""Random weights to begin a training with, drawn as the published code draws them."""

from __future__ import annotations

import torch
from torch import nn

from rasa_ram.config import RamConfig
from rasa_ram.modeling.ram import GroupedLinear, Ram

# Of BERT and of Swin alike: bert_config.json's initializer_range, and the published Swin code's trunc_normal_.
STD = 0.02


def draw_model(config: RamConfig, *, seed: int) -> Ram:
    """Build a model with fresh weights, in training mode; the caller's random numbers stay as they are.

    Swin draws from a truncated normal of deviation 0.02; tag decoder and captioner, both BERTs, from a normal of 0.02,
    their biases at 0; the projections, the shared scoring layer and Tag2Text's label table as ``torch.nn`` does;
    Tag2Text's scoring vectors evenly within one over the root of the width. Label vectors are zero, to be filled.

    Args:
        config: Sizes of the model.
        seed: The same seed gives the same weights, on every machine with the same torch.

    Source:
        The published models' training code (commit 1aed54ee of recognize-anything: ram/models/{ram,tag2text,utils}.py).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Ram(config)
        _draw_bert(model.tag_decoder)
        if config.text is not None:
            _draw_bert(model.captioner)
        if isinstance(model.fc, GroupedLinear):
            bound = config.width**-0.5
            nn.init.uniform_(model.fc.weight, -bound, bound)
            nn.init.uniform_(model.fc.bias, -bound, bound)
    return model.train()


def _draw_bert(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=STD)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)

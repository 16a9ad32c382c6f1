"""Tiny models with random weights that answer differently for different pictures."""

import numpy as np
import torch

from rasa_ram.builders import build
from rasa_ram.config import RamConfig, SwinConfig
from rasa_ram.vocabulary import Vocabulary
from tests.ram.hash_encoder import LABEL_WIDTH

NAMES = ("cat", "dog", "sofa", "tree", "car", "sky", "red", "run", "beach", "lamp", "cup", "bus")
VOCABULARY = Vocabulary(NAMES, thresholds=np.linspace(0.2, 0.8, len(NAMES)))
VISION = SwinConfig(image_size=64, embed_dim=8, depths=(1, 2, 1, 1), heads=(1, 1, 2, 2), window=2)


def tiny_model(family="ram", *, num_tags=12, descriptions=None, dtype=torch.float32):
    """A model of ``family`` whose logits spread over several units."""
    counts = {"ram": 1, "ram-plus": 5, "tag2text": 1}
    config = RamConfig(
        family=family,
        vision=VISION,
        num_tags=num_tags,
        descriptions=counts[family] if descriptions is None else descriptions,
        label_width=LABEL_WIDTH,
        width=24,
        heads=2,
        intermediate=48,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build(config)
        for name, parameter in model.named_parameters():
            if name == "label_embedding.vectors":
                parameter.data = torch.nn.functional.normalize(torch.randn_like(parameter), dim=-1)
            elif parameter.ndim == 2 and "visual_encoder" not in name:
                parameter.data *= 3
    return model.to(dtype)

"""A stand-in for ImageNet: the toy image encoder trained to classify single objects; the tables begin with it.

The papers' models all begin from a Swin that was trained on ImageNet. Here the same encoder learns to tell shape,
colour, texture and background of one object a picture, on scenes of a series of its own, so that each of the short
trainings that are compared begins with eyes, as the paper's do.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.modeling.swin import SwinEncoder
from rasa_ram.preprocess import preprocess
from rasa_ram.toy.drawing import SIDE
from rasa_ram.toy.model import toy_config
from rasa_ram.toy.scenes import Scene, draw_scene
from rasa_ram.toy.words import BACKGROUNDS, COLOURS, SHAPES, TEXTURES
from rasa_ram.training.optimizer import build_optimizer, set_rate
from rasa_ram.training.schedule import CosineDecay

# The series of scenes that it learns from.
_SEED = 9002
_RATE = 1e-3
_CLASSES: tuple[tuple[str | None, ...], ...] = (SHAPES, tuple(COLOURS), (None, *TEXTURES), BACKGROUNDS)


def train_toy_backbone(*, scenes: int = 8000, epochs: int = 5, batch_size: int = 32, seed: int = 0) -> SwinEncoder:
    """Train the image encoder of the toy RAM as a classifier.

    Args:
        scenes: Pictures of one object each.
        epochs: Times they are seen.
        batch_size: Pictures of an update.
        seed: Of the weights and the order.

    Raises:
        InputError: If there are fewer scenes than a batch.
    """
    if scenes < batch_size:
        raise InputError(f"the backbone needs at least a batch of {batch_size} scenes, got {scenes}")
    drawn = [draw_scene(_SEED, index, relation="alone") for index in range(scenes)]
    classes = torch.tensor([_classes_of(scene) for scene in drawn])
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SwinEncoder(toy_config(1).vision)
        heads = nn.Linear(encoder.num_features, sum(map(len, _CLASSES)))
    optimizer = build_optimizer(nn.ModuleList([encoder, heads]), rate=_RATE)
    schedule = CosineDecay(peak=_RATE, floor=0.0, epochs=epochs)
    for epoch in range(epochs):
        set_rate(optimizer, schedule.rate(epoch))
        order = rng.permutation(scenes)
        for start in range(0, scenes - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            optimizer.zero_grad()
            logits = heads(encoder(_pixels([drawn[i] for i in chosen]))[:, 0])
            _loss(logits, classes[torch.from_numpy(chosen)]).backward()
            optimizer.step()
    return encoder.eval()


def _classes_of(scene: Scene) -> list[int]:
    thing = scene.things[0]
    words = (thing.shape, thing.colour, thing.texture, scene.background)
    return [names.index(word) for names, word in zip(_CLASSES, words, strict=True)]


def _pixels(scenes: list[Scene]) -> Tensor:
    return torch.from_numpy(preprocess([Image(scene.pixels) for scene in scenes], SIDE))


def _loss(logits: Tensor, classes: Tensor) -> Tensor:
    parts = logits.split([len(names) for names in _CLASSES], dim=1)
    return torch.stack([F.cross_entropy(part, classes[:, i]) for i, part in enumerate(parts)]).sum()

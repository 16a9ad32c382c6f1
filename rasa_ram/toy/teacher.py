"""A stand-in for CLIP: a small image encoder trained to find the sentence that goes with a picture.

CLIP has learned from 400 million pictures with captions what they have in common; here a toy encoder learns it from
other scenes than those it teaches on. Its text tower is the frozen sentence encoder, so that its image features live
where the label vectors live, as CLIP's do. It knows far less of the toy world than CLIP does of ours: what
distillation from it is worth says nothing about distillation from CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa.errors import InputError
from rasa_ram.data.loader import LoaderSettings, TrainingLoader, Views
from rasa_ram.modeling.swin import SwinEncoder
from rasa_ram.sentence_encoder import WIDTH
from rasa_ram.text_encoder import TextEncoder
from rasa_ram.toy.data import DrawnImages, toy_records
from rasa_ram.toy.drawing import SIDE
from rasa_ram.toy.model import toy_config
from rasa_ram.toy.words import toy_vocabulary
from rasa_ram.training.optimizer import build_optimizer, set_rate

# CLIP begins at 0.07 and learns it (arXiv:2103.00020, section 2.5); fixed, which suits a training of minutes.
_TEMPERATURE = 0.07
# CLIP ViT-B/16's image features are about this long before they are normalised, MiniLM's vectors 1.
_LENGTH = 10.0
# The series of scenes that the teacher learns from.
_SEED = 9001


class ToyTeacher(nn.Module):
    """A Swin of the toy RAM's size with a projection; a :class:`rasa_ram.training.teacher.Teacher`.

    Args:
        encoder: Makes the features of texts.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        config = toy_config(1).vision
        self.visual = SwinEncoder(config)
        self.projection = nn.Linear(config.width, WIDTH)
        self._encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit-norm features ``(B, 384)`` of ``pixels``, ``(B, 3, 64, 64)`` with CLIP's normalisation."""
        return F.normalize(self.projection(self.visual(pixels)[:, 0]), dim=-1)

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """Features ``(B, 384)`` of length 10, as long as CLIP's."""
        return self(pixels) * _LENGTH

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm ``(B, 384)``."""
        return torch.from_numpy(self._encoder.encode(texts))


def train_toy_teacher(
    encoder: TextEncoder, *, scenes: int = 8000, steps: int = 1500, batch_size: int = 32, seed: int = 0
) -> ToyTeacher:
    """Train the teacher: each picture must find its own caption among those of its batch, and each caption its picture.

    Args:
        encoder: Makes the captions' vectors; it is not trained.
        scenes: Pictures with three captions each, of a series of their own.
        steps: Updates.
        batch_size: Pictures of an update.
        seed: Of the weights and of the order.

    Raises:
        InputError: If there are fewer scenes than a batch.
    """
    if scenes < batch_size:
        raise InputError(f"the teacher needs at least a batch of {batch_size} scenes, got {scenes}")
    images = DrawnImages()
    records = toy_records(toy_vocabulary(), scenes, seed=_SEED, images=images)
    views = Views(size=SIDE, teacher_size=SIDE, scale=(1.0, 1.0), ratio=(1.0, 1.0), operations=0)
    settings = LoaderSettings(batch_size=batch_size, num_tags=len(toy_vocabulary()), seed=seed, views=views, texts=True)
    loader = TrainingLoader(records, images, settings=settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = ToyTeacher(encoder)
    _contrast(teacher, loader, steps=steps)
    return teacher.eval().requires_grad_(requires_grad=False)


def _contrast(teacher: ToyTeacher, loader: TrainingLoader, *, steps: int, peak: float = 1e-3) -> None:
    optimizer = build_optimizer(teacher.train(), rate=peak)
    epochs = -(-steps // len(loader))
    batches = (samples for epoch in range(epochs) for samples in loader.batches(epoch))
    for step, samples in zip(range(steps), batches, strict=False):
        set_rate(optimizer, peak * min(1.0, (step + 1) / 100) * (1 - step / steps))
        if samples.teacher_pixels is None or samples.texts is None:
            raise InputError("the teacher learns from pictures and captions; its loader must give both")
        similarity = teacher(samples.teacher_pixels) @ teacher.text_features(samples.texts).T / _TEMPERATURE
        own = torch.arange(len(similarity))
        loss = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

"""The stand-in for ImageNet: an encoder that learns to classify single objects."""

import pytest
import torch

from rasa.errors import InputError
from rasa_ram.toy.backbone import train_toy_backbone
from rasa_ram.toy.model import toy_config
from rasa_ram.toy.scenes import draw_scene


def test_it_fits_the_toy_model_and_repeats():
    state = torch.random.get_rng_state()
    one, two = (train_toy_backbone(scenes=64, epochs=1, seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = train_toy_backbone(scenes=64, epochs=1, seed=4)
    assert not torch.equal(other.patch_embed.proj.weight, one["patch_embed.proj.weight"])
    assert other.image_size == toy_config(1).vision.image_size
    assert not other.training


def test_a_relation_can_be_asked_for():
    assert {draw_scene(1, index, relation="row").relation for index in range(5)} == {"row"}
    assert all(len(draw_scene(1, index, relation="alone").things) == 1 for index in range(5))
    with pytest.raises(InputError, match=r"relation must be one of alone, above, .*, got 'under'"):
        draw_scene(1, 0, relation="under")
    with pytest.raises(InputError, match="at least a batch of 32 scenes, got 8"):
        train_toy_backbone(scenes=8)

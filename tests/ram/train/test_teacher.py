"""The teacher: open_clip's own numbers, frozen."""

import open_clip
import pytest
import torch

from rasa.errors import ConfigError, InputError, WeightsError
from rasa_ram.training.teacher import OpenClipTeacher, Teacher, load_teacher

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CLIP(embed_dim=8, vision_cfg=VISION, text_cfg=TEXT)


@pytest.fixture(scope="module")
def teacher(clip):
    return OpenClipTeacher(clip, open_clip.SimpleTokenizer(context_length=12))


def test_image_features_are_raw_and_text_features_unit_norm(clip, teacher):
    assert isinstance(teacher, Teacher)
    pixels = torch.randn(3, 3, 32, 32)
    features = teacher.image_features(pixels)
    with torch.no_grad():
        torch.testing.assert_close(features, clip.encode_image(pixels))
        assert not torch.allclose(features.norm(dim=-1), torch.ones(3), atol=0.05)
        texts = ["a dog", "a red bus in a street " * 20]
        tokens = open_clip.SimpleTokenizer(context_length=12)(texts)
        torch.testing.assert_close(teacher.text_features(texts), clip.encode_text(tokens, normalize=True))
    torch.testing.assert_close(teacher.text_features(texts).norm(dim=-1), torch.ones(2))


def test_nothing_of_it_is_trained(clip, teacher):
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert not clip.training
    assert not teacher.image_features(torch.randn(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_what_it_cannot_read_is_refused(clip, teacher, tmp_path):
    with pytest.raises(InputError, match="this teacher reads no text"):
        OpenClipTeacher(clip).text_features(["a dog"])
    with pytest.raises(InputError, match="no caption for the teacher to read"):
        teacher.text_features([])
    with pytest.raises(ConfigError, match="dtype of CLIP must be one of float32, float16, bfloat16, got 'int8'"):
        load_teacher(dtype="int8")
    with pytest.raises(WeightsError, match="is no file; pass the weight file of CLIP ViT-B/16"):
        load_teacher(tmp_path / "missing.pt")

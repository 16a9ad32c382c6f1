"""The toy RAM learns, and so does its teacher."""

import numpy as np
import pytest
import torch

from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.toy.data import DrawnImages, toy_records
from rasa_ram.toy.model import draw_toy_model, label_vectors, score_images, toy_config
from rasa_ram.toy.runs import ToyRun, train_toy
from rasa_ram.toy.teacher import train_toy_teacher
from rasa_ram.toy.words import toy_vocabulary
from rasa_ram.training.teacher import Teacher
from tests.ram.hash_encoder import HashEncoder

NAMES = toy_vocabulary().names


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Label vectors of no meaning do not belong in the user's cache."""
    monkeypatch.setenv("RASA_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-toys"))


@pytest.fixture(scope="module")
def images():
    return DrawnImages()


@pytest.fixture(scope="module")
def records(images):
    return toy_records(toy_vocabulary(), 160, seed=1, images=images)


@pytest.mark.parametrize("captions", [False, True])
def test_twenty_steps_lower_the_loss(records, images, tmp_path, captions):
    model = draw_toy_model(toy_config(len(NAMES), captioner=captions), toy_vocabulary(), HashEncoder(384))
    losses = []
    report = train_toy(
        model,
        toy_vocabulary(),
        records,
        images=images,
        run=ToyRun(epochs=2, batch_size=16, warmup_steps=5),
        out=tmp_path / "run",
        captions=captions,
        progress=lambda step: losses.append(step.losses),
    )
    assert report.steps == len(losses) == 20
    part = "t2t" if captions else "tag"
    first, last = (np.mean([one[part] for one in losses[span]]) for span in (slice(0, 4), slice(-4, None)))
    assert last < 0.9 * first


def test_equal_seeds_draw_equal_models_and_leave_the_callers_random_numbers():
    state = torch.random.get_rng_state()
    one, two, other = (
        draw_toy_model(toy_config(len(NAMES)), toy_vocabulary(), HashEncoder(384), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert not one.label_embedding.vectors.requires_grad


def test_queries_tell_tags_apart_before_training():
    model = draw_toy_model(toy_config(len(NAMES)), toy_vocabulary(), HashEncoder(384)).eval()
    hidden = model.queries().hidden
    assert 0.2 < hidden.std() < 3  # else the first norm would see nothing but the image


def test_scores_are_those_of_the_model_for_own_and_other_tags(records, images):
    model = draw_toy_model(toy_config(len(NAMES)), toy_vocabulary(), HashEncoder(384))
    shown = [Image(images.pixels(record.image_path)) for record in records[:5]]
    whole = score_images(model, shown)
    assert model.training
    assert whole.shape == (5, len(NAMES))
    asked = score_images(model, shown, vectors=label_vectors(HashEncoder(384), NAMES[:3]), batch_size=2)
    np.testing.assert_allclose(asked, whole[:, :3], atol=1e-5)


def test_a_model_of_another_vocabulary_is_refused():
    with pytest.raises(InputError, match="has 225 tags and the model 7"):
        draw_toy_model(toy_config(7), toy_vocabulary(), HashEncoder(384))
    with pytest.raises(InputError, match="pass the encoder"):
        draw_toy_model(toy_config(225), toy_vocabulary())


def test_the_teacher_has_features_of_clips_length_and_trains_the_student(records, images, tmp_path):
    teacher = train_toy_teacher(HashEncoder(384), scenes=32, steps=2, batch_size=16)
    assert isinstance(teacher, Teacher)
    features = teacher.image_features(torch.zeros(3, 3, 64, 64))
    np.testing.assert_allclose(features.norm(dim=-1), 10, rtol=1e-4)
    model = draw_toy_model(toy_config(len(NAMES)), toy_vocabulary(), HashEncoder(384))
    run = ToyRun(epochs=1, batch_size=16, warmup_steps=0)
    report = train_toy(
        model, toy_vocabulary(), records[:32], images=images, run=run, out=tmp_path / "run", teacher=teacher
    )
    assert report.losses["dis"] > 0
    with pytest.raises(InputError, match="at least a batch of 16 scenes, got 3"):
        train_toy_teacher(HashEncoder(384), scenes=3, batch_size=16)

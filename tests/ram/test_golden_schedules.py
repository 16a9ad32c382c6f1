"""Learning rates and weight decay against the published training code's numbers."""

import json

import numpy as np
import pytest

from rasa_ram.training.optimizer import WEIGHT_DECAY
from rasa_ram.training.schedule import FINETUNE, PRETRAIN, CosineDecay, LinearWarmup, StepDecay
from tests.ram import reference

RTOL = 1e-12


@pytest.fixture(scope="module")
def golden():
    return json.loads((reference.reference_folder() / "golden_schedules.json").read_text(encoding="utf-8"))


def compare(rate, points, **options):
    assert points
    positions, expected = zip(*points, strict=True)
    np.testing.assert_allclose([rate(at, **options) for at in positions], expected, rtol=RTOL, atol=0)


def test_golden_warmup(golden):
    assert golden["warmup"]
    for case in golden["warmup"]:
        warmup = LinearWarmup(start=case["warmup_lr"], steps=case["max_step"])
        compare(warmup.rate, case["points"], peak=case["init_lr"])


def test_golden_step_decay(golden):
    assert golden["step"]
    for case in golden["step"]:
        decay = StepDecay(peak=case["init_lr"], floor=case["min_lr"], kept=case["decay_rate"])
        compare(decay.rate, case["points"])


def test_golden_cosine_decay(golden):
    assert golden["cosine"]
    for case in golden["cosine"]:
        decay = CosineDecay(peak=case["init_lr"], floor=case["min_lr"], epochs=case["max_epoch"])
        compare(decay.rate, case["points"])


@pytest.mark.parametrize("name", ["pretrain", "pretrain_tag2text"])
def test_golden_settings_of_pretraining(golden, name):
    published = golden["configs"][name]
    decay, warmup = PRETRAIN.decay, PRETRAIN.warmup
    assert (decay.peak, decay.floor, decay.kept) == tuple(
        published[key] for key in ("init_lr", "min_lr", "lr_decay_rate")
    )
    assert (warmup.start, warmup.steps) == (published["warmup_lr"], published["warmup_steps"])
    assert published["weight_decay"] == WEIGHT_DECAY


@pytest.mark.parametrize("name", ["finetune", "finetune_tag2text"])
def test_golden_settings_of_finetuning(golden, name):
    published, decay = golden["configs"][name], FINETUNE.decay
    assert (decay.peak, decay.floor, decay.epochs) == tuple(
        published[key] for key in ("init_lr", "min_lr", "max_epoch")
    )
    assert FINETUNE.warmup is None
    assert published["weight_decay"] == WEIGHT_DECAY

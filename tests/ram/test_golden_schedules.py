"""Learning rates and weight decay against the published training code's numbers."""

import json

import numpy as np
import pytest

from rasa_ram.training.config import load_recipe
from rasa_ram.training.initialise import count_tags
from rasa_ram.training.optimizer import WEIGHT_DECAY
from rasa_ram.training.schedule import CosineDecay, LinearWarmup, StepDecay
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


# Recipe -> file of the published code.
PRETRAINING = {
    "pretrain_ram_swin_b_224": "pretrain",  # the file's own backbone is Swin-L; the paper's ablations have Swin-B
    "pretrain_ram_swin_l_224": "pretrain",
    "pretrain_ram_plus": "pretrain",
    "pretrain_tag2text": "pretrain_tag2text",
}
FINETUNING = {
    "finetune_ram_384": "finetune",
    "finetune_ram_plus_384": "finetune",
    "finetune_tag2text_384": "finetune_tag2text",
}


def check_common_settings(config, published, *, backbone=True):
    """What all four published files say besides learning rates."""
    _, _, size = config.model.architecture.rpartition("-")
    assert (int(size), config.data.views.size) == (published["image_size"], published["image_size"])
    assert config.data.batch_size == published["batch_size"]
    assert config.run.epochs == published["max_epoch"]
    assert config.run.weight_decay == published["weight_decay"] == WEIGHT_DECAY
    assert count_tags(config.model.vocabulary) == published["class_num"]
    assert not backbone or published["vit"].replace("_", "-") in config.model.architecture


@pytest.mark.parametrize("recipe", PRETRAINING)
def test_golden_settings_of_pretraining(golden, recipe):
    published, config = golden["configs"][PRETRAINING[recipe]], load_recipe(recipe)
    check_common_settings(config, published, backbone=recipe != "pretrain_ram_swin_b_224")
    schedule = config.schedule.build(config.run.epochs)
    decay, warmup = schedule.decay, schedule.warmup
    assert (decay.peak, decay.floor, decay.kept) == tuple(
        published[key] for key in ("init_lr", "min_lr", "lr_decay_rate")
    )
    assert (warmup.start, warmup.steps) == (published["warmup_lr"], published["warmup_steps"])


@pytest.mark.parametrize("recipe", FINETUNING)
def test_golden_settings_of_finetuning(golden, recipe):
    published, config = golden["configs"][FINETUNING[recipe]], load_recipe(recipe)
    check_common_settings(config, published)
    schedule = config.schedule.build(config.run.epochs)
    decay = schedule.decay
    assert (decay.peak, decay.floor, decay.epochs) == tuple(
        published[key] for key in ("init_lr", "min_lr", "max_epoch")
    )
    assert schedule.warmup is None


def test_recipes_hit_the_golden_points(golden):
    """The published numbers of warm-up, step and cosine that were made with the published settings."""
    schedule = load_recipe("pretrain_ram_swin_l_224").schedule.build(5)
    checked = 0
    for case in golden["warmup"]:
        if (case["warmup_lr"], case["init_lr"], case["max_step"]) == (5e-7, 1e-4, 3000):
            compare(lambda at: schedule.rate(at, steps_per_epoch=10**9), case["points"])
            checked += 1
    for case in golden["step"]:
        if (case["init_lr"], case["min_lr"], case["decay_rate"]) == (1e-4, 5e-7, 0.9):
            points = [point for point in case["points"] if point[0] > 0]  # epoch 0 warms up
            compare(lambda at: schedule.rate(at * 4000, steps_per_epoch=4000), points)
            checked += 1
    fine = load_recipe("finetune_ram_384").schedule
    for case in golden["cosine"]:
        if (case["init_lr"], case["min_lr"]) == (5e-6, 0):
            compare(lambda at, case=case: fine.build(case["max_epoch"]).rate(at * 7, steps_per_epoch=7), case["points"])
            checked += 1
    assert checked >= 3

"""The dry run: weights, memory, steps and hours, against models that were really built and steps that were made."""

from dataclasses import replace

import pytest
import torch

from rasa.errors import ConfigError
from rasa_ram import builders
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.training.config import load_recipe, recipes
from rasa_ram.training.memory_estimate import blank_batch, estimate_memory, meta_model, step_activations
from rasa_ram.training.objective import PARTS
from rasa_ram.training.plan import TEACHER_WEIGHTS, make_plan
from rasa_ram.training.run import prepare
from rasa_ram.training.step import TrainingStep
from tests.ram.recipes.tiny_recipe import write_tiny_recipe

# Deep and wide enough for blocks to hold most of the memory.
SMALL = RamConfig(
    family="ram",
    vision=SwinConfig(image_size=64, embed_dim=32, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4),
    num_tags=40,
    label_width=32,
    width=64,
    intermediate=256,
    text=TextConfig(vocab_size=99, width=64, layers=2, heads=4, intermediate=256, max_positions=64),
)
SLOW = {"pretrain_ram_swin_b_224", "pretrain_ram_plus", "pretrain_tag2text"}  # as the other, and two seconds each
PRETRAINING = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else [])
    for name in recipes()
    if name.startswith("pretrain")
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of a tiny recipe."""
    return write_tiny_recipe(tmp_path_factory.mktemp("tiny") / "recipe")


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_recipes_of_the_papers_can_be_planned_in_seconds(name):
    plan = make_plan(load_recipe(name), processes=8, records=14_000_000, images_per_second=1000)
    config = load_recipe(name)
    batch = 8 * config.data.batch_size
    assert plan.effective_batch == batch
    assert plan.steps_per_epoch == 14_000_000 // batch
    assert plan.steps == 5 * plan.steps_per_epoch
    assert plan.hours == pytest.approx(plan.steps * batch / 1000 / 3600)
    assert plan.image_tokens == plan.steps * batch * (7 * 7 + 1)
    text = TextConfig() if config.model.captioner else None
    sizes = builders.architecture(config.model.architecture, text=text)
    with torch.device("meta"):
        model = builders.build(sizes)
    if sizes.family != "tag2text":  # whose recipe has RAM's 4585 tags, as published
        assert plan.trained + plan.frozen == sum(weight.numel() for weight in model.parameters())
    assert (plan.frozen > 0) == (sizes.family != "tag2text")
    assert plan.memory.optimizer == 2 * plan.memory.gradients == 8 * plan.trained
    assert plan.memory.weights >= 4 * (plan.trained + plan.frozen)
    assert plan.memory.teacher == (0 if sizes.family == "tag2text" else 4 * TEACHER_WEIGHTS)


def test_a_plan_of_real_data_is_the_run_that_is_made(tiny, tmp_path):
    config = load_recipe(tiny, ["run.accumulate=2"])
    plan = make_plan(config)
    training = prepare(config, out=tmp_path)
    assert plan.records == 12
    assert plan.steps_per_epoch == config.run.steps_per_epoch(len(training.source)) == 2
    assert plan.effective_batch == 6
    assert plan.trained == sum(w.numel() for w in training.start.model.parameters() if w.requires_grad)
    assert plan.frozen == training.start.model.label_embedding.vectors.numel()
    assert plan.hours is None
    assert plan.text_tokens == 4 * 6 * 80


def saved_bytes(config, batch, *, parts):
    """What autograd really holds after a forward pass."""
    model = builders.build(config).train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept, step = {}, TrainingStep(model, parts=parts, autocast=False)

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = step(batch)
    assert terms.tag.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
def test_activations_of_fake_tensors_are_those_of_real_ones(family):
    text = {"text": None, "descriptions": 3} if family == "ram-plus" else {}
    sizes = replace(SMALL, family=family, **text)
    real = saved_bytes(sizes, blank_batch(sizes, 3, PARTS[family]), parts=PARTS[family])
    assert step_activations(meta_model(sizes), 3, parts=PARTS[family]) == real


def test_memory_grows_with_what_is_asked_and_shrinks_with_what_is_spared():
    def estimate(**options):
        return estimate_memory(meta_model(SMALL), options.pop("batch", 32), parts=PARTS["ram"], **options)

    plain = estimate()
    more = estimate(batch=64, average=True, split=4)
    assert more.activations == pytest.approx(2 * plain.activations, rel=0.05)
    assert more.average == more.gradients == plain.gradients // 4
    assert more.optimizer == plain.optimizer // 4
    assert estimate(autocast=True).activations < 0.8 * plain.activations
    assert estimate(recompute=True).activations < 0.25 * plain.activations


def test_what_cannot_run_is_refused_before_it_does(tiny):
    with pytest.raises(ConfigError, match=r"an epoch has 0 batches and a step takes 1; lower accumulate or the batch"):
        make_plan(load_recipe(tiny), processes=8)
    with pytest.raises(ConfigError, match=r"names no data\.manifests to count; name them, or tell how many"):
        make_plan(load_recipe("pretrain_tag2text"))
    with pytest.raises(ConfigError, match=r"processes must be at least 1 and images per second above 0"):
        make_plan(load_recipe(tiny), images_per_second=0)


def test_notes_tell_of_a_warmup_that_is_cut_off_and_of_a_random_encoder(tiny):
    notes = make_plan(load_recipe(tiny, ["schedule.warmup_steps=5"])).notes
    assert any("warm-up of 5 steps is longer than the first epoch of 4" in note for note in notes)
    assert any("random weights" in note for note in notes)

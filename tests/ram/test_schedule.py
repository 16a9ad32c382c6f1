"""What holds for learning rates and the optimiser whatever their settings, and which settings are refused."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import ConfigError, InputError
from rasa_ram.config import TextConfig
from rasa_ram.modeling.captioner import Captioner
from rasa_ram.training.config import load_recipe
from rasa_ram.training.optimizer import WEIGHT_DECAY, build_optimizer, parameter_groups, set_rate
from rasa_ram.training.schedule import CosineDecay, LinearWarmup, Schedule, StepDecay
from tests.ram.tiny import tiny_model

PRETRAIN = load_recipe("pretrain_ram_swin_l_224").schedule.build(5)
FINETUNE = load_recipe("finetune_ram_384").schedule.build(2)
RATES = st.floats(0, 1)
PAIRS = st.tuples(RATES, RATES).map(sorted)


@given(PAIRS, st.integers(1, 50))
def test_warmup_starts_and_ends_where_stated_and_rises_evenly(pair, steps):
    start, peak = pair
    warmup = LinearWarmup(start=start, steps=steps)
    rates = [warmup.rate(step, peak=peak) for step in range(steps + 3)]
    assert rates[0] == start
    assert rates[steps:] == pytest.approx([peak] * 3, rel=1e-12)
    assert max(rates) <= peak
    rises = [after - before for before, after in pairwise(rates[: steps + 1])]
    assert rises == pytest.approx([(peak - start) / steps] * steps, abs=1e-12)


@given(PAIRS, st.floats(0.01, 1))
def test_step_decay_never_rises_nor_leaves_its_bounds(pair, kept):
    floor, peak = pair
    rates = [StepDecay(peak=peak, floor=floor, kept=kept).rate(epoch) for epoch in range(40)]
    assert rates[0] == peak
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] >= floor


def test_step_decay_reaches_its_floor():
    rates = [StepDecay(peak=1.0, floor=0.2, kept=0.5).rate(epoch) for epoch in range(5)]
    assert rates == [1.0, 0.5, 0.25, 0.2, 0.2]


@given(PAIRS, st.integers(1, 40))
def test_cosine_decay_falls_from_peak_to_floor(pair, epochs):
    floor, peak = pair
    decay = CosineDecay(peak=peak, floor=floor, epochs=epochs)
    rates = [decay.rate(epoch) for epoch in range(epochs + 1)]
    assert (rates[0], rates[-1]) == (pytest.approx(peak), pytest.approx(floor))
    assert all(after <= before + 1e-15 for before, after in pairwise(rates))
    assert decay.rate(epochs + 1) == pytest.approx(decay.rate(epochs - 1), abs=1e-12)


def test_warmup_meets_the_decay_without_a_jump():
    schedule = Schedule(decay=StepDecay(peak=1.0, floor=0.1, kept=0.5), warmup=LinearWarmup(start=0.0, steps=4))
    assert [schedule.rate(step, steps_per_epoch=6) for step in range(13)] == [0, 0.25, 0.5, 0.75] + [1] * 2 + [
        0.5
    ] * 6 + [0.25]


def test_warmup_longer_than_the_first_epoch_is_cut_off():
    schedule = Schedule(decay=StepDecay(peak=1.0, floor=0.1, kept=0.5), warmup=LinearWarmup(start=0.0, steps=4))
    assert [schedule.rate(step, steps_per_epoch=2) for step in range(5)] == [0, 0.25, 0.5, 0.5, 0.25]


def rates_of_a_run(schedule, *, epochs, steps_per_epoch):
    """The rates that an optimiser had in each step of a run which sets them when the published loop does."""
    rates, current = [], None
    for epoch in range(epochs):
        current = schedule.decay.rate(epoch)
        for i in range(steps_per_epoch):
            if schedule.warmup is not None and epoch == 0:
                current = schedule.warmup.rate(i, peak=schedule.decay.peak)
            rates.append(current)
    return rates


@pytest.mark.parametrize("schedule", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
@given(steps_per_epoch=st.sampled_from([1, 7, 2999, 3000, 3100]), share=st.floats(0, 1))
def test_resuming_at_any_step_gives_the_rates_of_the_undisturbed_loop(schedule, steps_per_epoch, share):
    whole = rates_of_a_run(schedule, epochs=3, steps_per_epoch=steps_per_epoch)
    start = int(share * (len(whole) - 1))
    resumed = [schedule.rate(step, steps_per_epoch=steps_per_epoch) for step in range(start, len(whole))]
    assert resumed == whole[start:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearWarmup(start=-1e-9, steps=1), r"start must be a learning rate of at least 0, got -1e-09"),
        (lambda: LinearWarmup(start=float("nan"), steps=1), r"start must be .* got nan"),
        (lambda: LinearWarmup(start=0.0, steps=0), r"at least 1, got 0; leave the warm-up out"),
        (lambda: StepDecay(peak=float("inf"), floor=0.0, kept=0.9), r"peak must be .* got inf"),
        (lambda: StepDecay(peak=0.1, floor=0.2, kept=0.9), r"floor must be at most the peak 0.1, got 0.2"),
        (lambda: StepDecay(peak=0.1, floor=0.0, kept=0.0), r"kept must be in \(0, 1\], got 0.0"),
        (lambda: StepDecay(peak=0.1, floor=0.0, kept=1.1), r"kept must be in \(0, 1\], got 1.1"),
        (lambda: CosineDecay(peak=0.1, floor=-0.1, epochs=2), r"floor must be .* got -0.1"),
        (lambda: CosineDecay(peak=0.1, floor=0.0, epochs=0), r"epochs must be at least 1, got 0"),
        (
            lambda: Schedule(decay=FINETUNE.decay, warmup=LinearWarmup(start=1e-3, steps=5)),
            r"start at most at the peak 5e-06, got 0.001",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: PRETRAIN.rate(-1, steps_per_epoch=5), r"step is counted from 0, got -1"),
        (lambda: PRETRAIN.rate(0, steps_per_epoch=0), r"steps_per_epoch must be at least 1, got 0"),
        (lambda: PRETRAIN.warmup.rate(-2, peak=1.0), r"step is counted from 0, got -2"),
        (lambda: PRETRAIN.decay.rate(-3), r"epoch is counted from 0, got -3"),
        (lambda: FINETUNE.decay.rate(-4), r"epoch is counted from 0, got -4"),
    ],
)
def test_positions_out_of_range_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def model_with_captioner(family):
    """A tiny model whose captioner shares tensors with the tag decoder and within itself."""
    model = tiny_model(family)
    text = TextConfig(vocab_size=60, width=24, layers=2, heads=2, intermediate=48, max_positions=48)
    model.captioner = Captioner(text, memory_width=model.config.memory_width, tag_decoder=model.tag_decoder)
    return model


@pytest.mark.parametrize(
    ("make", "family", "frozen"),
    [
        (tiny_model, "ram", {"label_embedding.vectors"}),
        (tiny_model, "ram-plus", {"label_embedding.vectors"}),
        (tiny_model, "tag2text", set()),
        (model_with_captioner, "ram", {"label_embedding.vectors"}),
        (model_with_captioner, "tag2text", set()),
    ],
)
def test_groups_hold_every_trained_tensor_exactly_once(make, family, frozen):
    model = make(family)
    grouped = [parameter for group in parameter_groups(model) for parameter in group["params"]]
    ids = [id(parameter) for parameter in grouped]
    assert len(ids) == len(set(ids))
    # With duplicates: what is shared must be there under one of its names, whichever.
    everything = dict(model.named_parameters(remove_duplicate=False))
    assert set(ids) == {id(parameter) for name, parameter in everything.items() if name not in frozen}
    if make is model_with_captioner:
        assert len(ids) < len(everything) - len(frozen)


def test_biases_and_normalisation_decay_like_all_others():
    groups = parameter_groups(tiny_model())
    assert {group["weight_decay"] for group in groups} == {WEIGHT_DECAY}
    assert any(parameter.ndim == 1 for group in groups for parameter in group["params"])


def test_a_step_without_gradient_signal_shrinks_weights_by_rate_times_decay():
    model = torch.nn.Linear(3, 2)
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, rate=0.1, weight_decay=0.5)
    (0 * model(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name] * (1 - 0.1 * 0.5))


def test_frozen_tensors_are_left_out_and_a_frozen_model_is_refused():
    model = tiny_model().requires_grad_(False)
    with pytest.raises(InputError, match="no parameter to train; set requires_grad"):
        parameter_groups(model)
    model.fc.requires_grad_(True)
    (group,) = parameter_groups(model)
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in model.fc.parameters()]


def test_optimiser_has_the_published_settings_and_takes_a_new_rate():
    optimizer = build_optimizer(torch.nn.Linear(2, 2), rate=0.1)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.3})
    set_rate(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.999), 1e-8)}


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_rates_and_decays_out_of_range_are_refused(value):
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, rate=0.1)
    with pytest.raises(ConfigError, match=f"weight_decay must be at least 0, got {value}"):
        parameter_groups(model, weight_decay=value)
    with pytest.raises(ConfigError, match=f"learning rate must be at least 0, got {value}"):
        build_optimizer(model, rate=value)
    with pytest.raises(ConfigError, match=f"learning rate must be at least 0, got {value}"):
        set_rate(optimizer, value)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


def train(model, optimizer, schedule, steps):
    """Fit the logits of fixed noise, a new picture at each step; returns the mean logit of every step."""
    means = []
    for step in steps:
        set_rate(optimizer, schedule.rate(step, steps_per_epoch=3))
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        loss = model(pixels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(loss.item())
    return means


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_resumed_optimiser_ends_with_bit_equal_weights(killed_after):
    schedule = Schedule(decay=StepDecay(peak=1e-2, floor=1e-4, kept=0.5), warmup=LinearWarmup(start=1e-3, steps=2))
    whole = tiny_model().eval()  # evaluation mode: no dropout, whose random state is not what is tested
    losses = train(whole, build_optimizer(whole, rate=0.0), schedule, range(7))
    killed = tiny_model().eval()
    optimizer = build_optimizer(killed, rate=0.0)
    train(killed, optimizer, schedule, range(killed_after))
    weights, state = copy.deepcopy((killed.state_dict(), optimizer.state_dict()))
    resumed = tiny_model().eval()
    resumed.load_state_dict(weights)
    optimizer = build_optimizer(resumed, rate=0.0)
    optimizer.load_state_dict(state)
    assert train(resumed, optimizer, schedule, range(killed_after, 7)) == losses[killed_after:]
    expected = whole.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.state_dict().items())

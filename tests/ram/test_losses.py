"""Losses by hand and by properties; the published numbers are in test_golden_losses.py."""

import math

import pytest
import torch

from rasa.errors import InputError
from rasa_ram.builders import build
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.data.captions import clean_caption
from rasa_ram.data.samples import CaptionBatch
from rasa_ram.training.losses import (
    LABEL_SMOOTHING,
    alignment_loss,
    asymmetric_loss,
    caption_labels,
    caption_loss,
    combine,
    distillation_loss,
)
from rasa_ram.training.objective import Batch, compute_losses

VISION = SwinConfig(image_size=16, embed_dim=8, depths=(1, 1), heads=(1, 2), window=2)


def test_without_options_the_asymmetric_loss_is_binary_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 7, dtype=torch.float64), torch.randint(0, 2, (3, 7))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="sum")
    torch.testing.assert_close(asymmetric_loss(logits, targets, gamma_neg=0, gamma_pos=0, clip=None), expected)


def test_rejected_tags_cost_nothing_and_learn_nothing():
    logits = torch.tensor([[-3.0, 2.0]], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[0, 1]]))
    loss.backward()
    # sigmoid(-3) is 0.047, below the clip of 0.05; the positive keeps its plain cross entropy.
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-6)
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] < 0


def test_a_loss_leaves_the_grad_mode_as_it_found_it():
    logits, targets = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)
    with torch.no_grad():
        loss = asymmetric_loss(logits, targets)
        assert not torch.is_grad_enabled()
    assert not loss.requires_grad
    asymmetric_loss(logits, targets)
    assert torch.is_grad_enabled()


def test_extreme_logits_give_finite_losses_and_gradients():
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[0, 0, 1, 1]]), weight_gradient=True, gamma_pos=2)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_caption_loss_is_the_smoothed_cross_entropy_of_the_counted_tokens():
    torch.manual_seed(1)
    logits = torch.randn(1, 5, 6, dtype=torch.float64)
    ids, mask = torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([[1, 1, 1, 1, 0]])
    labels = caption_labels(ids, mask, prompt_length=2)
    assert labels.tolist() == [[-100, -100, 3, 4, -100]]
    log_probs = torch.log_softmax(logits[0], dim=-1)
    # Positions 1 and 2 predict tokens 3 and 4; a tenth of the weight is spread over all six tokens.
    by_hand = [
        -(1 - LABEL_SMOOTHING) * log_probs[i, token] - LABEL_SMOOTHING * log_probs[i].mean()
        for i, token in ((1, 3), (2, 4))
    ]
    torch.testing.assert_close(caption_loss(logits, labels), sum(by_hand) / 2)


def test_captions_without_a_counted_token_cost_nothing():
    logits = torch.randn(2, 4, 6, requires_grad=True)
    labels = caption_labels(torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4), prompt_length=4)
    loss = caption_loss(logits, labels)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_distillation_is_the_mean_absolute_difference_and_leaves_the_teacher_alone():
    image, teacher = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 5.0]], requires_grad=True)
    loss = distillation_loss(image, teacher)
    loss.backward()
    assert loss.item() == 2
    assert teacher.grad is None


def test_the_tagging_loss_takes_the_value_but_not_the_gradient_of_the_caption_loss():
    tag, t2t = torch.tensor(40.0, requires_grad=True), torch.tensor(8.0, requires_grad=True)
    losses = combine(tag=tag, t2t=t2t, dis=torch.tensor(0.5))
    assert losses.total.item() == pytest.approx(16.5)
    losses.total.backward()
    assert tag.grad.item() == pytest.approx(0.2)
    assert t2t.grad.item() == 1
    assert combine(tag=tag, dis=torch.tensor(1.0), alignment=torch.tensor(2.0)).total.item() == 43
    assert combine(tag=torch.tensor(0.0), t2t=t2t).total.item() == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asymmetric_loss(torch.zeros(2, 3), torch.zeros(3, 2)), r"same shape, got \(2, 3\) and \(3, 2\)"),
        (lambda: asymmetric_loss(torch.zeros(1), torch.zeros(1), clip=1.0), r"clip must be in \[0, 1\)"),
        (lambda: asymmetric_loss(torch.zeros(1), torch.zeros(1), gamma_neg=-1.0), "gammas at least 0"),
        (lambda: caption_loss(torch.zeros(1, 2, 3), torch.zeros(1, 3)), r"labels must have shape \(1, 2\)"),
        (lambda: distillation_loss(torch.zeros(1, 2), torch.zeros(2)), "image and teacher must have the same shape"),
        (lambda: alignment_loss(torch.zeros(2, 3)), r"must have shape \(B, B\)"),
        (lambda: clean_caption("a", max_words=0), "max_words must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def tiny(family, **changes):
    return build(RamConfig(family=family, vision=VISION, num_tags=4, label_width=8, width=16, heads=2, **changes))


def test_a_batch_must_hold_what_the_family_learns_from():
    batch = Batch(pixels=torch.zeros(1, 3, 16, 16), targets=torch.zeros(1, 4))
    with pytest.raises(InputError, match="a batch for ram must hold captions and image_features besides targets, got "):
        compute_losses(tiny("ram"), batch)
    ids = torch.ones(1, 5, dtype=torch.int64)
    captions = CaptionBatch(tag_ids=ids, tag_mask=ids, caption_ids=ids, caption_mask=ids)
    with pytest.raises(InputError, match="this tag2text has no captioner to train"):
        compute_losses(tiny("tag2text"), Batch(pixels=batch.pixels, targets=batch.targets, captions=captions))


def test_a_batch_may_teach_tags_alone_if_asked():
    batch = Batch(pixels=torch.zeros(1, 3, 16, 16), targets=torch.zeros(1, 4))
    losses = compute_losses(tiny("ram"), batch, parts=())
    assert (losses.t2t, losses.dis, losses.total) == (None, None, losses.tag)
    with pytest.raises(InputError, match="a batch for ram must hold image_features besides targets, got neither"):
        compute_losses(tiny("ram"), batch, parts=("image_features",))
    with pytest.raises(InputError, match="tag2text learns from captions besides targets, not from text_features"):
        compute_losses(tiny("tag2text"), batch, parts=("text_features",))


def test_unknown_tags_cost_and_teach_nothing():
    logits = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    targets, known = torch.tensor([[0, 0, 1]]), torch.tensor([[True, False, True]])
    loss = asymmetric_loss(logits, targets, known=known)
    loss.backward()
    assert loss.item() == pytest.approx(asymmetric_loss(logits[:, [0, 2]], targets[:, [0, 2]]).item())
    assert logits.grad[0, 1] == 0
    assert (logits.grad[0, [0, 2]] != 0).all()
    with pytest.raises(InputError, match="logits and known must have the same shape"):
        asymmetric_loss(logits, targets, known=known[:, :2])


def test_a_few_steps_lower_every_loss_of_tag2text():
    torch.manual_seed(0)
    text = TextConfig(vocab_size=12, width=16, layers=2, heads=2, intermediate=32, max_positions=16, dropout=0.0)
    model = tiny("tag2text", text=text, intermediate=32)
    ids = torch.tensor([[10, 3, 4, 5, 6, 7, 1], [10, 3, 4, 5, 8, 9, 1]])
    captions = CaptionBatch(
        tag_ids=ids, tag_mask=torch.ones_like(ids), caption_ids=ids, caption_mask=torch.ones_like(ids)
    )
    batch = Batch(pixels=torch.randn(2, 3, 16, 16), targets=torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]]))
    batch = Batch(pixels=batch.pixels, targets=batch.targets, captions=captions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = compute_losses(model, batch)
    for _ in range(20):
        optimizer.zero_grad()
        compute_losses(model, batch).total.backward()
        optimizer.step()
    after = compute_losses(model, batch)
    assert after.tag < 0.5 * before.tag
    assert after.t2t < 0.5 * before.t2t

"""Losses, gradients and optimiser steps against the published training code's numbers."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rasa_ram._names import tied_aliases, weight_table
from rasa_ram.data.captions import clean_caption
from rasa_ram.data.samples import CaptionBatch
from rasa_ram.tokenizer import CaptionTokenizer
from rasa_ram.training.losses import asymmetric_loss, caption_labels
from rasa_ram.training.objective import Batch, compute_losses
from rasa_ram.training.optimizer import build_optimizer
from tests.ram import reference

MODELS = ["ram", "tag2text", "ram_plus"]


def test_golden_asymmetric_loss_and_its_gradient():
    golden = reference.load_npz(reference.reference_folder() / "golden_losses.npz")
    cases = json.loads(str(golden["cases"]))
    assert cases
    for i, case in enumerate(cases):
        settings = dict(case["settings"])
        settings["weight_gradient"] = not settings.pop("disable_torch_grad_focal_loss", True)
        targets = torch.from_numpy(golden[f"case{i}_y"])
        for dtype, suffix, rtol, atol in ((torch.float32, "", 1e-6, 5e-6), (torch.float64, "64", 1e-12, 1e-12)):
            logits = torch.from_numpy(golden[f"case{i}_x"]).to(dtype).requires_grad_()
            loss = asymmetric_loss(logits, targets, **settings)
            loss.backward()
            np.testing.assert_allclose(loss.item(), golden[f"case{i}_loss{suffix}"], rtol=rtol)
            np.testing.assert_allclose(logits.grad.numpy(), golden[f"case{i}_grad{suffix}"], rtol=0, atol=atol)


@pytest.fixture(scope="module")
def load_case():
    """A function: name to golden arrays, tiny model in training mode with every dropout off, and its batch."""

    @functools.cache
    def load(name):
        folder = reference.reference_folder()
        golden = reference.load_npz(folder / f"golden_{name}_tiny.npz")
        return golden, training_model(folder, name, golden), batch_of(folder, name, golden)

    return load


def training_model(folder, name, golden):
    weights, _ = reference.tiny_weights(folder, name, reference.constants(golden["meta"]))
    config = reference.tiny_config(folder, name, text=True, dropout=0.0)
    text = config.text and replace(config.text, dropout=0.0)
    config = replace(config, vision=replace(config.vision, drop_path=0.0), text=text)
    return reference.model_from_official(config, weights).train()


def batch_of(folder, name, golden):
    def tensor(key):
        return torch.from_numpy(golden[key])

    # Tag2Text learned the tags of the caption; the others all that are known.
    targets = tensor("parse_tag" if name == "tag2text" else "image_tag")
    batch = Batch(pixels=tensor("image"), targets=targets)
    if name != "tag2text":
        batch = replace(batch, image_features=tensor("clip_feature"))
    if name == "ram_plus":
        return replace(batch, text_features=tensor("batch_text_embed"))
    return replace(batch, captions=caption_batch(folder, golden))


def caption_batch(folder, golden):
    tokenizer = CaptionTokenizer.read(folder / "tiny_vocab.txt")
    names = (folder / "tiny_tag_list.txt").read_text(encoding="utf-8").splitlines()
    tags = tokenizer.encode_tags([[names[i] for i in np.flatnonzero(row)] for row in golden["parse_tag"]])
    captions = tokenizer.encode_captions(golden["captions"].tolist())
    np.testing.assert_array_equal(tags.ids, golden["tag_input_ids"])
    np.testing.assert_array_equal(tags.mask, golden["tag_attention_mask"])
    np.testing.assert_array_equal(captions.ids, golden["decoder_input_ids"])
    if "decoder_attention_mask" in golden:
        np.testing.assert_array_equal(captions.mask, golden["decoder_attention_mask"])
    arrays = (tags.ids, tags.mask, captions.ids, captions.mask)
    parts = zip(("tag_ids", "tag_mask", "caption_ids", "caption_mask"), map(torch.from_numpy, arrays), strict=True)
    labels = caption_labels(torch.from_numpy(captions.ids), torch.from_numpy(captions.mask), prompt_length=4)
    np.testing.assert_array_equal(labels.numpy(), golden["decoder_labels"])
    return CaptionBatch(**dict(parts))


@pytest.mark.parametrize("name", ["ram", "tag2text"])
def test_golden_text_states_and_logits(load_case, name):
    golden, model, batch = load_case(name)
    captions = batch.captions
    with torch.no_grad():
        memory = model.encode_image(batch.pixels)
        states = model.captioner.encode_tags(captions.tag_ids, captions.tag_mask, memory)
        logits = model.captioner(captions.caption_ids, captions.caption_mask, states)
    np.testing.assert_allclose(states.numpy(), golden["tag_encoder_out"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits.numpy(), golden["decoder_logits"], rtol=0, atol=5e-5)


def test_golden_alignment_logits(load_case):
    golden, model, batch = load_case("ram_plus")
    with torch.no_grad():
        logits = model.decode(model.encode_image(batch.pixels), model.queries(batch.text_features))
    np.testing.assert_allclose(logits.numpy(), golden["alignment_logits"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", MODELS)
def test_golden_losses_and_gradient_norms(load_case, name):
    golden, model, batch = load_case(name)
    losses = compute_losses(model, batch)
    parts = [key.removeprefix("loss_") for key in golden if key.startswith("loss_")]
    assert {part for part in ("tag", "t2t", "dis", "alignment", "total") if getattr(losses, part) is not None} == set(
        parts
    )
    for part in parts:
        np.testing.assert_allclose(getattr(losses, part).item(), golden[f"loss_{part}"], rtol=1e-5, err_msg=part)
    model.zero_grad()
    losses.total.backward()
    ours = {weight.source: weight.name for weight in weight_table(model.config).values()}
    tensors = dict(model.named_parameters())
    # Each trained tensor once, under its canonical name: the ties must not show up as tensors of their own.
    trained = {source for source, ours_ in ours.items() if tensors[ours_].requires_grad}
    assert set(golden["grad_names"].tolist()) == trained
    assert len(trained) == sum(tensor.requires_grad for tensor in tensors.values())
    norms = [tensors[ours[key]].grad.norm().item() for key in golden["grad_names"].tolist()]
    np.testing.assert_allclose(norms, golden["grad_norms"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_golden_losses_along_adamw_steps(load_case, name):
    golden, _, batch = load_case(name)
    columns = {"ram": "t2t tag dis total", "tag2text": "t2t tag total", "ram_plus": "tag dis alignment total"}
    model = training_model(reference.reference_folder(), name, golden)
    optimizer = build_optimizer(model, rate=1e-4)
    steps = len(golden["adamw_losses"]) - 1
    rows = []
    for step in range(steps + 1):
        losses = compute_losses(model, batch)
        rows.append([getattr(losses, column).item() for column in columns[name].split()])
        if step < steps:
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
    np.testing.assert_allclose(rows, golden["adamw_losses"], rtol=2e-4)


@pytest.mark.parametrize("name", ["ram", "tag2text"])
def test_golden_tied_tensors_are_one_and_the_same(name):
    folder = reference.reference_folder()
    golden = reference.load_npz(folder / f"golden_{name}_tiny.npz")
    model = training_model(folder, name, golden)
    aliases, table = tied_aliases(model.config), weight_table(model.config)
    assert aliases
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for alias, canonical in aliases.items():
        assert tensors[f"captioner.{alias}"] is tensors[table[canonical].name], alias


def test_golden_caption_cleaning():
    path = reference.reference_folder() / "golden_pre_caption.json"
    cases = json.loads(path.read_text(encoding="utf-8"))
    assert cases
    for case in cases:
        for key, expected in case.items():
            if key.startswith("output_max_words_"):
                words = int(key.removeprefix("output_max_words_"))
                assert clean_caption(case["input"], max_words=words) == expected

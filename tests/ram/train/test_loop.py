"""Runs of tiny models: what they write, what they refuse, and what changes nothing but memory."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import rasa_ram
from rasa.errors import ConfigError, InputError, TrainingError
from rasa_ram.checkpoint import read_config
from rasa_ram.training.distributed import Processes
from rasa_ram.training.log import read_log
from rasa_ram.training.loop import RunSettings, Trainer
from rasa_ram.training.losses import asymmetric_loss
from rasa_ram.training.objective import Batch, compute_losses
from rasa_ram.training.optimizer import build_optimizer
from rasa_ram.training.step import TrainingStep, recomputing
from rasa_ram.training.update import Updater
from rasa_ram.vocabulary import Vocabulary
from tests.ram.train.runs import SCHEDULE, TAGS, Source, Teaching, cut, samples, tiny, trainer

FAMILIES = ["ram", "ram-plus", "tag2text"]
PARTS = {
    "ram": {"total", "tag", "t2t", "dis"},
    "ram-plus": {"total", "tag", "dis", "alignment"},
    "tag2text": {"total", "tag", "t2t"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, tmp_path_factory):
    family, out, reports = request.param, tmp_path_factory.mktemp("run"), []
    vocabulary = Vocabulary(("cat", "dog", "sofa", "tree", "car", "sky"))
    run = trainer(out, family, ema=0.5, clip_norm=100.0, progress=reports.append, vocabulary=vocabulary, keep=2)
    return family, run, run.run(), reports


def test_a_run_logs_every_step(finished):
    family, run, report, reports = finished
    lines = read_log(run.out / "log.jsonl")
    assert [line["step"] for line in lines] == [one.step for one in reports] == list(range(1, 11))
    assert [line["epoch"] for line in lines] == [0] * 5 + [1] * 5
    assert [line["rate"] for line in lines] == [SCHEDULE.rate(step, steps_per_epoch=5) for step in range(10)]
    for line in lines:
        assert line["losses"].keys() == PARTS[family]
        assert all(math.isfinite(value) for value in line["losses"].values())
        assert line["grad_norm"] > 0
        assert line["images_per_second"] > 0
        assert 0.05 < line["memory_gib"] < 60
    assert (report.steps, report.interrupted, report.losses) == (10, False, lines[-1]["losses"])


def test_a_run_learns(finished):
    family, run, _, _ = finished
    fresh, trained = tiny(family, dropout=0.0), run.model.eval()
    batches = [samples(number, 2) for number in range(5)]

    def error(model):
        with torch.no_grad():
            logits = torch.cat([model(batch.pixels) for batch in batches])
        targets = torch.cat([batch.targets for batch in batches])
        return float(asymmetric_loss(logits, targets))

    assert error(trained) < 0.95 * error(fresh)


def test_the_final_weights_load_as_a_tagger(finished):
    family, run, report, _ = finished
    assert report.weights == run.out / "model.safetensors"
    for path, same in ((report.weights, True), (report.average, False)):
        assert read_config(path) == run.model.config
        model = rasa_ram.load(path, text=family != "ram-plus")
        pairs = zip(model.state_dict().items(), run.model.state_dict().values(), strict=True)
        assert all(torch.equal(tensor, trained) for (_, tensor), trained in pairs) is same
    tagger = rasa_ram.load_tagger(run.out)
    assert tagger.vocabulary.names[:2] == ("cat", "dog")


def test_the_newest_checkpoints_are_kept(finished):
    _, run, report, _ = finished
    names = sorted(path.name for path in (run.out / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000010"]
    assert report.checkpoint.name == names[-1]
    assert {path.name for path in report.checkpoint.iterdir()} == {
        "average.safetensors", "optimizer.safetensors", "position.json", "weights.safetensors",
    }  # fmt: skip


def test_the_average_follows_its_formula(tmp_path):
    weights = []
    run = trainer(tmp_path, parts=(), ema=0.75, max_steps=3)
    run.progress = lambda _: weights.append(run.model.fc.weight.detach().clone())
    expected = run.model.fc.weight.detach().clone()
    report = run.run()
    for weight in weights:
        expected = 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(load_file(report.average)["fc.weight"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_process_changes_the_weights_as_the_plain_losses_do(family):
    batch, teacher = samples(5, 3), Teaching()
    ours, plain = tiny(family, dropout=0.0).train(), tiny(family, dropout=0.0).train()
    settings = RunSettings(device="cpu")
    updater = Updater(ours, settings=settings, processes=Processes.join("cpu"), teacher=teacher)
    updated = updater.update([batch], rate=1e-3)
    parts = Batch(pixels=batch.pixels, targets=batch.targets)
    if family != "tag2text":
        parts = replace(parts, image_features=teacher.image_features(batch.teacher_pixels))
    if family != "ram-plus":
        parts = replace(parts, captions=batch.captions)
    else:
        parts = replace(parts, text_features=teacher.text_features(batch.texts))
    optimizer = build_optimizer(plain, rate=1e-3, fused=True)
    losses = compute_losses(plain, parts)
    losses.total.backward()
    optimizer.step()
    assert updated.losses["total"] == losses.total.item()
    assert updated.losses["tag"] == losses.tag.item()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)  # bit for bit


def gradient(batches, family="ram-plus", **options):
    model = tiny(family, dropout=0.0).train()
    settings = RunSettings(device="cpu", accumulate=len(batches), **options)
    updater = Updater(model, settings=settings, processes=Processes.join("cpu"), teacher=Teaching())
    losses = updater.update(batches, rate=0.0).losses
    return losses, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_summed_losses_may_count_as_of_so_many_images_however_they_are_split():
    whole = samples(1, 6)
    parts = [cut(whole, slice(0, 3)), cut(whole, slice(3, 6))]
    options = {"loss_images": 6, "parts": ("image_features",)}
    (losses, grads), (split, split_grads) = gradient([whole], **options), gradient(parts, **options)
    assert split == pytest.approx(losses, rel=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(split_grads[name], grad, rtol=1e-4, atol=1e-5)
    # With the device's own batch it is the published sum.
    published, published_grads = gradient([whole], parts=("image_features",))
    assert published == losses
    assert all(torch.equal(published_grads[name], grad) for name, grad in grads.items())


def test_recomputing_changes_nothing_but_memory(tmp_path):
    for out, switch in (("plain", False), ("recomputed", True)):
        trainer(tmp_path / out, gradient_checkpointing=switch, max_steps=3).run()
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in ("plain", "recomputed"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-5, msg=name)


def test_recomputing_keeps_less(tmp_path):
    def kept(switch):
        model, sizes = tiny("tag2text").train(), []
        batch = samples(0, 2)
        step = TrainingStep(model, parts=None, autocast=False)
        with (
            recomputing(model, enabled=switch),
            torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
            ),
        ):
            step(Batch(pixels=batch.pixels, targets=batch.targets, captions=batch.captions))
        assert not any("forward" in vars(module) for module in model.modules())
        return sum(sizes)

    assert kept(True) < 0.6 * kept(False)


def test_bfloat16_stays_near_float32_and_the_weights_stay_float32(tmp_path):
    reports = {kind: trainer(tmp_path / kind, precision=kind, max_steps=2).run() for kind in ("float32", "bfloat16")}
    assert reports["bfloat16"].losses == pytest.approx(reports["float32"].losses, rel=0.1)
    assert reports["bfloat16"].losses != reports["float32"].losses
    assert {tensor.dtype for tensor in load_file(reports["bfloat16"].weights).values()} == {torch.float32}


def test_clipping_bounds_the_gradient():
    _, long = gradient([samples(1, 2)])
    _, short = gradient([samples(1, 2)], clip_norm=0.5)
    norm = torch.linalg.vector_norm(torch.stack([grad.norm() for grad in long.values()]))
    assert norm > 1
    for name, grad in long.items():
        torch.testing.assert_close(short[name], grad * 0.5 / norm)


def test_a_loss_that_is_no_number_stops_before_the_weights(tmp_path):
    source = Source(broken=(0, 3))
    run = trainer(tmp_path, source=source)
    expected = r"step 4: the losses are total nan.*; the weights are as before it, and the batch of 3-0.jpg lies in"
    with pytest.raises(TrainingError, match=expected):
        run.run()
    assert all(weight.isfinite().all() for weight in run.model.parameters())
    saved = tmp_path / "failed" / "step-00000004-process-0.json"
    facts = json.loads(saved.read_text(encoding="utf-8"))
    assert (facts["step"], facts["image_paths"]) == (4, ["3-0.jpg", "3-1.jpg"])
    assert [line["step"] for line in facts["last"]] == [1, 2, 3]
    tensors = load_file(saved.with_suffix(".safetensors"))
    assert tensors["pixels"].isnan().sum() == 1
    assert {"targets", "teacher_pixels", "tag_ids", "caption_ids"} < tensors.keys()
    # Nothing of it is in the last checkpoint: the run goes on once the image is mended.
    assert trainer(tmp_path, source=Source(), resume=True).run().steps == 10


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    run = trainer(tmp_path, parts=())
    run.model.fc.weight.register_hook(lambda grad: grad * math.inf)
    before = run.model.fc.bias.detach().clone()
    with pytest.raises(TrainingError, match=r"step 1: the gradient's norm is (inf|nan)"):
        run.run()
    assert torch.equal(run.model.fc.bias, before)


def test_a_source_that_ends_early_is_named(tmp_path):
    with pytest.raises(TrainingError, match="epoch 0 ended before the 5 batches that its source promised"):
        trainer(tmp_path, parts=(), source=Source(short=True)).run()


def test_what_does_not_fit_is_refused_before_the_run(tmp_path):
    def build(model, *, teacher=None, source=None, vocabulary=None, **settings):
        settings = RunSettings(device="cpu", **settings)
        source = source or Source()
        return Trainer(
            model, source, schedule=SCHEDULE, settings=settings, out=tmp_path, teacher=teacher, vocabulary=vocabulary
        )

    with pytest.raises(ConfigError, match="ram learns image_features from a teacher; pass one"):
        build(tiny("ram"))
    with pytest.raises(ConfigError, match="this ram has no captioner; give its config a text"):
        build(tiny("ram", captioner=False), teacher=Teaching())
    with pytest.raises(ConfigError, match="tag2text learns from captions besides tags, not from image_features"):
        build(tiny("tag2text"), parts=("image_features",))
    with pytest.raises(ConfigError, match="an epoch has 3 batches and a step takes 4; lower accumulate"):
        build(tiny("tag2text"), source=Source(3), accumulate=4)
    with pytest.raises(ConfigError, match=f"the vocabulary has 2 tags, the model {TAGS}"):
        build(tiny("tag2text"), vocabulary=Vocabulary(("cat", "dog")))
    bare = replace(samples(0, 2), teacher_pixels=None)
    source = Source(1)
    source.batches = lambda epoch, first=0: iter([bare])
    with pytest.raises(InputError, match=r"batch of 0-0.jpg has no view for the teacher"):
        build(tiny("ram"), teacher=Teaching(), source=source).run()
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no GPU is visible to torch"):
            trainer(tmp_path / "gpu", parts=(), device="cuda").run()


def test_frozen_weights_stay_as_they_are(tmp_path):
    run = trainer(tmp_path, parts=(), max_steps=2)
    run.model.visual_encoder.requires_grad_(False)
    before = {name: weight.clone() for name, weight in run.model.named_parameters()}
    run.run()
    changed = {name for name, weight in run.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert not any(name.startswith(("visual_encoder", "label_embedding.vectors")) for name in changed)


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = trainer(tmp_path, parts=(), max_steps=2, tensorboard=True).run()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("loss/tag")[-1].value == pytest.approx(report.losses["tag"])
    assert [event.step for event in events.Scalars("rate")] == [1, 2]

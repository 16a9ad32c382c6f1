"""Two processes train as one with twice the batch."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.ram.train.runs import gradients, together

FAST = {
    "ram": ("ram", {}),
    "ram-plus-images": ("ram-plus", {"loss_images": 4, "alignment": "global", "sharding": "fsdp", "clip_norm": 0.5}),
    "accumulated": ("tag2text", {"accumulate": 2}),
}
SLOW = {
    "ram-images": ("ram", {"loss_images": 3, "clip_norm": 0.5}),
    "tag2text": ("tag2text", {}),
    "ram-plus-unsharded": ("ram-plus", {"loss_images": 4, "alignment": "global"}),
    "tags-alone": ("ram", {"parts": (), "loss_images": 1}),
    "sharded": ("ram", {"sharding": "fsdp", "clip_norm": 0.5}),
    "sharded-accumulated": ("ram-plus", {"sharding": "fsdp", "loss_images": 4, "alignment": "global", "accumulate": 2}),
}
PUBLISHED = {"ram-plus": ("ram-plus", {"parts": ("image_features",)})}
CASES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A function: name to the folder of its results, computed with those of its speed at once."""

    @functools.cache
    def compute(slow):
        folder, cases = tmp_path_factory.mktemp("processes"), SLOW if slow else FAST | PUBLISHED
        assert together(gradients, 1, str(folder), cases) == [0]
        assert together(gradients, 2, str(folder), cases) == [0, 0]
        return folder

    return lambda name: compute(name in SLOW)


def read(folder, name, count):
    losses = json.loads((folder / f"{name}-{count}.json").read_text(encoding="utf-8"))
    return losses, *(load_file(folder / f"{name}-{count}{suffix}.safetensors") for suffix in ("", "-weights"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_losses_and_gradients_of_one_with_twice_the_batch(results, name):
    (losses, grads, weights), (both, both_grads, both_weights) = (read(results(name), name, count) for count in (1, 2))
    assert both == pytest.approx(losses, rel=1e-4)
    assert both_grads.keys() == grads.keys()
    assert len(grads) > 20
    for key, expected in grads.items():
        torch.testing.assert_close(both_grads[key], expected, rtol=1e-4, atol=1e-5 * losses["grad_norm"])
    # AdamW's first step has the size of the rate wherever the gradient is not near zero.
    strong = {key: grad.abs() > 1e-4 for key, grad in grads.items()}
    assert sum(int(mask.sum()) for mask in strong.values()) > 500
    for key, mask in strong.items():
        torch.testing.assert_close(both_weights[key][mask], weights[key][mask], rtol=0, atol=2e-5)


def test_by_default_ram_plus_averages_the_sums_of_its_devices_as_published(results):
    (losses, grads, _), (both, both_grads, _) = (read(results("ram-plus"), "ram-plus", count) for count in (1, 2))
    assert both["tag"] == pytest.approx(losses["tag"] / 2, rel=1e-5)
    assert both["dis"] == pytest.approx(losses["dis"], rel=1e-5)
    # What the distance does not reach has half the gradient.
    torch.testing.assert_close(both_grads["fc.weight"], grads["fc.weight"] / 2, rtol=1e-4, atol=1e-5)

"""SAM on both backends against numbers of the original network; see the README of the reference folder."""

import numpy as np
import pytest
import torch

from rasa._torch.prompts import Frame, best_masks, scale_boxes
from rasa.adapters.sam import load_sam
from rasa.adapters.sam.segmenter import preprocess
from rasa.types import Image
from tests.adapters.reference import fill, load_json, load_npz, read_shapes, reference_folder, sam_weight, sine_image

BACKENDS = ("segment-anything", "transformers")
# The README's limits.
LOGITS, QUALITY, PIXELS = 1e-3, 5e-4, 1e-4


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return _write(tmp_path_factory, "small")


@pytest.fixture(scope="module")
def full_file(tmp_path_factory):
    return _write(tmp_path_factory, "vit_b")


def _write(tmp_path_factory, name):
    folder = reference_folder("sam")
    seed = int(load_npz(folder / f"golden_sam_{name}.npz")["seed"])
    path = tmp_path_factory.mktemp(name) / f"sam_{name}.pth"
    torch.save(fill(read_shapes(folder / f"keys_sam_{name}.json"), sam_weight, seed), path)
    return path


def _cases(name):
    """The arrays of each image of a golden file, without the number of the image in their names."""
    arrays = load_npz(reference_folder("sam") / f"golden_sam_{name}.npz")
    if "n_cases" not in arrays:
        return [arrays]
    count = int(arrays["n_cases"])
    assert count >= 1
    return [
        {key.removesuffix(f"_{case}"): value for key, value in arrays.items() if key.endswith(f"_{case}")}
        for case in range(count)
    ]


def _side(name):
    return (
        load_json(reference_folder("sam") / f"golden_sam_{name}_config.json")["image_size"] if name == "small" else 1024
    )


@pytest.mark.parametrize("name", ["small", "vit_b"])
def test_pixels_and_boxes(name):
    for case in _cases(name):
        image = Image(sine_image(case["image"]))
        assert image.size == tuple(case["original_size"])
        frame = Frame.around(image.size, _side(name))
        assert frame.resized == tuple(case["input_size"])
        np.testing.assert_allclose(
            scale_boxes(case["boxes"], image.size, frame.resized), case["input_boxes"], rtol=1e-6
        )
        pixels = preprocess(image, frame.side).numpy()
        np.testing.assert_allclose(pixels[:, ::31, ::29], case["pixel_sub"], rtol=0, atol=1e-6)
        exact = pixels.astype(np.float64)
        np.testing.assert_allclose([exact.sum(), np.abs(exact).sum()], case["pixel_sums"], rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_model(small_file, backend):
    config = load_json(reference_folder("sam") / "golden_sam_small_config.json")
    heads = config["decoder"]["num_heads"]
    segmenters = {
        kind: load_sam(small_file, backend=backend, multimask=kind, decoder_heads=heads) for kind in ("single", "best")
    }
    cases = _cases("small")
    sizes = {tuple(case["original_size"]) for case in cases}
    assert any(height != width for height, width in sizes)
    for case in cases:
        _check(segmenters, case, strides=(1, 1, 1), logits=(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_vit_b(full_file, backend):
    single = load_sam(full_file, backend=backend)
    assert single.describe()["model"] == "sam-vit-b"
    (case,) = _cases("vit_b")
    _check({"single": single}, case, strides=(16, 4, 4), logits=(2, 4))


def _check(segmenters, case, *, strides, logits):
    segmenter = segmenters["single"]
    image = Image(sine_image(case["image"]))
    embedding = segmenter.embed([image])[0]
    _check_embedding(embedding.features[0][0].numpy(), case, strides)
    boxes = torch.from_numpy(case["input_boxes"])
    answers = {}
    for kind, step in zip(("single", "multi"), logits, strict=True):
        with torch.inference_mode():
            low, quality = segmenter.network.decode(embedding.features, boxes, multimask=kind == "multi")
        answers[kind] = low, quality
        np.testing.assert_allclose(low[..., ::step, ::step], case[f"low_res_{kind}"], rtol=0, atol=LOGITS)
        sums = torch.stack([low.double().sum((2, 3)), low.double().abs().sum((2, 3))], dim=-1)
        np.testing.assert_allclose(sums, case[f"low_res_sums_{kind}"], rtol=0, atol=LOGITS * low[0, 0].numel())
        np.testing.assert_allclose(quality, case[f"iou_{kind}"], rtol=0, atol=QUALITY)
    found = segmenter.segment([image], [case["boxes"]], embeddings=[embedding])[0]
    shape = tuple(case["mask_shape_single"])
    expected = np.unpackbits(case["mask_bits_single"], count=np.prod(shape)).reshape(shape).astype(bool)[:, 0]
    assert np.count_nonzero(found.masks != expected) <= PIXELS * expected.size
    areas = np.count_nonzero(found.masks, axis=(1, 2))
    np.testing.assert_allclose(areas, case["mask_area_single"][:, 0], rtol=0, atol=PIXELS * expected[0].size)
    np.testing.assert_allclose(found.scores, case["iou_single"][:, 0].clip(0, 1), rtol=0, atol=QUALITY)
    if "best" in segmenters:
        _check_best(segmenters["best"], image, case, answers["multi"])


def _check_embedding(embedding, case, strides):
    channels, rows, columns = strides
    np.testing.assert_allclose(embedding[::channels, ::rows, ::columns], case["embedding_sub"], rtol=0, atol=1e-4)
    exact = embedding.astype(np.float64)
    sums = [exact.sum(), np.abs(exact).sum(), (exact**2).sum()]
    np.testing.assert_allclose(sums, case["embedding_sums"], rtol=1e-5, atol=1e-5 * sums[1])


def _check_best(segmenter, image, case, answers):
    found = segmenter.segment([image], [case["boxes"]])[0]
    best = case["iou_multi"].argmax(axis=1)
    rows = np.arange(len(best))
    np.testing.assert_allclose(found.scores, case["iou_multi"][rows, best].clip(0, 1), rtol=0, atol=QUALITY)
    areas = np.count_nonzero(found.masks, axis=(1, 2))
    limit = PIXELS * found.masks[0].size
    np.testing.assert_allclose(areas, case["mask_area_multi"][rows, best], rtol=0, atol=max(1, limit))
    chosen, quality = best_masks(*answers)
    assert torch.equal(quality, answers[1].max(dim=1).values)
    assert torch.equal(chosen, answers[0][torch.arange(len(best)), torch.from_numpy(best)])

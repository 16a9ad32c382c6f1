"""SamSegmenter with small random weights: the two packages as peers, its promises, and the boxes that it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from segment_anything.modeling.image_encoder import Attention
from segment_anything.utils.amg import remove_small_regions
from segment_anything.utils.transforms import ResizeLongestSide
from transformers import SamModel

from rasa._torch.box_segmenter import _DECODER_BYTES
from rasa._torch.dense import use_dense
from rasa._torch.prompts import Frame, best_masks, clean_masks
from rasa.adapters.sam import load_sam
from rasa.adapters.sam.attention import RelativeAttention
from rasa.adapters.sam.segmenter import preprocess
from rasa.errors import InputError
from rasa.testing import check_segmenter, sample_images
from rasa.types import Image
from tests.adapters.reference import load_npz, sine_image
from tests.adapters.sam_peer import BACKENDS, BOXES, HIGH_QUALITY, original_sam, picture, save_high_quality_sam
from tests.adapters.tiny_sam import save_tiny_sam

NONE = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def model():
    return original_sam()


@pytest.fixture(scope="module")
def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam_tiny.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def high_quality_file(tmp_path_factory):
    return save_high_quality_sam(tmp_path_factory.mktemp("sam-hq"))


@pytest.fixture(scope="module", params=BACKENDS)
def segmenter(file, request):
    return load_sam(file, backend=request.param)


# Peers


@pytest.mark.parametrize("multimask", ["single", "best"])
def test_masks_are_those_of_the_published_code(file, model, multimask):
    images = [picture(96, 128), picture(150, 90), picture(64, 64)]
    boxes = [BOXES, BOXES[:2] * 0.6, BOXES[:1] / 2]
    transform = ResizeLongestSide(128)
    asked = [
        {
            "image": torch.from_numpy(transform.apply_image(image.pixels)).permute(2, 0, 1),
            "boxes": torch.from_numpy(transform.apply_boxes(rows, image.size)).float(),
            "original_size": image.size,
        }
        for image, rows in zip(images, boxes, strict=True)
    ]
    expected = model(asked, multimask_output=multimask == "best")
    for backend in BACKENDS:
        found = load_sam(file, backend=backend, multimask=multimask).segment(images, boxes)
        for masks, answer in zip(found, expected, strict=True):
            quality = answer["iou_predictions"]
            best = quality.argmax(dim=1)
            rows = torch.arange(len(best))
            wanted = answer["masks"][rows, best].numpy()
            assert 0 < wanted.mean() < 1
            assert np.count_nonzero(masks.masks != wanted) <= 1e-4 * wanted.size
            np.testing.assert_allclose(masks.scores, quality[rows, best].clip(0, 1), rtol=0, atol=1e-5)


def test_a_hub_folder_gives_the_masks_of_transformers(tmp_path):
    save_tiny_sam(tmp_path)
    peer = SamModel.from_pretrained(tmp_path).eval()
    for module in peer.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5  # the published code's; the final norm has it anyway
    boxes = torch.tensor([[4.0, 4, 40, 40], [8, 8, 50, 60]])
    for backend in BACKENDS:
        ours = load_sam(tmp_path, backend=backend)
        assert ours.describe()["backend"] == backend
        pixels = preprocess(picture(50, 64), 64)[None]
        with torch.inference_mode():
            expected = peer(pixel_values=pixels, input_boxes=boxes[None])
            logits, quality = ours.network.decode(ours.network.encode(pixels), boxes, multimask=True)
        torch.testing.assert_close(logits, expected.pred_masks[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(quality, expected.iou_scores[0], rtol=0, atol=1e-5)


def test_backend_follows_the_names_in_the_file(file, tmp_path):
    assert load_sam(file).describe()["backend"] == "segment-anything"
    save_tiny_sam(tmp_path)
    assert load_sam(tmp_path).describe()["backend"] == "transformers"
    single_file = load_sam(tmp_path / "model.safetensors", decoder_heads=2)
    assert single_file.describe()["backend"] == "transformers"


@pytest.mark.parametrize("kind", ["single", "best"])
def test_sam_hq_is_that_of_its_published_code(high_quality_file, kind):
    # golden/sam_hq/make.py wrote the arrays with segment-anything-hq 0.3.
    case = load_npz(HIGH_QUALITY / "sam_hq_tiny.npz")
    segmenter = load_sam(high_quality_file, multimask=kind)
    assert segmenter.describe()["model"] == "sam-hq-vit-48x3"
    (embedding,) = segmenter.embed([Image(sine_image(case["image"]))])
    with torch.inference_mode():
        boxes = torch.from_numpy(case["boxes"])
        found = best_masks(*segmenter.network.decode(embedding.features, boxes, multimask=kind == "best"))
    np.testing.assert_allclose(found[0], case[f"low_res_{kind}"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], case[f"iou_{kind}"], rtol=0, atol=1e-5)


def test_sam_hq_keeps_the_promises(high_quality_file):
    check_segmenter(load_sam(high_quality_file))
    with pytest.raises(InputError, match='SAM-HQ has no backend "segment-anything"'):
        load_sam(high_quality_file, backend="segment-anything")


# Exact speed


@pytest.mark.parametrize(("height", "width", "batch"), [(7, 7, 5), (32, 32, 1), (23, 29, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_is_that_of_the_published_code(height, width, batch, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = Attention(24, num_heads=3, use_rel_pos=True, input_size=(height, width)).to(dtype)
        for parameter in peer.parameters():
            parameter.data = torch.randn_like(parameter) / 2
        x = torch.randn(batch, height, width, 24, dtype=dtype)
    ours = RelativeAttention(peer.qkv, peer.proj, rel_pos_h=peer.rel_pos_h, rel_pos_w=peer.rel_pos_w, heads=3)
    with torch.inference_mode():
        expected = peer(x)
        use_dense(ours)
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-13)


def test_onednn_may_be_off(segmenter, monkeypatch):
    image = picture()
    expected = segmenter.segment([image], [BOXES])[0]
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    found = segmenter.segment([image], [BOXES])[0]
    assert np.count_nonzero(found.masks != expected.masks) <= 1e-4 * expected.masks.size
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)


def test_half_precision_changes_little(file):
    image = picture()
    expected = load_sam(file).segment([image], [BOXES])[0]
    for backend in BACKENDS:
        half = load_sam(file, backend=backend, dtype="bfloat16")
        assert half.describe()["dtype"] == "bfloat16"
        found = half.segment([image], [BOXES])[0]
        assert np.count_nonzero(found.masks != expected.masks) <= 0.05 * expected.masks.size
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=0.05)


# Promises


def test_conformance(segmenter):
    check_segmenter(segmenter)


def test_batches_change_nothing(file):
    images = sample_images()
    boxes = [np.tile(np.array([[0, 0, *image.size[::-1]]], np.float32), (i % 4, 1)) for i, image in enumerate(images)]
    one_by_one = load_sam(file, batch_size=1).segment(images, boxes)
    together = load_sam(file, batch_size=4).segment(images, boxes)
    assert sum(map(len, boxes)) >= 8
    for single, batched in zip(one_by_one, together, strict=True):
        assert np.count_nonzero(single.masks != batched.masks) <= 1e-4 * single.masks.size
        np.testing.assert_allclose(batched.scores, single.scores, rtol=0, atol=1e-5)


def test_many_boxes_are_decoded_in_chunks(segmenter, monkeypatch):
    image = picture()
    boxes = np.tile(BOXES, (5, 1)) * np.linspace(0.5, 1, 15, dtype=np.float32)[:, None]
    expected = segmenter.segment([image], [boxes])[0]
    monkeypatch.setitem(_DECODER_BYTES, "cpu", 1)
    found = segmenter.segment([image], [boxes])[0]
    assert np.count_nonzero(found.masks != expected.masks) <= 1e-4 * expected.masks.size
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)


def test_no_boxes_give_no_masks(segmenter):
    found = segmenter.segment([picture(), picture(3, 5)], [NONE, NONE])
    assert [masks.masks.shape for masks in found] == [(0, 96, 128), (0, 3, 5)]
    assert [masks.scores.shape for masks in found] == [(0,), (0,)]
    assert segmenter.segment([], []) == []


def test_an_image_of_one_pixel(segmenter):
    image = Image(np.full((1, 1, 3), 200, np.uint8))
    found = segmenter.segment([image], [np.array([[0, 0, 1, 1]], np.float32)])[0]
    assert found.masks.shape == (1, 1, 1)
    strip = picture(1, 3000)
    assert segmenter.segment([strip], [BOXES[:1] * 0])[0].masks.shape == (1, 1, 3000)


def test_boxes_are_cut_to_the_image(segmenter):
    image = picture()
    wide, cut = np.array([[-50, -9, 64, 400]], np.float32), np.array([[0, 0, 64, 96]], np.float32)
    first, second = (segmenter.segment([image], [boxes])[0] for boxes in (wide, cut))
    assert np.array_equal(first.masks, second.masks)
    outside = segmenter.segment([image], [np.array([[500, 500, 600, 600]], np.float32)])[0]
    assert outside.masks.shape == (1, 96, 128)


def test_embeddings_are_reused(segmenter):
    images = [picture(), picture(150, 90)]
    boxes = [BOXES, BOXES[:1] / 2]
    kept = segmenter.embed(images)
    fresh = segmenter.segment(images, boxes)
    for _ in range(2):
        for old, new in zip(fresh, segmenter.segment(images, boxes, embeddings=kept), strict=True):
            assert np.array_equal(old.masks, new.masks)
            assert np.array_equal(old.scores, new.scores)
    with pytest.raises(InputError, match="2 images need as many embeddings, got 1"):
        segmenter.segment(images, boxes, embeddings=kept[:1])
    with pytest.raises(InputError, match=r"is of an image of size \(150, 90\), and this one has \(96, 128\)"):
        segmenter.segment(images, boxes, embeddings=kept[::-1])


def test_embeddings_of_another_model_are_refused(segmenter, tmp_path):
    other = load_sam(save_tiny_sam(tmp_path))
    image = picture()
    with pytest.raises(InputError, match=r'is by "sam-vit-32x2 .*"; embed the image again|; embed the image again'):
        segmenter.segment([image], [BOXES], embeddings=other.embed([image]))


def test_description(file):
    segmenter = load_sam(file, multimask="best", min_region=9, provenance={"checkpoint": "x", "sha256": "0" * 64})
    description = json.loads(json.dumps(segmenter.describe()))
    assert description == {
        "model": "sam-vit-48x3",
        "checkpoint": "x",
        "sha256": "0" * 64,
        "backend": "segment-anything",
        "multimask": "best",
        "min_region": 9,
        "dtype": "float32",
    }


def test_preprocessing_is_that_of_the_published_code(model):
    for image in [picture(96, 128), picture(333, 77), picture(200, 200)]:
        resized = ResizeLongestSide(128).apply_image(image.pixels)
        expected = model.preprocess(torch.from_numpy(resized).permute(2, 0, 1).float())
        torch.testing.assert_close(preprocess(image, 128), expected, rtol=0, atol=1e-6)
        assert Frame.around(image.size, 128).resized == resized.shape[:2]


def test_cleaning_drops_islands_and_fills_holes(file):
    noise = np.random.default_rng(0).random((20, 60, 80))
    masks = ndimage.gaussian_filter(noise, (0, 1.5, 1.5)) > 0.5
    masks[0] = False
    masks[1] = False
    masks[1, 3:5, 3:6] = True  # all its islands are small: the largest stays
    expected = masks.copy()
    clean_masks(masks, 30)
    for before, after in zip(expected, masks, strict=True):
        if before.any():
            filled, _ = remove_small_regions(before, 30, "holes")
            cleaned, _ = remove_small_regions(filled, 30, "islands")
            assert np.array_equal(after, cleaned)
    assert not masks[0].any()
    assert masks[1].sum() == 6
    raw, clean = (load_sam(file, min_region=area).segment([picture()], [BOXES])[0].masks for area in (0, 400))
    again = raw.copy()
    clean_masks(again, 400)
    assert np.array_equal(clean, again)
    assert not np.array_equal(clean, raw)


def _peak_bytes():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def test_a_thousand_boxes_take_bounded_memory(file):
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("the peak of this process's memory is known on Linux alone")
    segmenter, image = load_sam(file), picture(480, 640)
    corners = np.random.default_rng(0).uniform(0, 1, (1000, 2, 2)) * (640, 480)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    segmenter.segment([image], [boxes[:2]])
    reset.write_text("5", encoding="ascii")  # proc(5): sets the peak to what is in use now
    before = _peak_bytes()
    found = segmenter.segment([image], [boxes])[0]
    assert found.masks.shape == (1000, 480, 640)
    assert found.scores.shape == (1000,)
    # 307 MB are the masks; the logits of all at photo size would be 1,229 MB more.
    assert _peak_bytes() - before < 307_200_000 + 300_000_000


# What is refused


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 5, 5], [0, np.nan, 5, 5]], r"'sample-.*': row 1 is \(0, nan, 5, 5\); every number must be finite"),
        ([[0, 0, np.inf, 5]], "row 0 .* finite"),
        ([[0, 0, 5, 5], [9, 0, 5, 5]], r"row 1 is \(9, 0, 5, 5\), which is reversed; pass x1 <= x2"),
        ([[0, 0, 5]], r"must have shape \(any, 4\), got \(1, 3\)"),
    ],
)
def test_malformed_boxes(segmenter, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment([picture()], [np.array(boxes, np.float32)])


def test_as_many_boxes_as_images(segmenter):
    with pytest.raises(InputError, match="1 images need as many arrays of boxes, got 2"):
        segmenter.segment([picture()], [BOXES, BOXES])


def test_masks_that_do_not_fit_are_refused_at_once(segmenter, file):
    image = Image(np.zeros((600, 800, 3), np.uint8), name="crowd.jpg")
    boxes = np.tile(np.array([[1, 1, 9, 9]], np.float32), (50_000, 1))
    message = r"24\.0 GB, more than the 8\.0 GB allowed: 'crowd.jpg' alone has 50000 boxes .*; keep fewer boxes"
    with pytest.raises(InputError, match=message):
        segmenter.segment([picture(), image], [BOXES, boxes])
    strict = load_sam(file, max_mask_bytes=3 * 96 * 128)
    assert len(strict.segment([picture()], [BOXES])[0]) == 3
    with pytest.raises(InputError, match="keep fewer boxes"):
        strict.segment([picture()] * 2, [BOXES, BOXES])

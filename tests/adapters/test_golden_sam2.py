"""SAM 2 against the original package: names, preprocessing, features, logits and masks; see golden/sam2/README.md."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2Config, Sam2Model
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig

from rasa import Image
from rasa._torch.squash import Squash
from rasa.adapters.sam2 import load_sam2, sam2_config
from rasa.adapters.sam2.keys import convert_keys
from rasa.errors import CheckpointError
from tests.adapters.reference import fill, load_npz, sam_weight, sine_image

GOLDEN = Path(__file__).parent / "golden" / "sam2"
PUBLISHED = json.loads(gzip.decompress((GOLDEN / "published_keys.json.gz").read_bytes()))


def small_config():
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[128, 128],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={"hidden_size": 32},
    )


@pytest.fixture(scope="module")
def golden():
    return load_npz(GOLDEN / "sam2_small.npz")


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    shapes = json.loads((GOLDEN / "sam2_small.json").read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("sam2") / "sam2_small.pt"
    torch.save({"model": fill(shapes, sam_weight, int(golden["seed"]))}, path)
    return path


def expected_masks(golden, multimask):
    iou = golden[f"iou_{multimask}"]
    shape = (*iou.shape, *golden["image"][:2])
    masks = np.unpackbits(golden[f"masks_{multimask}"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    return masks[np.arange(len(iou)), iou.argmax(1)]


@pytest.mark.parametrize("multimask", ["single", "best"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float32", 1e-6)])
def test_masks_and_scores_are_the_originals(golden, checkpoint, multimask, dtype, tolerance):
    segmenter = load_sam2(checkpoint, config=small_config(), dtype=dtype, multimask=multimask)
    image, boxes = Image(sine_image(golden["image"])), golden["boxes"].astype(np.float32)
    [found] = segmenter.segment([image], [boxes])
    expected = expected_masks(golden, multimask)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(found.masks, expected)
    np.testing.assert_allclose(found.scores, golden[f"iou_{multimask}"].max(1), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_features_are_the_originals(golden, checkpoint, dtype, tolerance):
    [found] = load_sam2(checkpoint, config=small_config(), dtype=dtype).embed([Image(sine_image(golden["image"]))])
    np.testing.assert_allclose(found.features[-1].numpy(), golden["embedding"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("multimask", ["single", "best"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 2e-6), ("float32", 1e-5)])
def test_logits_are_the_originals(golden, checkpoint, multimask, dtype, tolerance):
    weights = convert_keys(torch.load(checkpoint, weights_only=True)["model"], name="golden")
    model = Sam2Model(small_config()).eval()
    model.load_state_dict(weights, strict=True)
    model.to(getattr(torch, dtype))
    segmenter = load_sam2(checkpoint, config=small_config(), dtype=dtype)
    [found] = segmenter.embed([Image(sine_image(golden["image"]))])
    height, width = golden["image"][:2]
    boxes = torch.from_numpy(golden["boxes"] * 128 / [width, height, width, height]).to(model.dtype)
    with torch.inference_mode():
        answer = model(
            image_embeddings=list(found.features), input_boxes=boxes[None], multimask_output=multimask == "best"
        )
    np.testing.assert_allclose(answer.pred_masks[0].numpy(), golden[f"logits_{multimask}"], rtol=0, atol=tolerance)


def test_the_input_of_the_network_is_the_originals(golden):
    squash = Squash(int(golden["side"]), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = squash([Image(sine_image(golden["image"]))])
    np.testing.assert_allclose(pixels[:, :, ::5, ::3].numpy(), golden["pixels"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_key_of_the_published_sizes_is_converted_or_dropped_by_name(size):
    tensors = {key: torch.empty(shape, device="meta") for key, shape in PUBLISHED[size].items()}
    converted = convert_keys(tensors, name=size)
    with torch.device("meta"):
        model = Sam2Model(sam2_config(size))
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in converted.items()} == expected


def test_the_four_sizes_are_there():
    assert list(PUBLISHED) == ["t", "s", "b-plus", "l"]
    assert [len(keys) for keys in PUBLISHED.values()] == [471, 519, 615, 903]


def test_a_published_file_is_told_by_its_shapes_and_an_unknown_size_is_named(checkpoint):
    with pytest.raises(CheckpointError, match="has 16 channels and 5 blocks, which is none of the published sizes"):
        load_sam2(checkpoint)

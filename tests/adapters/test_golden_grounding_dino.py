"""Grounding DINO against the numbers of the authors' own code (the README in the reference folder says how made)."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import BertConfig, GroundingDinoConfig, SwinConfig

from rasa.adapters.grounding_dino.features import TextFeatures
from rasa.adapters.grounding_dino.keys import original_key, read_names
from rasa.adapters.grounding_dino.loading import match_weights, network_from
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.preprocess import preprocess, resized_size
from rasa.adapters.grounding_dino.sizes import infer_config
from rasa.types import Image
from tests.adapters.reference import (
    fill,
    grounding_dino_weight,
    load_json,
    load_npz,
    read_dtypes,
    read_shapes,
    reference_folder,
    sine_image,
)

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def folder():
    return reference_folder("grounding_dino")


def float_shapes(folder, name):
    shapes, dtypes = read_shapes(folder / f"keys_{name}.json"), read_dtypes(folder / f"keys_{name}.json")
    return {key: shape for key, shape in shapes.items() if dtypes[key].is_floating_point}


def meta_state(folder, name):
    dtypes = read_dtypes(folder / f"keys_{name}.json")
    shapes = read_shapes(folder / f"keys_{name}.json")
    return {key: torch.empty(shape, dtype=dtypes[key], device="meta") for key, shape in shapes.items()}


def small_config(folder):
    """What the weights of the shrunken model do not show is in its own file."""
    sizes = load_json(folder / "golden_small_config.json")
    vision, text = sizes["backbone"], sizes["text"]
    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=vision["embed_dim"],
            depths=vision["depths"],
            num_heads=vision["num_heads"],
            window_size=vision["window_size"],
            mlp_ratio=vision["mlp_ratio"],
            out_features=[f"stage{stage}" for stage in vision["out_stages"]],
        ),
        text_config=BertConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["hidden_size"],
            num_hidden_layers=text["num_hidden_layers"],
            num_attention_heads=text["num_attention_heads"],
            intermediate_size=text["intermediate_size"],
        ),
        d_model=sizes["hidden_dim"],
        num_queries=sizes["num_queries"],
        encoder_layers=sizes["enc_layers"],
        decoder_layers=sizes["dec_layers"],
        encoder_attention_heads=sizes["nheads"],
        decoder_attention_heads=sizes["nheads"],
        encoder_ffn_dim=sizes["dim_feedforward"],
        decoder_ffn_dim=sizes["dim_feedforward"],
        num_feature_levels=sizes["num_feature_levels"],
        encoder_n_points=sizes["enc_n_points"],
        decoder_n_points=sizes["dec_n_points"],
        max_text_len=sizes["max_text_len"],
    )


def network_of(folder, name, *, dtype, clamp=None):
    """The model of a golden file, through the conversion table; the full one's configuration from its weights."""
    seed = int(load_npz(folder / f"golden_{name}.npz")["seed"])
    state = fill(float_shapes(folder, name), grounding_dino_weight, seed)
    config = small_config(folder) if name == "small" else None
    # As the released files have it.
    network = network_from({f"module.{key}": tensor for key, tensor in state.items()}, config, name=name)
    if clamp is not None:
        network = GroundingDinoNetwork(network.model, clamp=clamp)
    return network.to_dtype(dtype)


@dataclass
class Run:
    """A batch through the network, with all that the golden files hold."""

    text: TextFeatures
    encoded_image: torch.Tensor
    encoded_text: torch.Tensor
    queries: object
    prediction: object


def run(network, pixels, captions, *, present=None):
    with torch.inference_mode():
        text = TextFeatures.stack([network.encode_text(ids) for ids in captions])
        image = network.encode_images(pixels, present=present)
        fused = network.fuse(image, text)
        queries = network.choose(fused, image, text)
        prediction = network.decode(fused, queries, image=image, text=text)
    return Run(text, fused.image, fused.text, queries, prediction)


def pixels_of(recipe, dtype):
    """Not resized; normalised in float64."""
    normal = (sine_image(recipe) / 255.0 - MEAN) / STD
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1))).to(dtype)


def padded(pictures):
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    pixels = torch.zeros(len(pictures), 3, height, width, dtype=pictures[0].dtype)
    present = torch.zeros(len(pictures), height, width, dtype=torch.bool)
    for row, picture in enumerate(pictures):
        pixels[row, :, : picture.shape[1], : picture.shape[2]] = picture
        present[row, : picture.shape[1], : picture.shape[2]] = True
    return pixels, present


def runs_of(network, golden):
    """Every case of a golden file, alone or in the padded batch, as ``(case, row, run)``."""
    cases = [int(found[1]) for key in golden if (found := re.fullmatch(r"image(\d+)", key))]
    assert cases, "the golden file holds no case"
    together = golden.get("padded_batch", np.array([], int)).tolist()
    ids = {case: golden[f"input_ids{case}"].tolist() for case in cases}
    pictures = {case: pixels_of(golden[f"image{case}"], network.dtype) for case in cases}
    for case in cases:
        if case not in together:
            yield case, 0, run(network, pictures[case][None], [ids[case]])
    if together:
        pixels, present = padded([pictures[case] for case in together])
        batch = run(network, pixels, [ids[case] for case in together], present=present)
        yield from ((case, row, batch) for row, case in enumerate(together))


def difference(ours, golden):
    assert tuple(ours.shape) == golden.shape
    return float(np.abs(ours.double().numpy() - golden).max())


def check(case, row, found, golden, *, logits, boxes, features):
    """Compare all that is stored; the limits are those of the README."""
    assert torch.equal(found.queries.index[row], torch.from_numpy(golden[f"topk{case}"]).long())
    places = int(golden[f"num_locations{case}"])
    assert found.encoded_image.shape[1] == places
    assert difference(found.text.tokens[row], golden[f"text_projected{case}"]) < features
    assert difference(found.encoded_text[row], golden[f"text_encoded{case}"]) < features
    step = max(1, places // 64)
    assert difference(found.encoded_image[row, ::step, :32], golden[f"image_encoded_slice{case}"]) < features
    image = found.encoded_image[row].double()
    sums = np.array([image.sum(), image.abs().sum(), image.square().sum()])
    np.testing.assert_allclose(sums, golden[f"image_encoded_sum{case}"], rtol=features, atol=features * image.numel())
    best = found.queries.scores[row].sort(descending=True).values[: len(golden[f"top_logits{case}"])]
    assert difference(best, golden[f"top_logits{case}"]) < max(2e-5, 20 * features)
    assert difference(found.prediction.logits[row], golden[f"logits{case}"]) < logits
    assert difference(found.prediction.boxes[row], golden[f"boxes{case}"]) < boxes
    assert np.array_equal(found.prediction.inner[row].numpy(), golden[f"inner{case}"])


class TestSmallModel:
    def test_float64_is_the_original_padded_batch_included(self, folder):
        golden = load_npz(folder / "golden_small.npz")
        seen = [
            check(case, row, found, golden, logits=2e-6, boxes=3e-7, features=1e-6)
            for case, row, found in runs_of(network_of(folder, "small", dtype=torch.float64), golden)
        ]
        assert len(seen) >= 4

    def test_float32_is_the_original_but_for_rounding(self, folder):
        golden = load_npz(folder / "golden_small.npz")
        for case, row, found in runs_of(network_of(folder, "small", dtype=torch.float32), golden):
            check(case, row, found, golden, logits=2e-5, boxes=2e-6, features=1e-5)

    def test_captions_of_different_lengths_in_one_batch_are_each_by_itself(self, folder):
        """The original is wrong here, as the README tells."""
        golden = load_npz(folder / "golden_small.npz")
        network = network_of(folder, "small", dtype=torch.float64)
        together = golden["padded_batch"].tolist()
        alone = [case for case, _, _ in runs_of(network, golden) if case not in together]
        pictures = [pixels_of(golden[f"image{case}"], network.dtype) for case in alone]
        same_size = [case for case in alone if golden[f"image{case}"][:2].tolist() == golden["image0"][:2].tolist()]
        captions = [golden[f"input_ids{case}"].tolist() for case in alone]
        assert len({len(caption) for caption in captions}) > 1
        picture = pictures[alone.index(same_size[0])][None]
        with torch.inference_mode():
            image = network.encode_images(picture).take([0] * len(alone))
            texts = [network.encode_text(caption) for caption in captions]
            batch = network(image, TextFeatures.stack(texts))
            for row, text in enumerate(texts):
                single = network(network.encode_images(picture), text)
                length = text.tokens.shape[1]
                assert torch.allclose(batch.logits[row, :, :length], single.logits[0], atol=1e-9)
                assert torch.isneginf(batch.logits[row, :, length:]).all()
                assert torch.allclose(batch.boxes[row], single.boxes[0], atol=1e-9)
        assert difference(batch.logits[0, :, : len(captions[0])], golden["logits0"]) < 2e-6


class TestFullModel:
    def test_float64_is_the_original(self, folder):
        golden = load_npz(folder / "golden_swint_ogc.npz")
        for case, row, found in runs_of(network_of(folder, "swint_ogc", dtype=torch.float64), golden):
            check(case, row, found, golden, logits=1e-5, boxes=2e-6, features=2e-6)

    @pytest.mark.slow
    def test_float32_is_the_original_but_for_rounding(self, folder):
        golden = load_npz(folder / "golden_swint_ogc.npz")
        for case, row, found in runs_of(network_of(folder, "swint_ogc", dtype=torch.float32), golden):
            logits = (found.prediction.logits[row] - torch.from_numpy(golden[f"logits{case}"])).abs().amax(1)
            boxes = (found.prediction.boxes[row] - torch.from_numpy(golden[f"boxes{case}"])).abs().amax(1)
            # Rounding may swap two places with nearly equal scores, and with them two rows.
            assert (logits < 1e-3).float().mean() >= 0.99
            assert (boxes < 1e-4).float().mean() >= 0.99

    @pytest.mark.slow
    def test_the_clamp_of_transformers_agrees_where_no_coordinate_is_near_the_border(self, folder):
        golden = load_npz(folder / "golden_swint_ogc.npz")
        network = network_of(folder, "swint_ogc", dtype=torch.float64, clamp=1e-5)
        outer = 0
        for case, row, found in runs_of(network, golden):
            inner = torch.from_numpy(golden[f"inner{case}"])
            outer += int((~inner).sum())
            logits = (found.prediction.logits[row] - torch.from_numpy(golden[f"logits{case}"])).abs().amax(1)
            assert logits[inner].max() < 1e-3
            assert logits.max() < 1e-2
        assert outer > 0


@pytest.mark.parametrize("name", ["swint_ogc", "swinb_cogcoor"])
def test_the_keys_of_the_released_files_convert_with_nothing_left_over(folder, name):
    state = meta_state(folder, name)
    weights = read_names({f"module.{key}": tensor for key, tensor in state.items()}, name=name)
    used = {weight.key.removeprefix("module.") for weight in weights.values()}
    dropped = {key for key in state if key not in used}
    assert {re.sub(r"\d+", "#", key.partition(".")[2]) for key in dropped if not key.startswith("bert.")} <= {
        "0.layers.#.blocks.#.attn.relative_position_index",
        "#.layers.#.blocks.#.attn.relative_position_index",
        "weight",
    }
    assert {key for key in dropped if key.startswith("bert.")} <= {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "bert.embeddings.position_ids",
    }
    assert all(original_key(published) == weight.key.removeprefix("module.") for published, weight in weights.items())
    with torch.device("meta"):
        from transformers import GroundingDinoForObjectDetection

        model = GroundingDinoForObjectDetection(infer_config(weights, name=name))
    plan = match_weights(weights, model, name=name)  # raises if a weight is missing, left over or of another shape
    filled = {id(parameter) for parameter, _ in plan}
    left = [key for key, parameter in model.named_parameters() if id(parameter) not in filled]
    assert all(".layernorm." in key for key in left)
    assert len(left) <= 2


def test_sizes_are_those_of_the_original(folder):
    rows = load_json(folder / "golden_sizes.json")["rows"]
    assert len(rows) >= 40
    for height, width, *expected in rows:
        assert resized_size((height, width)) == tuple(expected)


def test_preprocessing_is_that_of_the_original(folder):
    golden = load_npz(folder / "golden_preprocess.npz")
    cases = [int(key.removeprefix("image")) for key in golden if key.startswith("image")]
    assert len(cases) >= 3
    for case in cases:
        pixels = preprocess(Image(sine_image(golden[f"image{case}"])))
        height, width = pixels.shape[1:]
        assert list(pixels.shape) == golden[f"shape{case}"].tolist()
        top, left = height // 2 - 6, width // 2 - 6
        assert np.array_equal(pixels[:, :12, :12], golden[f"corner{case}"])
        assert np.array_equal(pixels[:, top : top + 12, left : left + 12], golden[f"center{case}"])
        assert np.array_equal(pixels[:, ::37, ::41], golden[f"sub{case}"])
        sums = pixels.astype(np.float64).sum(), np.abs(pixels.astype(np.float64)).sum()
        np.testing.assert_allclose(sums, golden[f"sums{case}"], rtol=1e-9)
